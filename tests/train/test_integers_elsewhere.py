"""Training in integers beyond PPO: SAC, for numbers and for choices, and the trust regions; and what is said where it is absent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from puffer_edge.commands.sources import task_of
from puffer_edge.envs import closed_loop
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.integer.ops.dense import Dense
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.scales import PROFILES
from puffer_edge.policy import Policy
from puffer_edge.train import SACSettings, checkpoint, preset, resume, settings_for, train
from puffer_edge.train.algorithms.ppo import PPO
from puffer_edge.train.algorithms.sac import SAC, losses, normal
from puffer_edge.train.distributions import Categorical, Gaussian
from puffer_edge.train.nets.actor_critic import ActorCritic
from puffer_edge.train.nets.soft_actor_critic import SoftActorCritic
from puffer_edge.train.run import learner_of
from puffer_edge.train.settings import Settings
from tests.train.test_integers import observations
from tests.train.test_resume import assert_same_end

SMALL = SACSettings(steps=192, rows=2, horizon=16, warmup=20, minibatch=16, replay=100, hidden=(8,), evaluations=3, evaluation_episodes=2)
OFF = {name: getattr(SMALL, name) for name in ("steps", "rows", "horizon", "warmup", "minibatch", "replay", "evaluations", "evaluation_episodes")}
ON = {"rows": 4, "horizon": 16, "steps": 192, "evaluations": 2, "evaluation_episodes": 3}
WHAT = {"sac": "pendulum", "discrete-sac": "cartpole", "trpo": "servo", "trpo-lagrangian": "cartpole", "cpo": "cartpole"}


def small(algorithm: str, **changes: Any) -> Settings:
    about = OFF if "sac" in algorithm else ON | ({"cost_limit": 5.0} if algorithm in ("cpo", "trpo-lagrangian") else {})
    return settings_for(WHAT[algorithm], None, algorithm, about | {"hidden": [8, 8], "engine": "auto"} | changes)


@pytest.mark.parametrize("algorithm", WHAT)
@pytest.mark.parametrize("profile", PROFILES)
def test_the_forward_pass_is_the_reference_to_the_bit(algorithm: str, profile: str) -> None:
    """After some updates, and of the program that anybody makes of the policy."""
    learner: Any = learner_of(algorithm)(WHAT[algorithm], small(algorithm, qat=profile, qat_from=0.0), seed=1)
    learner.learn(128)
    assert learner.engine == "torch" and isinstance(learner.net, (SoftActorCritic, ActorCritic))
    policy, x = learner.policy(), observations(learner.environment.contract, 4_000, 2)
    program = quantize(policy, *learner.calibration, profile)
    assert policy.origin["integers"] == {"profile": profile, "digest": program.digest.hex()}
    last = next(op for op in reversed(program.ops) if isinstance(op, Dense))
    assert last.scales is not None
    codes: Any = x
    for op in program.ops[: program.ops.index(last) + 1]:
        codes = op.run(codes)
    with torch.inference_mode():
        seen = torch.from_numpy(x)
        found = learner.net.choices(seen) if algorithm == "discrete-sac" else learner.net.distribution(seen)
        assert isinstance(found, (Gaussian, Categorical))
        outputs = found.mean if isinstance(found, Gaussian) else found.logits
        np.testing.assert_array_equal(outputs.numpy(), (codes * last.scales.output).astype(np.float32))
    physical = learner.environment.contract.physical_observation(x)
    np.testing.assert_array_equal(learner.predict(physical)[0], learner.environment.contract.physical_action(program.run(x)))


def test_the_gradient_goes_to_the_whole_actor_and_the_critics_stay_in_float() -> None:
    learner = SAC("pendulum", replace(SMALL, qat="int4", qat_from=0.0), seed=2)
    learner.learn(96)
    sample = learner.replay.sample(32, 0, 0, 1, 0.99)
    now, following = (learner.inputs(x) for x in (sample.observation, sample.following))
    assert now.dtype == torch.int32
    contract = learner.environment.contract
    np.testing.assert_array_equal(contract.physical_observation(now.numpy()), sample.observation)  # the replay's float32 lose nothing of it
    from puffer_edge.train.algorithms.sac import Batch

    rest = (torch.from_numpy(np.asarray(x, np.float32)) for x in (sample.action, sample.reward, sample.weight))
    batch = Batch(learner.whitened(sample.observation), *rest, learner.whitened(sample.following), (now, following))
    noise = normal(np.random.default_rng(0), (32, 1))
    critic, actor, *_ = losses(learner.net, batch, noise, noise, -1.0)
    gradients = torch.autograd.grad(actor, list(learner.net.actor.parameters()), retain_graph=True)
    assert all(bool((g != 0).any()) for g in gradients) and bool((gradients[-2] != 0).any(1).all())  # the rows of mean and deviation
    torch.testing.assert_close(learner.net.critic(batch.inputs, batch.action), learner.net.critic(learner.whitened(sample.observation), batch.action))
    assert bool(torch.isfinite(critic))


@pytest.mark.parametrize("algorithm", ["sac", "trpo"])
def test_going_on_gives_the_bits_of_never_stopping(algorithm: str, tmp_path: Path) -> None:
    """Before the integers, and in them."""
    settings = small(algorithm, engine="torch", qat="int4", qat_from=0.4)
    whole = train(WHAT[algorithm], algorithm, seed=5, out=tmp_path / "whole", settings=settings)
    run = train(WHAT[algorithm], algorithm, seed=5, out=tmp_path / "parts", settings=settings, progress=lambda p: p.steps < 64)
    for stop in (128, 999):
        run = resume(run.path, progress=lambda p, at=stop: p.steps < at)
    assert [one["exact"] for one in run.result["resumed"]] == [True, True] and whole.result["integers"] == "int4"
    assert_same_end(run, whole)


@pytest.mark.parametrize("engine", ["native", "torch"])
@pytest.mark.parametrize("qat", ["none", "int4"])
def test_a_fine_tuning_takes_over_actor_critics_targets_and_temperature(engine: str, qat: str, tmp_path: Path) -> None:
    source = train("pendulum", "sac", seed=1, out=tmp_path / "run", settings=replace(SMALL, engine=engine, normalize_observation=True))
    kept = source.path / "checkpoints" / f"step-{source.result['kept_step']:012}.safetensors"
    theirs = checkpoint.read(kept)[1]
    settings = replace(source.chosen, engine="auto", qat=qat, steps=96)
    assert isinstance(settings, SACSettings)
    learner = SAC("pendulum", settings, seed=9)
    learner.fine_tuned = {"run": "run", "step": 1}
    checkpoint.take_over(learner, kept)
    for name, value in learner.net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), theirs[f"net.{name}"], err_msg=name)
    np.testing.assert_array_equal(learner.policy().normalizer.mean, source.policy.normalizer.mean)
    assert learner.steps == 0 and ("integers" in learner.policy().origin) == (qat != "none")
    run = train("pendulum", "sac", seed=9, out=tmp_path / "fine", settings=settings, fine_tune=source.path)
    assert run.policy.origin["fine_tuned"] == {"run": "run", "step": source.result["kept_step"]} and run.result.get("integers", "none") == qat
    if qat != "none":
        assert len(learner.replay) == 0  # it begins anew, and is filled by the policy
        observed = learner.environment.contract.physical_observation(learner.plant.last)  # type: ignore[union-attr]
        with torch.inference_mode():
            about = learner._distribution(observed, None)
        assert isinstance(about, Gaussian)
        drawn = np.stack([np.arctanh(np.clip(learner._propose(observed), -1 + 1e-7, 1 - 1e-7)) for _ in range(400)])
        np.testing.assert_allclose(drawn.mean(0), about.mean.numpy(), atol=0.2 * float(about.std.max()))
    task = task_of(run.path)
    if qat != "none":
        assert quantize(task.policy, task.observations, task.starts, task.profile).digest.hex() == run.policy.origin["integers"]["digest"]


def test_what_is_absent_says_the_way_out(tmp_path: Path) -> None:
    for wrong in ({"engine": "native"}, {"exploration": "state"}):
        with pytest.raises(InvalidInput, match="quantisation-aware training"):
            replace(SMALL, qat="int4", **wrong)
    for algorithm in ("sac", "trpo", "cpo"):
        with pytest.raises(InvalidInput, match="of dense actors: leave out memory"):
            small(algorithm, qat="int4", memory="gru")
    source = train("pendulum", "sac", seed=1, out=tmp_path / "run", settings=SMALL)
    with pytest.raises(InvalidInput, match=r"is of sac, and this is ppo.*Train it on with sac.*--qat.*distil"):
        train("pendulum", fine_tune=source.path, out=tmp_path / "x")
    with pytest.raises(InvalidInput, match=r"of sac, and this is ppo"):
        checkpoint.take_over(PPO("pendulum"), source.checkpoints()[-1])
    for other in ({"critic_hidden": (4,)}, {"normalize_observation": True}):
        with pytest.raises(InvalidInput, match="a fine-tuning keeps"):
            train("pendulum", "sac", fine_tune=source.path, out=tmp_path / "x", settings=replace(SMALL, **other))
    with pytest.raises(Unsupported, match="leave out network="):
        learner_of("sac")("pendulum", replace(SMALL, qat="int4"), network=lambda contract, s: torch.nn.Linear(1, 1))
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_training_in_integers_gives_back_what_int4_lost(tmp_path: Path) -> None:
    """The policy is made such that int4 fails: the scales of units in one layer are so far apart, which float weights do not mind."""
    settings = preset("pendulum", "sac")
    assert isinstance(settings, SACSettings)
    settings = replace(settings, hidden=(12, 12), critic_hidden=(64, 64), steps=12_000, evaluations=3, evaluation_episodes=10)
    source = train("pendulum", "sac", seed=0, out=tmp_path / "float", settings=settings)
    kept = source.path / "checkpoints" / f"step-{source.result['kept_step']:012}.safetensors"
    task, fine = task_of(source.path), replace(settings, qat="int4", steps=1_500, warmup=256)
    manifest, sound = checkpoint.read(kept)
    for reach in np.arange(0.2, 1.0, 0.1):
        arrays, factor = dict(sound), np.logspace(-reach, reach, 12).astype(np.float32)
        arrays["net.actor.0.weight"] = sound["net.actor.0.weight"] * factor[:, None]
        arrays["net.actor.0.bias"] = sound["net.actor.0.bias"] * factor
        arrays["net.actor.2.weight"] = sound["net.actor.2.weight"] / factor
        checkpoint.write(kept, arrays, manifest)
        learner = SAC("pendulum", fine, seed=0)
        checkpoint.take_over(learner, kept)
        policy: Policy = learner.policy()
        afterwards = float(task.returns(learner.proposer(policy), 50, 1).returns.mean())
        if afterwards < -400:
            break
    run = train("pendulum", "sac", seed=0, out=tmp_path / "qat", settings=fine, fine_tune=source.path)
    trained = float(task.returns(learner.proposer(run.policy), 50, 1).returns.mean())
    assert closed_loop.float_returns(task.environment, policy, task.shield, 50, 1).mean() > -250
    assert afterwards < -400 and trained > -300, (afterwards, trained)
