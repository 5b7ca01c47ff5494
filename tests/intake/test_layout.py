"""State dicts: CleanRL's names are known, others take a layout, and every form of file gives the same tensors."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel
from puffer_edge.errors import InvalidInput, PufferEdgeError, Unsupported
from puffer_edge.intake.adopt import read_draft
from puffer_edge.intake.draft import assemble
from puffer_edge.intake.sources import Sources
from puffer_edge.intake.tensors import read_tensors
from puffer_edge.policy import Policy
from tests.intake.hostile import torch_file

ROWS = 400


def contract(n: int, m: int, head: str, levels: Any = (), bound: float = 5.0) -> Contract:
    channels = tuple(ActionChannel(f"a{j}", "1", -bound, bound, 0.0, 0.0) for j in range(m))
    return Contract("task", tuple(ObservationChannel(f"o{i}", "1", -4.0, 4.0) for i in range(n)), channels, head, 50.0, levels)


def uniform(*shape: int) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(5).uniform(-4, 4, (ROWS, *shape)).astype(np.float32))


def imported(folder: Path, state: Any, c: Contract, layout: str | None = None) -> tuple[Policy, tuple[str, ...]]:
    (folder / "actor.pth").write_bytes(state if isinstance(state, bytes) else torch_file(state))
    if layout is not None:
        (folder / "layout.toml").write_text(layout)
    draft = read_draft(Sources(folder / "actor.pth", layout=folder / "layout.toml" if layout is not None else None), folder)
    return assemble(draft, c)


def sequence(*widths: int, activation: Any = nn.Tanh) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in zip(widths, widths[1:]):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers[:-1])


class PPOContinuous(nn.Module):
    """The names of ppo_continuous_action.py."""

    def __init__(self) -> None:
        super().__init__()
        self.critic, self.actor_mean = sequence(4, 8, 8, 1), sequence(4, 8, 8, 2)
        self.actor_logstd = nn.Parameter(torch.zeros(1, 2))

    def forward(self, x: torch.Tensor) -> Any:
        return self.actor_mean(x)


class PPO(nn.Module):
    """The names of ppo.py."""

    def __init__(self) -> None:
        super().__init__()
        self.critic, self.actor = sequence(4, 8, 8, 1), sequence(4, 8, 8, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.actor(x)


class DQN(nn.Module):
    """The names of dqn.py."""

    def __init__(self) -> None:
        super().__init__()
        self.network = sequence(4, 12, 8, 3, activation=nn.ReLU)

    def forward(self, x: torch.Tensor) -> Any:
        return self.network(x)


class Squashed(nn.Module):
    """The names of sac_continuous_action.py and td3_continuous_action.py."""

    def __init__(self, last: str) -> None:
        super().__init__()
        self.fc1, self.fc2, self.last = nn.Linear(4, 8), nn.Linear(8, 8), last
        setattr(self, last, nn.Linear(8, 2))
        if last == "fc_mean":
            self.fc_logstd = nn.Linear(8, 2)
        self.register_buffer("action_scale", torch.tensor([2.0, 0.5]))
        self.register_buffer("action_bias", torch.tensor([0.5, -1.0]))

    def forward(self, x: torch.Tensor) -> Any:
        y = getattr(self, self.last)(torch.relu(self.fc2(torch.relu(self.fc1(x)))))
        return torch.tanh(y) * self.action_scale + self.action_bias  # type: ignore[operator]


def test_cleanrl_continuous(tmp_path: Path) -> None:
    actor = PPOContinuous()
    policy, notes = imported(tmp_path, actor.state_dict(), contract(4, 2, "clip"))
    assert np.abs(policy.act(uniform(4).numpy()) - actor(uniform(4)).detach().numpy()).max() < 1e-5
    assert policy.origin["algorithm"] == "CleanRL ppo_continuous_action" and any("NormalizeObservation" in note for note in notes)


@pytest.mark.parametrize(("actor", "script"), [(PPO(), "ppo"), (DQN(), "dqn")])
def test_cleanrl_discrete(actor: nn.Module, script: str, tmp_path: Path) -> None:
    policy, notes = imported(tmp_path, actor.state_dict(), contract(4, 1, "discrete", ((-1.0,), (0.0,), (1.0,))))
    assert (policy.choose(uniform(4).numpy()) == actor(uniform(4)).argmax(-1).numpy()).all()
    assert policy.origin["algorithm"] == f"CleanRL {script}" and f"as {script}.py has them" in notes[0]


@pytest.mark.parametrize("last", ["fc_mean", "fc_mu"])
def test_cleanrl_squashed_and_the_actor_first_in_a_tuple(last: str, tmp_path: Path) -> None:
    actor = Squashed(last)
    state = actor.state_dict() if last == "fc_mean" else (actor.state_dict(), nn.Linear(2, 2).state_dict())
    policy, _ = imported(tmp_path, state, contract(4, 2, "tanh"))
    assert np.abs(policy.act(uniform(4).numpy()) - actor(uniform(4)).detach().numpy()).max() < 1e-5


LAYOUT = """
head = "tanh"
[action]
scale = [2.0, 0.5]
offset = [0.5, -1.0]
[normalizer]
mean = "rms.mean"
var = "rms.var"
clip = 5.0
[[layers]]
weight = "body.0.weight"
bias = "body.0.bias"
activation = "elu"
[[layers]]
weight = "body.2.weight"
bias = "body.2.bias"
activation = "tanh"
"""


def test_a_layout_with_a_normaliser_in_the_file(tmp_path: Path) -> None:
    body = nn.Sequential(nn.Linear(4, 8), nn.ELU(), nn.Linear(8, 2), nn.Tanh())
    mean, var = torch.tensor([0.1, 0.2, -0.3, 1.0], dtype=torch.float64), torch.tensor([1.0, 4.0, 0.25, 9.0], dtype=torch.float64)
    state = {f"body.{k}": v for k, v in body.state_dict().items()} | {"rms.mean": mean, "rms.var": var}
    policy, _ = imported(tmp_path, {"epoch": 7, "model": state}, contract(4, 2, "tanh"), LAYOUT)
    z = torch.clamp((uniform(4) - mean) / torch.sqrt(var + 1e-8), -5, 5).float()
    wanted = body(z).detach().numpy() * [2.0, 0.5] + [0.5, -1.0]
    assert np.abs(policy.act(uniform(4).numpy()) - wanted).max() < 1e-5


def test_a_layout_of_a_convolution_and_a_cell(tmp_path: Path) -> None:
    conv, cell, head = nn.Conv1d(2, 3, 3, stride=2, padding=1), nn.GRU(9, 5), nn.Linear(5, 5)
    state = {f"{n}.{k}": v for n, m in (("conv", conv), ("cell", cell), ("head", head)) for k, v in m.state_dict().items()}
    layout = """
    head = "multi_discrete"
    choices = [2, 3]
    [[layers]]
    kind = "conv"
    weight = "conv.weight"
    bias = "conv.bias"
    activation = "relu"
    shape = [2, 1, 6]
    stride = [1, 2]
    padding = [0, 1, 0, 1]
    [[layers]]
    kind = "gru"
    weight_ih = "cell.weight_ih_l0"
    weight_hh = "cell.weight_hh_l0"
    bias_ih = "cell.bias_ih_l0"
    bias_hh = "cell.bias_hh_l0"
    [[layers]]
    weight = "head.weight"
    bias = "head.bias"
    """
    policy, _ = imported(tmp_path, state, contract(12, 2, "multi_discrete", ((0.0, 1.0), (0.0, 1.0, 2.0))), layout)
    h, memory = torch.zeros(1, 1, 5), np.zeros(5)
    for x in uniform(12):
        y, h = cell(torch.relu(conv(x.reshape(1, 2, 6))).reshape(1, 1, 9), h)
        logits = head(y).detach().numpy()[0, 0]
        got, memory = policy.act_step(x.numpy(), memory)
        assert got.tolist() == [logits[:2].argmax(), logits[2:].argmax()]


def test_every_form_of_file_gives_the_same_tensors() -> None:
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = {
        "whole": base,
        "part": base[1:3, ::2].T,
        "half": base.half(),
        "brain": base.bfloat16(),
        "whole_numbers": torch.tensor([1, 2]),
        "one": base[0, 0],
    }
    for data in (
        torch_file(state),
        torch_file({"a": 1, "state_dict": state}),
        safetensors.torch.save({k: v.clone().contiguous() for k, v in state.items()}),
    ):
        found = read_tensors(data, "x")
        assert set(found) == set(state)
        assert all(np.array_equal(found[k], v.double().numpy()) and found[k].dtype == np.float64 for k, v in state.items())
    parameter = read_tensors(torch_file({"p": nn.Parameter(torch.ones(2))}), "x")
    assert parameter["p"].tolist() == [1, 1]


def test_unknown_names_give_a_template_that_can_be_completed(tmp_path: Path) -> None:
    actor, cell = nn.Linear(3, 6), nn.LSTM(6, 4)
    state = {"enc.weight": actor.weight, "enc.bias": actor.bias, "log_std": torch.zeros(2)} | {f"mem.{k}": v for k, v in cell.state_dict().items()}
    state |= {"out.weight": torch.ones(2, 4), "out.bias": torch.zeros(2)}
    with pytest.raises(InvalidInput, match=r"holds 9 tensors and does not say what they do: a template is in .*layout.toml.*--layout"):
        imported(tmp_path, state, contract(3, 2, "clip"))
    text = (tmp_path / "layout.toml").read_text()
    assert 'kind = "lstm"   # 16 × 6' in text and '"log_std"' in text
    with pytest.raises(PufferEdgeError, match="layers\\[0\\]: activation is \\?"):
        imported(tmp_path, state, contract(3, 2, "clip"), text)
    with pytest.raises(InvalidInput, match="there is a layout at"):
        imported(tmp_path, state, contract(3, 2, "clip"))
    done = (
        text.replace('head = "?"', 'head = "clip"')
        .replace('activation = "?"', 'activation = "tanh"', 1)
        .replace('activation = "?"', 'activation = "none"')
    )
    policy, _ = imported(tmp_path, state, contract(3, 2, "clip"), done)
    assert policy.memory == 8


@pytest.mark.parametrize(
    ("layout", "match"),
    [
        ("", r"needs \[\[layers\]\]"),
        ("layers = 3", r"needs \[\[layers\]\]"),
        ("surprise = 1", "unknown field surprise"),
        ('[[layers]]\nweight = "absent"', r"layers\[0\]: .* holds no tensor 'absent'"),
        ('[[layers]]\nweight = "w"\nactivation = "mish"', r"layers\[0\]: activation is mish: one of"),
        ('[[layers]]\nkind = "attention"', r"kind is 'attention', one of dense, conv"),
        ("[[layers]]\nweight = 3", "must be the name of a tensor"),
        ('[[layers]]\nweight = "w"\nextra = 1', "unknown field extra"),
        ('head = "soft"\n[[layers]]\nweight = "w"', "head is 'soft'"),
        ('head = "multi_discrete"\nchoices = [1]\n[[layers]]\nweight = "w"', "must add up to the 2 outputs, not 1"),
        ('[[layers]]\nkind = "conv"\nweight = "w4"\nshape = [2, 3]', r"shape must be \[channels, height, width\]"),
        ('[[layers]]\nkind = "conv"\nweight = "w4"\nshape = [5, 3, 3]', "convolution over"),
        ('normalizer = 1\n[[layers]]\nweight = "w"', "normalizer must be a table"),
        ('[normalizer]\nmean = "w"\nvar = "w"\nclip = -1\n[[layers]]\nweight = "w"', "clip must be a positive number"),
        ("[[layers]", "is not TOML: .*line 1"),
    ],
)
def test_layouts_that_do_not_fit(layout: str, match: str, tmp_path: Path) -> None:
    state = {"w": torch.ones(2, 3), "w4": torch.ones(2, 1, 2, 2)}
    with pytest.raises(PufferEdgeError, match=match):
        imported(tmp_path, state, contract(3, 2, "clip"), layout)


def test_what_is_not_one_actor(tmp_path: Path) -> None:
    two = {"actor": nn.Linear(2, 1).state_dict(), "critic": nn.Linear(2, 1).state_dict()}
    with pytest.raises(Unsupported, match="several state dicts"):
        imported(tmp_path, two, contract(2, 1, "clip"))
    with pytest.raises(InvalidInput, match="holds no tensor by name"):
        imported(tmp_path, {"a": 1}, contract(2, 1, "clip"))
    atoms = {**{f"network.{k}": v for k, v in sequence(2, 4, 6).state_dict().items()}, "atoms": torch.linspace(-1, 1, 3)}
    with pytest.raises(InvalidInput, match="does not say what they do"):
        imported(tmp_path, atoms, contract(2, 1, "clip"))  # C51: an expectation over a softmax is no last layer
    stream = io.BytesIO()
    torch.save({"a": torch.zeros(2, dtype=torch.complex64)}, stream)
    with pytest.raises(InvalidInput, match="ComplexFloatStorage"):
        read_tensors(stream.getvalue(), "x")
