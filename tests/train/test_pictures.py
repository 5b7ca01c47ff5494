"""Policies that see a picture: torch's convolutions are the policy's and the program's, alone and before a cell, and they learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from puffer_edge import envs  # noqa: E402
from puffer_edge.commands.sources import calibration  # noqa: E402
from puffer_edge.envs import closed_loop  # noqa: E402
from puffer_edge.errors import InvalidInput, Unsupported  # noqa: E402
from puffer_edge.integer.ops.conv import Conv as ConvOp  # noqa: E402
from puffer_edge.integer.quantize import quantize  # noqa: E402
from puffer_edge.integer.reference import InFloat  # noqa: E402
from puffer_edge.integer.shield import Shield  # noqa: E402
from puffer_edge.policy import Conv  # noqa: E402
from puffer_edge.train import train  # noqa: E402
from puffer_edge.train.algorithms.ppo import PPO  # noqa: E402
from puffer_edge.train.settings import PPOSettings  # noqa: E402
from puffer_edge.train.settings_file import preset  # noqa: E402

SMALL = PPOSettings(steps=256, rows=4, horizon=16, epochs=2, minibatch=32, hidden=(8,), image=(1, 8, 8), filters=(3, 5))


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("image", [(1, 8, 8), (2, 4, 8), (4, 2, 8), (1, 1, 64)])
def test_the_policy_is_the_network(activation: str, image: tuple[int, int, int]) -> None:
    learner = PPO("grid", replace(SMALL, activation=activation, image=image)).learn()
    policy, rng = learner.policy(), np.random.default_rng(0)
    assert next(layer.shape for layer in policy.layers if isinstance(layer, Conv)) == image
    x = rng.uniform(-1, 1, (50, 64))
    with torch.inference_mode():
        logits = learner.net(learner.inputs(x))[0].logits
    np.testing.assert_allclose(policy.outputs(x), logits, atol=1e-5)
    assert learner.kernels == "torch" and "a picture's convolutions are of the torch engine" in learner.engine_note


def test_a_shared_picture_and_one_that_is_remembered(tmp_path: Path) -> None:
    for changes in ({"shared": True}, {"memory": "gru", "memory_size": 4}):
        whole = PPO("grid", replace(SMALL, **changes)).learn()
        half = PPO("grid", replace(SMALL, **changes)).learn(128)
        half.save(tmp_path / "half")
        again = PPO.load(tmp_path / "half").learn(128)
        assert all(torch.equal(p, q) for p, q in zip(whole.net.parameters(), again.net.parameters()))
    assert [type(layer).__name__ for layer in whole.policy().layers] == ["Conv", "Conv", "Layer", "Recurrent", "Layer"]


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(InvalidInput, match="a picture of 1×4×4 has 16 numbers, 64 are observed"):
        PPO("grid", replace(SMALL, image=(1, 4, 4)))
    for wrong in ({"image": (8, 8)}, {"filters": ()}, {"image": ()}, {"filters": (0,)}):
        with pytest.raises(InvalidInput, match="both or neither"):
            replace(SMALL, **wrong)
    for where in ("engine", "kernels"):
        with pytest.raises(Unsupported, match="picture"):
            PPO("grid", replace(SMALL, **{where: "native"}))


@pytest.mark.slow
def test_it_learns_and_the_program_does_as_well(tmp_path: Path) -> None:
    environment = envs.load("grid")
    run = train("grid", out=tmp_path, settings=replace(preset("grid"), steps=64_000, evaluations=4))
    guard = Shield.build(environment.contract, environment.shield)
    program = quantize(run.policy, *calibration(environment, run.policy, guard))
    returns = [closed_loop.play(environment, proposer, guard, 100, 1).returns.mean() for proposer in (InFloat(run.policy), program)]
    assert min(returns) > 0.2 and sum(isinstance(op, ConvOp) for op in program.ops) == 2
