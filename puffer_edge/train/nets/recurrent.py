"""Networks with memory: an actor and a critic, each with a cell between its hidden layers and its last one; the actor alone is deployed.

Gradients go back through a sequence and stop at its start, where the memory is what the policy had there when it acted (truncated
backpropagation through time; Williams and Peng, 1990). Equations and gate orders of the cells are those of ``puffer_edge.layers.Recurrent``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from puffer_edge.contract import Contract
from puffer_edge.policy import AnyLayer, Recurrent
from puffer_edge.train.distributions import Distribution, distribution_of
from puffer_edge.train.native.cells import CellsFunction
from puffer_edge.train.nets import encoder
from puffer_edge.train.settings import PPOSettings

GATES = {"gru": 3, "lstm": 4}
STATES = {"gru": 1, "lstm": 2}
"""Numbers that each unit keeps: h, of an LSTM c too."""


@dataclass(frozen=True, eq=False)
class Past:
    """What S sequences of L steps begin with and go through.

    Attributes:
        memory: (S, M) before the first step.
        kept: (S, L) float32; 1 where the memory goes on after the step, 0 where it is cleared: the episode ended, or the agent did not act.
        alive: (S, L) bool, the steps that are samples; None for all.
    """

    memory: torch.Tensor
    kept: torch.Tensor
    alive: torch.Tensor | None = None

    def __getitem__(self, sequences: torch.Tensor | slice) -> Past:
        return Past(self.memory[sequences], self.kept[sequences], None if self.alive is None else self.alive[sequences])

    def samples(self, x: torch.Tensor) -> torch.Tensor:
        """(S, L, …) as (samples, …), sequence after sequence."""
        return x.flatten(0, 1) if self.alive is None else x[self.alive]


class Cell(nn.Module):
    """The weights of a GRU or an LSTM; orthogonal start, biases of 0.

    Args:
        kind: one of ``GATES``.
        inputs: numbers that go in.
        size: units.
        generator: draws the weights.
    """

    def __init__(self, kind: str, inputs: int, size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.kind, rows = kind, GATES[kind] * size
        self.weight_ih, self.weight_hh = nn.Parameter(torch.empty(rows, inputs)), nn.Parameter(torch.empty(rows, size))
        self.bias_ih, self.bias_hh = nn.Parameter(torch.zeros(rows)), nn.Parameter(torch.zeros(rows))
        for weight in (self.weight_ih, self.weight_hh):
            nn.init.orthogonal_(weight, generator=generator)

    def layer(self) -> Recurrent:
        """As a layer of a ``Policy``."""
        return Recurrent(self.kind, *(encoder.numbers(p) for p in (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)))


def unroll(cells: list[Cell], given: list[torch.Tensor], memory: torch.Tensor, kept: torch.Tensor, library: Any = None) -> torch.Tensor:
    """Several cells of one kind and size side by side through a sequence, as one batched product a step.

    Args:
        cells: K of them.
        given: of each (S, L, I), what it is given.
        memory: (S, K · states · H) before the first step.
        kept: (S, L) what the memory is multiplied by after each step.
        library: of the native trainer, which then computes the recurrence; its last bits are others.

    Returns:
        (L, states, K, S, H) memory after each step, before it is cleared.
    """
    kind, rows = cells[0].kind, len(memory)
    start = memory.view(rows, len(cells), STATES[kind], -1).permute(2, 1, 0, 3)
    weight, bias = (torch.stack([getattr(cell, name) for cell in cells]) for name in ("weight_hh", "bias_hh"))
    inputs = torch.stack([nn.functional.linear(x.transpose(0, 1), cell.weight_ih, cell.bias_ih) for cell, x in zip(cells, given)], 1)
    inputs = inputs.to(weight.dtype)  # in bfloat16 what a sequence remembers would be lost in its rounding
    if library is not None:
        native: torch.Tensor = CellsFunction.apply(library, inputs, weight, bias, kept.t(), start)  # type: ignore[no-untyped-call]
        return native
    step, found, after, turned = _gru if kind == "gru" else _lstm, list[torch.Tensor](), list(start), weight.transpose(1, 2)
    with torch.autocast("cpu", enabled=False):
        for x, keep in zip(inputs, kept.t()[..., None]):
            state = step(x, torch.baddbmm(bias[:, None], after[0], turned), after)
            found.append(torch.stack(state))
            after = [part * keep for part in state]
    return torch.stack(found)


def _gru(given: torch.Tensor, kept: torch.Tensor, state: list[torch.Tensor]) -> list[torch.Tensor]:
    size = state[0].shape[-1]
    reset, update = torch.sigmoid(given[..., : 2 * size] + kept[..., : 2 * size]).chunk(2, -1)
    new = torch.tanh(given[..., 2 * size :] + reset * kept[..., 2 * size :])
    return [torch.lerp(new, state[0], update)]


def _lstm(given: torch.Tensor, kept: torch.Tensor, state: list[torch.Tensor]) -> list[torch.Tensor]:
    entered, forgotten, new, shown = (given + kept).chunk(4, -1)
    c = torch.sigmoid(forgotten) * state[1] + torch.sigmoid(entered) * torch.tanh(new)
    return [torch.sigmoid(shown) * torch.tanh(c), c]


class RecurrentActorCritic(nn.Module):
    """Actor and critic with memory; ``PPOSettings`` decides kind, sizes, and whether they share everything but the last layer.

    Memory lies in one row for each agent: the actor's h, of an LSTM its c, then the critic's likewise.

    Args:
        contract: decides inputs, outputs and head.
        settings: of the training.
        generator: draws the weights.
        library: of the native trainer, for the cells; None for torch's loop.

    Attributes:
        memory: M, numbers of a row.
        remembered: those of them that are the actor's, which come first.
    """

    def __init__(self, contract: Contract, settings: PPOSettings, generator: torch.Generator, library: Any = None) -> None:
        super().__init__()
        self.library = library
        s, self.contract, self.activation = settings, contract, settings.activation
        self.encoders, self.cells = nn.ModuleList(), nn.ModuleList()
        for _ in ("actor",) if s.shared else ("actor", "critic"):
            layers = encoder.modules(contract.n_observations, s.hidden, s.activation, generator, s.image, s.filters)
            self.encoders.append(nn.Sequential(*layers))
            self.cells.append(Cell(s.memory, s.hidden[-1], s.memory_size, generator))
        self.head, self.value = nn.Linear(s.memory_size, contract.n_outputs), nn.Linear(s.memory_size, 1)
        for layer, gain in ((self.head, 0.01), (self.value, 1.0)):
            nn.init.orthogonal_(layer.weight, gain, generator=generator)
            nn.init.zeros_(layer.bias)
        self.log_std: nn.Parameter | None = None
        if contract.head not in ("discrete", "multi_discrete"):
            features = (s.features,) if s.exploration == "state" else ()
            self.log_std = nn.Parameter(torch.full((*features, contract.n_actions), s.log_std))
        self.remembered = s.remembered
        self.memory = self.remembered * len(self.cells)

    def forward(self, inputs: torch.Tensor, past: Past, allowed: torch.Tensor | None = None) -> tuple[Distribution, torch.Tensor]:
        """The policy at the samples of S sequences of L steps, and what the critic says there.

        Args:
            inputs: (S, L, n_observations) normalised observations.
            past: of the sequences.
            allowed: (S, L, n_outputs) bool excludes choices; None excludes none.

        Returns:
            the policy and (samples,) values, sequence after sequence.

        Raises:
            InvalidInput: choices are excluded from a head that gives numbers.
        """
        features, _ = self.run(inputs, past.memory, past.kept)
        return self.judge(past.samples(features), None if allowed is None else past.samples(allowed))

    def step(
        self, inputs: torch.Tensor, memory: torch.Tensor, allowed: torch.Tensor | None = None
    ) -> tuple[Distribution, torch.Tensor, torch.Tensor]:
        """One step of B rows.

        Args:
            inputs: (B, n_observations).
            memory: (B, memory) or, of the actor alone, whose features are then the critic's too, (B, remembered).
            allowed: (B, n_outputs) bool.

        Returns:
            the policy, (B,) values, and the memory after the step, of the shape that was given.
        """
        features, after = self.run(inputs[:, None], memory, torch.ones(len(inputs), 1))
        policy, value = self.judge(features[:, 0], allowed)
        return policy, value, after[:, 0]

    def run(self, inputs: torch.Tensor, memory: torch.Tensor, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Everything but the last layers, for as many of actor and critic as there is memory of.

        Returns:
            (S, L, networks, H) what the last layers are given; (S, L, M) memory after each step, before it is cleared.
        """
        (rows, steps), count = inputs.shape[:2], memory.shape[1] // self.remembered
        flat = inputs.flatten(0, 1)
        given = [network(flat).view(rows, steps, -1) for network in list(self.encoders)[:count]]
        cells = [cell for cell in list(self.cells)[:count] if isinstance(cell, Cell)]
        after = unroll(cells, given, memory, kept, self.library).permute(3, 0, 2, 1, 4)
        return after[:, :, :, 0], after.flatten(2)

    def judge(self, features: torch.Tensor, allowed: torch.Tensor | None = None) -> tuple[Distribution, torch.Tensor]:
        """The last layers, of (B, networks, H) features: the policy, and (B,) values."""
        policy = distribution_of(self.contract, self.head(features[:, 0]), allowed, self.log_std, features[:, 0])
        value: torch.Tensor = self.value(features[:, -1])[:, 0]
        return policy, value

    def layers(self) -> tuple[AnyLayer, ...]:
        """The actor, as the layers of a ``Policy``."""
        hidden, cell = self.encoders[0], self.cells[0]
        assert isinstance(hidden, nn.Sequential) and isinstance(cell, Cell)
        return *encoder.layers(hidden, self.activation), cell.layer(), *encoder.layers([self.head], self.activation)
