"""A student that learns from a teacher by acting itself: DAgger (Ross, Gordon and Bagnell, 2011, arXiv 1011.0686, algorithm 3.1).

In each round a mixture of teacher and student acts, the teacher labels every state on the way, and the student is fitted to all labels so
far; so it learns what to do in the states that its own errors lead to. A label is the teacher's deterministic output:

- discrete heads: cross-entropy to softmax(teacher's logits / τ), group by group; the student's logits stay as they are (Rusu et al., 2015,
  arXiv 1511.06295, equation 3). Here the labels are the deployed policy's, not a sample.
- continuous heads: squared error of the physical action, in halves of its range. Where the teacher is at an end of the range, a student
  beyond that end is not wrong: both are clamped.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from puffer_edge import __version__
from puffer_edge.envs.environment import Environment
from puffer_edge.envs.plant import Plant
from puffer_edge.errors import Diverged
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import Policy
from puffer_edge.spaces import Floats
from puffer_edge.train import vector
from puffer_edge.train.distillation.settings import DistilSettings
from puffer_edge.train.nets import encoder

STREAM = 4
"""Of a seed: no other training draws from it."""
NEAR = 0.01
"""Continuous actions within this share of the range count as agreement, as they do of integers."""


class Student:
    """A perceptron on its way. What it becomes depends on teacher, shape, settings and seed, not on the other students.

    Args:
        teacher: labels what is seen; its normaliser and head are the student's too.
        hidden: widths of the hidden layers, perhaps none.
        environment: where they act.
        shield: between them and the actuator.
        settings: of the distillation.
        seed: of weights, episodes, mixture and minibatches.

    Attributes:
        steps: environment steps acted, those of each agent counted.
        round: rounds done.
    """

    def __init__(
        self, teacher: Policy, hidden: tuple[int, ...], environment: Environment, shield: Shield, settings: DistilSettings, seed: int
    ) -> None:
        self.teacher, self.hidden, self.shield, self.settings, self.seed = teacher, hidden, shield, settings, seed
        weights, episodes, draws = (int(s) for s in np.random.SeedSequence([seed, STREAM, *hidden]).generate_state(3))
        c, s = teacher.contract, settings
        widths, generator = (*hidden, c.n_outputs), torch.Generator().manual_seed(weights)
        self.net = encoder.network(c.n_observations, widths, s.activation, 1.0, generator)
        self.optimizer = torch.optim.Adam(self.net.parameters(), s.learning_rate)
        self.rng = np.random.default_rng(draws)
        world, _ = vector.make(environment, s.rows, vector.Spec())
        self.plant = Plant(environment, s.rows, episodes, shield, world)
        self.memory = np.zeros((self.plant.rows, teacher.memory))
        self.observation = c.physical_observation(self.plant.last)
        self.steps = self.round = 0
        low, high = np.array([ch.low for ch in c.actions]), np.array([ch.high for ch in c.actions])
        self._middle: Floats = (low + high) / 2
        self._half: Floats = np.maximum((high - low) / 2, 1e-12)
        self._inputs: list[Floats] = []
        self._labels: list[Floats] = []

    def close(self) -> None:
        """Stop the processes that environments live in, if there are any."""
        self.plant.world.close()

    def policy(self) -> Policy:
        """The student as it is now."""
        versions = {"puffer_edge": __version__, "torch": torch.__version__, "numpy": np.__version__}
        origin: dict[str, Any] = {"environment": self.plant.environment.name, "algorithm": "distil", "seed": self.seed, "steps": self.steps}
        origin |= {"shield": [dict(stage) for stage in self.shield.specification], "versions": versions}
        if plant := self.plant.environment.imperfections.to_dict():
            origin["plant"] = plant
        t = self.teacher
        return Policy(t.contract, encoder.layers(self.net, self.settings.activation), t.normalizer, t.head, origin)

    def advance(self) -> dict[str, float]:
        """One round; ``loss``, the mean of its gradient steps, and ``agreement``, the student's with the teacher before them, where it went.

        Raises:
            Diverged: the loss became NaN or infinite.
        """
        agreement = self._act(self.settings.mix**self.round)
        loss = self._fit()
        self.round += 1
        return {"loss": loss, "agreement": agreement}

    def _act(self, mix: float) -> float:
        """Go on for a horizon and keep what was seen and the teacher's labels; the share of steps at which the student would do the same."""
        student, agreed, acted = self.policy(), 0, 0
        for _ in range(self.settings.horizon):
            outputs, memory = self.teacher.step(self.observation, self.memory)
            wanted, own = self.teacher.decide(outputs), student.act(self.observation)
            by_teacher = self.rng.random(len(wanted)) < mix
            step = self.plant.step(np.where(by_teacher[:, None], wanted, own))
            alive = step.alive
            self._inputs.append(self.teacher.normalizer(self.observation[alive]))
            self._labels.append(self._label(outputs[alive], wanted[alive]))
            near = np.abs(own - wanted)[alive] <= 2 * NEAR * self._half
            agreed += int(near.all(1).sum())
            acted += int(alive.sum())
            self.memory = np.where((step.terminated | step.truncated)[:, None], 0.0, memory)
            self.observation = step.observation
        self.steps += acted
        return agreed / max(acted, 1)

    def _label(self, outputs: Floats, wanted: Floats) -> Floats:
        """(B, n_outputs) probabilities of choices, or (B, n_actions) actions in halves of their range, from −1 to 1."""
        c = self.teacher.contract
        if c.head not in ("discrete", "multi_discrete"):
            actions: Floats = (wanted - self._middle) / self._half
            return actions
        groups: list[Floats] = np.split(outputs / self.settings.temperature, np.cumsum(c.groups)[:-1], -1)
        powers: list[Floats] = [np.exp(group - group.max(-1, keepdims=True)) for group in groups]
        return np.concatenate([power / power.sum(-1, keepdims=True) for power in powers], -1)

    def _fit(self) -> float:
        """Gradient steps on everything labelled so far; the mean of their losses."""
        s, total = self.settings, 0.0
        inputs, labels = (torch.from_numpy(np.concatenate(rows).astype(np.float32)) for rows in (self._inputs, self._labels))
        for k in range(s.updates):
            done = (self.round + k / s.updates) / s.rounds
            for group in self.optimizer.param_groups:
                group["lr"] = s.learning_rate * (1 + math.cos(math.pi * done)) / 2
            picks = torch.from_numpy(self.rng.integers(0, len(inputs), s.minibatch))
            loss = self._loss(self.net(inputs[picks]), labels[picks])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            total += float(loss.detach())
        if not math.isfinite(total):
            raise Diverged(f"the student's loss became {total} in round {self.round}: take a lower --learning-rate")
        return total / s.updates

    def _loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        head, c = self.teacher.head, self.teacher.contract
        if c.head in ("discrete", "multi_discrete"):
            logs = torch.cat([group.log_softmax(-1) for group in torch.split(outputs, list(c.groups), -1)], -1)
            return -(labels * logs).sum(-1).mean()
        scale, offset = (torch.from_numpy(v.astype(np.float32)) for v in (head.scale / self._half, (head.offset - self._middle) / self._half))
        error = offset + scale * (torch.tanh(outputs) if c.head == "tanh" else outputs) - labels
        error = torch.where(labels >= 1.0, error.clamp(max=0.0), error)
        error = torch.where(labels <= -1.0, error.clamp(min=0.0), error)
        return (error**2).sum(-1).mean()
