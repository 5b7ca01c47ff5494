"""Training in integers: the forward pass is the reference to the bit, the gradient is the straight-through one, and a run keeps its program."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from puffer_edge.cli import main
from puffer_edge.commands.sources import task_of
from puffer_edge.contract import Contract
from puffer_edge.envs import closed_loop, load
from puffer_edge.envs.imperfections import Imperfections
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.integer.ops.dense import Dense
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.scales import PROFILES
from puffer_edge.policy import Head, Normalizer, Policy
from puffer_edge.spaces import Ints
from puffer_edge.train import PPOSettings, Run, checkpoint, preset, resume, settings_for, train
from puffer_edge.train.algorithms.ppo import PPO, Weights, loss
from puffer_edge.train.distributions import Categorical, Choices, Gaussian
from puffer_edge.train.integers import ROWS, Integers
from puffer_edge.train.nets.actor_critic import ActorCritic
from puffer_edge.train.recording import Recorder
from puffer_edge.train.run import learner_of
from tests.samples import HEADS, image_contract
from tests.train.test_resume import SMALL, assert_same_end

QAT = replace(SMALL, engine="torch", qat="int4", qat_from=0.0)


def actor(contract: Contract, activation: str, profile: str, hidden: tuple[int, ...] = (12, 12), seed: int = 0) -> tuple[ActorCritic, Policy]:
    """An actor with weights of some size that acts in integers, and its policy."""
    rng = np.random.default_rng(seed)
    net = ActorCritic(contract, hidden, activation, 0.0, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for p in net.actor.parameters():
            p += torch.from_numpy(rng.normal(0, 0.3, tuple(p.shape)).astype(np.float32))
    scale, offset = (np.array([f(c.high, c.low) for c in contract.actions]) for f in (lambda h, low: (h - low) / 2, lambda h, low: (h + low) / 2))
    normalizer = Normalizer(rng.normal(0, 0.3, contract.n_observations), rng.uniform(0.5, 2, contract.n_observations))

    def policy() -> Policy:
        return Policy(contract, net.layers(), normalizer, Head(contract.head, scale, offset))

    seen = rng.normal(normalizer.mean, normalizer.std, (3 * ROWS, contract.n_observations))
    net.integers = Integers(policy, profile, seen, np.arange(len(seen)) % 50 == 0)
    return net, policy()


def observations(contract: Contract, n: int, seed: int) -> Ints:
    """Fixed point, of all that is legal and of where policies mostly are."""
    rng = np.random.default_rng(seed)
    far = rng.integers(contract.observation_low, contract.observation_high, (n // 2, contract.n_observations), endpoint=True)
    near = contract.observe(rng.normal(0, 1.5, (n - n // 2, contract.n_observations)))[0]
    return np.concatenate([far, near]).astype(np.int32)


def outputs_of(net: ActorCritic, x: Ints) -> torch.Tensor:
    """(B, n_outputs) what the distribution is made of."""
    found = net(torch.from_numpy(x))[0]
    assert isinstance(found, (Categorical, Choices, Gaussian))
    return found.mean if isinstance(found, Gaussian) else found.logits


def assert_is_the_reference(net: ActorCritic, policy: Policy, profile: str, vectors: int) -> None:
    """Outputs, and the actions that follow, are those of the program that anybody makes of the policy."""
    assert net.integers is not None
    program = quantize(policy, net.integers.observations, net.integers.starts, profile)
    last = next(op for op in reversed(program.ops) if isinstance(op, Dense))
    at = program.ops.index(last) + 1
    assert last.scales is not None
    with torch.inference_mode():
        for part in range(-(-vectors // 100_000)):
            x = observations(policy.contract, min(vectors, 100_000), part)
            codes = x
            for op in program.ops[:at]:
                codes = op.run(codes)
            found = outputs_of(net, x)
            assert found.dtype == torch.float32
            np.testing.assert_array_equal(found.numpy(), (codes * last.scales.output).astype(np.float32))
            rest = np.rint(found.numpy() / last.scales.output).astype(np.int16)
            for op in program.ops[at:]:
                rest = op.run(rest)
            np.testing.assert_array_equal(rest, program.run(x))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("profile", PROFILES)
def test_the_forward_pass_is_the_reference_to_the_bit(profile: str, activation: str, head: str) -> None:
    net, policy = actor(image_contract(head), activation, profile)
    assert_is_the_reference(net, policy, profile, 4_000)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["discrete", "clip"])
@pytest.mark.parametrize("profile", PROFILES)
def test_the_forward_pass_is_the_reference_for_a_million_observations(profile: str, head: str) -> None:
    contract = load("cartpole" if head == "discrete" else "servo").contract
    net, policy = actor(contract, "tanh" if head == "clip" else "relu", profile, (8,), seed=1)
    assert_is_the_reference(net, policy, profile, 1_000_000)


def test_the_program_follows_weights_and_normaliser() -> None:
    net, policy = actor(image_contract("clip"), "relu", "int8")
    assert net.integers is not None
    first = net.integers.program(net.flat)
    assert net.integers.program(net.flat) is first and len(net.integers.observations) == ROWS
    with torch.no_grad():
        net.actor[0].weight[0, 0] += 0.5
    assert net.integers.program(net.flat).digest != first.digest
    net.integers.forget()
    again = net.integers.program(net.flat)
    assert again is not first and again.digest == net.integers.of(replace(policy, layers=net.layers())).digest


@pytest.mark.parametrize("head", ["discrete", "clip"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("profile", PROFILES)
def test_the_gradient_is_the_straight_through_one(profile: str, activation: str, head: str) -> None:
    """Against autograd in float64, where rounding is an added constant and a value at an end of its range is cut off."""
    net, policy = actor(image_contract(head), activation, profile)
    assert net.integers is not None
    x, program = observations(policy.contract, 200, 3), net.integers.program(net.flat)
    outputs = outputs_of(net, x)
    towards = torch.from_numpy(np.random.default_rng(5).normal(size=tuple(outputs.shape)).astype(np.float32))
    (outputs * towards).sum().backward()

    codes, ops = program.ops[0].run(x), list(program.ops[1:])
    step = program.ops[0]
    centre = policy.contract.physical_observation(step.mean)  # type: ignore[attr-defined]
    unit = policy.contract.physical_observation(x) - centre  # the step of each input, from a value that is far from its ends
    clear = np.abs(codes) < np.iinfo(codes.dtype).max // 2
    size = (unit * codes * clear).sum(0) / (codes.astype(float) ** 2 * clear).sum(0)  # least squares
    h = torch.from_numpy((centre + codes * size - policy.normalizer.mean) / policy.normalizer.std)
    linear = [module for module in net.actor if isinstance(module, torch.nn.Linear)]
    parameters = [p.detach().double().requires_grad_() for module in linear for p in (module.weight, module.bias)]
    for weight, bias in zip(parameters[::2], parameters[1::2]):
        dense = ops.pop(0)
        assert isinstance(dense, Dense) and dense.scales is not None
        codes = dense.run(codes)
        whole = torch.from_numpy(dense.weight * dense.scales.weight[:, None])
        w = weight + (whole - weight).detach() if h.requires_grad else weight  # the first layer's whole weights have the input's ranges in them
        y = h @ w.T + bias
        low, high = ((bound - dense.zero) * dense.scales.output for bound in (dense.low, dense.high))
        exact = torch.from_numpy((codes.astype(float) - dense.zero) * dense.scales.output)
        y = torch.where((exact > low) & (exact < high), y, y.detach())
        y = y + (exact - y).detach()
        if activation == "tanh" and ops and type(ops[0]).__name__ in ("Lookup", "Tanh16"):
            codes = ops.pop(0).run(codes)
            value = torch.from_numpy(codes * (2.0**-15 if profile == "int16x8" else 2.0**-7))
            h = value + (y - y.detach()) * (1 - value**2)
        else:
            h = y
    (h * towards.double()).sum().backward()
    for mine, theirs in zip([p for module in linear for p in (module.weight, module.bias)], parameters):
        assert mine.grad is not None and theirs.grad is not None and float(theirs.grad.norm()) > 0
        error = float((mine.grad.double() - theirs.grad).norm() / theirs.grad.norm())
        assert error < (5e-3 if mine is linear[0].weight else 1e-4)  # that of the first depends on the steps fitted above


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_gradient_is_near_the_finite_difference_of_the_float_network(activation: str) -> None:
    """With activations of 16 bits and no value at an end the network in between its roundings is the float one."""
    net, policy = actor(image_contract("clip"), activation, "int16x8", (8,), seed=2)
    assert net.integers is not None
    with torch.no_grad():
        net.actor[-1].weight *= 0.1  # within the action's range
    x = policy.contract.observe(net.integers.observations[:300])[0]
    outputs_of(net, x).square().sum().backward()
    physical = policy.contract.physical_observation(x)

    def cost() -> float:
        return float((replace(policy, layers=net.layers()).outputs(physical) ** 2).sum())

    rng = np.random.default_rng(0)
    for p in net.actor.parameters():
        assert p.grad is not None
        direction = torch.from_numpy(rng.normal(size=tuple(p.shape)).astype(np.float32)) + p.grad / p.grad.norm() * 10
        expected = float((p.grad * direction).sum())
        with torch.no_grad():
            p += 1e-3 * direction
            above = cost()
            p -= 2e-3 * direction
            below = cost()
            p += 1e-3 * direction
        assert (above - below) / 2e-3 == pytest.approx(expected, rel=0.05)


def test_a_training_acts_and_learns_in_integers() -> None:
    learner = PPO("cartpole", QAT, seed=3)
    assert learner.engine == learner.kernels == "torch"
    learner.go_on_in_integers()
    assert learner.integers is not None and learner.calibration is not None
    rollout = learner._collect_in_torch()
    batch, _ = learner._batch(rollout)
    program = learner.integers.program(learner.net.flat)
    with torch.no_grad():
        _, statistics = loss(learner.net, batch, learner.settings, Weights())
        logits = learner.net(batch.inputs)[0].logits
    assert float(statistics[3]) == 0.0  # the KL between what acted and what learns, before the first step
    seen = rollout.observation.reshape(-1, 4)
    last, codes = program.ops[-2], program.head_input(learner.environment.contract.observe(seen)[0])
    assert isinstance(last, Dense) and last.scales is not None
    np.testing.assert_array_equal(logits.numpy(), (codes * last.scales.output).astype(np.float32))
    acts, _ = learner.predict(seen)
    np.testing.assert_array_equal(acts, learner.environment.contract.physical_action(program.run(learner.environment.contract.observe(seen)[0])))
    allowed = np.zeros((len(seen), 2), bool)
    allowed[:, 1] = True
    np.testing.assert_array_equal(learner.predict(seen, allowed=allowed)[0], np.full((len(seen), 1), learner.environment.contract.levels[1][0]))
    learner.learn(64)
    assert learner.integers.program(learner.net.flat).digest != program.digest


@pytest.mark.parametrize("name", ["cartpole", "servo"])
def test_a_run_gives_the_program_that_was_trained_by_the_ordinary_way(name: str, tmp_path: Path) -> None:
    run = train(name, seed=1, out=tmp_path / "run", settings=replace(QAT, scale_reward=True, qat_from=0.5))
    task = task_of(run.path)
    program = quantize(task.policy, task.observations, task.starts, task.profile)
    assert task.policy.origin["integers"] == {"profile": "int4", "digest": program.digest.hex()} and run.result["integers"] == "int4"
    about = run.result["evaluation"]
    played = closed_loop.play(task.environment, program, task.shield, about["episodes"], about["seed"]).returns
    assert about["return"] == float(played.mean())


@pytest.mark.parametrize("stops", [(128,), (64, 320)])
def test_going_on_gives_the_bits_of_never_stopping(stops: tuple[int, ...], tmp_path: Path) -> None:
    """Before the integers, at their beginning and in them."""
    settings = replace(QAT, qat_from=0.25)
    whole = train("cartpole", seed=5, out=tmp_path / "whole", settings=settings)
    run = train("cartpole", seed=5, out=tmp_path / "parts", settings=settings, progress=lambda p: p.steps < stops[0])
    for stop in (*stops[1:], settings.steps + 1):
        run = resume(tmp_path / "parts", progress=lambda p, at=stop: p.steps < at)
    assert [one["exact"] for one in run.result["resumed"]] == [True] * len(stops)
    assert_same_end(run, whole)
    assert (run.path / "observations.npz").read_bytes() == (whole.path / "observations.npz").read_bytes()


@pytest.mark.parametrize("qat", ["none", "shift"])
def test_a_fine_tuning_begins_with_the_policy_kept(qat: str, tmp_path: Path) -> None:
    source = train("cartpole", seed=1, out=tmp_path / "run", settings=replace(SMALL, scale_reward=True))
    begun = {}
    settings = replace(source.chosen, qat=qat, steps=128)
    assert isinstance(settings, PPOSettings)
    learner = PPO("cartpole", settings, seed=9)
    checkpoint.take_over(learner, source.path / "checkpoints" / f"step-{source.result['kept_step']:012}.safetensors")
    for mine, theirs in zip(learner.policy().layers, source.policy.layers):
        np.testing.assert_array_equal(mine.weight, theirs.weight)  # type: ignore[union-attr]
    np.testing.assert_array_equal(learner.policy().normalizer.std, source.policy.normalizer.std)
    assert learner.steps == 0 and learner.reward_scale is not None and learner.reward_scale.moments.count > 0
    assert ("integers" in learner.policy().origin) == (qat != "none")
    run = train("cartpole", seed=9, out=tmp_path / "fine", settings=settings, fine_tune=source.path, progress=lambda p: begun.update(p.metrics))
    assert run.policy.origin["fine_tuned"] == {"run": "run", "step": source.result["kept_step"]} and begun["steps"] == 128
    assert Run.load(source.path).result == source.result
    with pytest.raises(InvalidInput, match=r"hidden \[8\]"):
        train("cartpole", out=tmp_path / "other", settings=replace(settings, hidden=(4,)), fine_tune=source.path)
    with pytest.raises(InvalidInput, match="keeps the algorithm and the contract"):
        train("servo", out=tmp_path / "other", settings=settings, fine_tune=source.path)
    more = resume(run.path, steps=256)
    assert more.policy.origin["fine_tuned"] == run.policy.origin["fine_tuned"]


def test_the_command_line_fine_tunes_in_integers_and_takes_their_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, fine = train("cartpole", seed=1, out=tmp_path / "run", settings=SMALL).path, tmp_path / "fine"

    def said(*words: object) -> tuple[str, str]:
        capsys.readouterr()
        main([*map(str, words)])
        found = capsys.readouterr()
        return found.out, " ".join(found.err.split())

    (tmp_path / "mine.toml").write_text("[ppo]\nepochs = 2\nsteps = 64\n")
    done = json.loads(
        said("train", "--fine-tune", source, "--settings", tmp_path / "mine.toml", "--qat", "int4", "--steps", 128, "--out", fine, "--json")[0]
    )
    kept = Run.load(fine).settings["settings"]
    assert (done["environment"], done["integers"], done["steps"]) == ("cartpole", "int4", 128)
    assert (kept["hidden"], kept["epochs"], kept["qat"], kept["horizon"]) == ([8], 2, "int4", 16)
    out, err = said("eval", fine, "--episodes", 3, "--json")
    assert json.loads(out)["profile"] == "int4" and "integer" in json.loads(out) and "not the program" not in err
    out, err = said("eval", fine, "--episodes", 3, "--profile", "int8", "--json")
    assert json.loads(out)["profile"] == "int8" and "not the program that was trained: cartpole was trained in int4" in err
    for words, message in (
        (["export", fine, "--target", "rp2040", "--out", tmp_path / "b", "--min-return-kept", 0.9], "leave out --min-return-kept"),
        (["train", "--fine-tune", source, "--resume", fine], "give one of them"),
        (["train", "--fine-tune", source, "--seeds", 2], "leave out --seeds"),
    ):
        with pytest.raises(SystemExit) as caught:
            main([*map(str, words)])
        assert caught.value.code == 2 and message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("algorithm", "qat"), [("ppo-lagrangian", "int8"), ("cpo", "none")])
def test_algorithms_with_a_limit_on_costs_are_fine_tuned(algorithm: str, qat: str, tmp_path: Path) -> None:
    """The critic of costs is shown observations in float, and is taken over with the others."""
    small = {"rows": 4, "horizon": 16, "hidden": [8], "steps": 128, "evaluations": 2, "evaluation_episodes": 3, "cost_limit": 5.0}
    settings = settings_for("cartpole", None, algorithm, changes=small)
    source = train("cartpole", algorithm, seed=1, out=tmp_path / "run", settings=settings)
    fine = settings_for("cartpole", None, algorithm, changes=small | ({"qat": qat} if qat != "none" else {}))
    run = train("cartpole", algorithm, seed=1, out=tmp_path / "fine", settings=fine, fine_tune=source.path)
    assert run.result.get("integers", "none") == qat and run.metrics()[-1]["steps"] == 128
    kept = f"step-{source.result['kept_step']:012}.safetensors"
    learner = learner_of(algorithm)("cartpole", fine, seed=3)
    checkpoint.take_over(learner, source.path / "checkpoints" / kept)
    theirs = checkpoint.read(source.path / "checkpoints" / kept)[1]
    np.testing.assert_array_equal(learner.own_arrays()["cost_critic.flat"], theirs["cost_critic.flat"])


def test_a_fine_tuning_keeps_the_plant(tmp_path: Path) -> None:
    plant = Imperfections(hold_steps=2)
    source = train("cartpole", seed=1, out=tmp_path / "run", settings=SMALL, plant=plant)
    run = train("cartpole", seed=1, out=tmp_path / "fine", settings=replace(SMALL, steps=128), fine_tune=source.path)
    assert run.settings["plant"] == source.settings["plant"] and run.policy.contract.digest == source.policy.contract.digest


def test_what_cannot_be_trained_in_integers_is_refused() -> None:
    for wrong in ({"engine": "native"}, {"kernels": "native"}, {"amp": True}, {"exploration": "state"}):
        with pytest.raises(InvalidInput, match="quantisation-aware training"):
            replace(QAT, **wrong)
    for of_others in ({"memory": "gru"}, {"image": (1, 2, 2), "filters": (4,)}):
        with pytest.raises(InvalidInput, match="of dense actors"):
            replace(QAT, **of_others)
    with pytest.raises(InvalidInput, match="qat must be one of none, int8"):
        replace(QAT, qat="int3")
    with pytest.raises(Unsupported, match="a network of your own"):
        PPO("cartpole", QAT, network=lambda contract, s: ActorCritic(contract, s.hidden, "relu", 0.0, torch.Generator()))


@pytest.mark.slow
def test_training_in_integers_gives_back_what_int4_lost(tmp_path: Path) -> None:
    """The policy is made such that int4 fails: the scales of units in one layer are so far apart, which float weights do not mind."""
    settings = replace(preset("cartpole"), hidden=(16, 16), evaluations=5, evaluation_episodes=20)
    source = train("cartpole", seed=0, out=tmp_path / "float", settings=settings)
    kept = source.path / "checkpoints" / f"step-{source.result['kept_step']:012}.safetensors"
    task, fine = task_of(source.path), replace(settings, qat="int4", steps=20_000)
    manifest, sound = checkpoint.read(kept)
    for reach in np.arange(0.8, 1.3, 0.1):
        arrays, factor = dict(sound), np.logspace(-reach, reach, 16).astype(np.float32)
        for layer, following in ((0, 2), (2, 4)):
            arrays[f"net.actor.{layer}.weight"] = arrays[f"net.actor.{layer}.weight"] * factor[:, None]
            arrays[f"net.actor.{layer}.bias"] = arrays[f"net.actor.{layer}.bias"] * factor
            arrays[f"net.actor.{following}.weight"] = arrays[f"net.actor.{following}.weight"] / factor
        checkpoint.write(kept, arrays, manifest)
        learner = PPO("cartpole", fine, seed=0)
        checkpoint.take_over(learner, kept)
        policy = learner.policy()
        afterwards = task.returns(learner.proposer(policy), 50, 1).returns.mean()
        if afterwards < 100:
            break
    run = Recorder.begin(tmp_path / "qat", learner).run()
    trained = task.returns(learner.proposer(run.policy), 50, 1).returns.mean()
    assert closed_loop.float_returns(task.environment, policy, task.shield, 50, 1).mean() > 475
    assert afterwards < 100 and trained > 400, (afterwards, trained)
