"""Policies with memory: the network is the policy that is deployed, what was sampled is what is learnt from, and memory ends with the episode."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from puffer_edge import envs  # noqa: E402
from puffer_edge.commands.sources import task_of  # noqa: E402
from puffer_edge.device import target  # noqa: E402
from puffer_edge.device.bundle import Bundle  # noqa: E402
from puffer_edge.engines import verify  # noqa: E402
from puffer_edge.envs.plant import Plant  # noqa: E402
from puffer_edge.errors import InvalidInput, Unsupported  # noqa: E402
from puffer_edge.export.bundle import export  # noqa: E402
from puffer_edge.train import resume, train  # noqa: E402
from puffer_edge.train.algorithms.cpo import CPO  # noqa: E402
from puffer_edge.train.algorithms.ppo import PPO, Weights, loss, outputs  # noqa: E402
from puffer_edge.train.algorithms.ppo_lagrangian import PPOLagrangian  # noqa: E402
from puffer_edge.train.algorithms.sac import SAC  # noqa: E402
from puffer_edge.train.constraint import PPOLagrangianSettings  # noqa: E402
from puffer_edge.train.nets.recurrent import Cell, Past, RecurrentActorCritic, unroll  # noqa: E402
from puffer_edge.train.sac_settings import SACSettings  # noqa: E402
from puffer_edge.train.settings import PPOSettings  # noqa: E402
from puffer_edge.train.trust_region_settings import CPOSettings  # noqa: E402
from tests.train.test_resume import assert_same_end  # noqa: E402

SMALL = PPOSettings(steps=512, rows=4, horizon=16, epochs=2, minibatch=16, hidden=(8,), memory="gru", memory_size=6, sequence=8, evaluations=2)
KINDS = ("gru", "lstm")


def short(name: str, steps: int) -> Any:
    """An environment whose clock ends its episodes after so many steps."""
    return replace(envs.load(name), max_steps=steps)


def lived(learner: PPO) -> tuple[Any, list[Any]]:
    """One rollout, and the log-probability of each of its actions when it was sampled."""
    sampled, sample = [], learner._sample

    def watched(policy: Any) -> Any:
        action = sample(policy)
        sampled.append(policy.log_prob(torch.from_numpy(action)).numpy().copy())
        return action

    learner._sample = watched  # type: ignore[method-assign]
    return learner._collect(), sampled


@pytest.mark.parametrize("kind", KINDS)
def test_cells_are_torchs(kind: str) -> None:
    """Two cells side by side, forwards and backwards, against torch.nn's; a gate of 0 after step 2 cuts both ways."""
    generator = torch.Generator().manual_seed(0)
    cells = [Cell(kind, 5, 4, generator).double() for _ in range(2)]
    with torch.no_grad():
        for cell in cells:
            cell.bias_ih.normal_(generator=generator)
            cell.bias_hh.normal_(generator=generator)
    x = torch.randn(3, 7, 5, dtype=torch.float64, generator=generator)
    states = 1 if kind == "gru" else 2
    memory = torch.randn(3, 2 * states * 4, dtype=torch.float64, generator=generator)
    kept = torch.ones(3, 7, dtype=torch.float64)
    kept[:, 2] = 0.0
    ours = unroll(cells, [x, x], memory, kept)  # type: ignore[arg-type]
    ours[:, 0].square().sum().backward()
    for k, cell in enumerate(cells):
        theirs = (torch.nn.GRU if kind == "gru" else torch.nn.LSTM)(5, 4, batch_first=True).double()
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(theirs, f"{name}_l0").data = getattr(cell, name).detach().clone()
        first = memory.view(3, 2, states, 4)[:, k].transpose(0, 1).contiguous()
        whole = torch.cat([theirs(x[:, :3], first if states == 1 else (first[:1], first[1:]))[0], theirs(x[:, 3:])[0]], 1)
        np.testing.assert_allclose(ours[:, 0, k].transpose(0, 1).detach(), whole.detach(), atol=1e-12)
        whole.square().sum().backward()
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            np.testing.assert_allclose(getattr(cell, name).grad, getattr(theirs, f"{name}_l0").grad, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["cartpole_no_velocity", "pendulum", "spaces"])
def test_the_policy_is_the_network_over_whole_episodes(kind: str, name: str) -> None:
    """Rows in episodes that end and begin anew: float64 of the deployed policy against torch, step by step, each with its own memory."""
    environment = short(name, 13)
    learner = PPO(environment, replace(SMALL, memory=kind)).learn(256)
    policy, plant = learner.policy(), Plant(environment, 5, 1)
    observation, memory, kept = plant.reset(), np.zeros((5, policy.memory)), torch.zeros(5, learner.net.remembered)
    ends, rng = 0, np.random.default_rng(0)
    for _ in range(30):
        outputs_of, memory = policy.step(observation, memory)
        with torch.inference_mode():
            found, _, kept = learner.net.step(learner.inputs(observation), kept)
        theirs = getattr(found, "logits", None)
        np.testing.assert_allclose(found.mean if theirs is None else theirs, outputs_of, atol=1e-6)
        step = plant.step(rng.uniform(-1, 1, (5, environment.contract.n_actions)))
        over = step.terminated | step.truncated
        memory[over], kept = 0.0, kept * torch.from_numpy(~over)[:, None]
        ends, observation = ends + int(over.sum()), step.observation
    assert ends >= 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["cartpole_no_velocity", "pendulum", "masked", "multiagent"])
@pytest.mark.parametrize("shared", [False, True])
def test_the_first_epoch_sees_the_probabilities_that_were_sampled(kind: str, name: str, shared: bool) -> None:
    """Through ends, clocks, masks and agents that no longer act, over several rollouts, so that memory comes from the one before."""
    learner = PPO(short(name, 11), replace(SMALL, memory=kind, shared=shared, sequence=4)).learn(192)
    rollout, sampled = lived(learner)
    batch, _ = learner._batch(rollout)
    with torch.no_grad():
        policy, _ = outputs(learner.net, batch)
        whole = batch.samples()
        ratio = (policy.log_prob(whole.action) - whole.log_prob).exp()
    np.testing.assert_allclose(ratio, 1.0, atol=1e-6)
    drawn = rollout.arranged(np.stack(sampled))[rollout.arranged(rollout.alive)]
    np.testing.assert_allclose(whole.log_prob.numpy(), drawn, atol=2e-6)
    assert (~rollout.kept).any() and rollout.before[4::4].any()
    if name == "multiagent":
        assert not rollout.alive.all() and len(drawn) == rollout.alive.sum() == batch.size
    statistics = loss(learner.net, batch.normalized(), learner.settings, Weights())[1]
    assert statistics[3] == pytest.approx(0.0, abs=1e-6) and statistics[4] == 0.0, "no KL, and nothing clipped"


@pytest.mark.parametrize("kind", KINDS)
def test_what_follows_is_valued_with_the_memory_from_before_the_reset(kind: str) -> None:
    """The critic by hand, row by row and step by step: inside episodes V'[t] is V[t + 1], at a clock's end and at the horizon's it is not."""
    learner = PPO(short("pendulum", 6), replace(SMALL, memory=kind, sequence=4)).learn(64)
    rollout, _ = lived(learner)
    net = learner.net
    memory = torch.from_numpy(rollout.start.copy())
    value, following = np.zeros((16, 4)), np.zeros((16, 4))
    with torch.no_grad():
        for t in range(16):
            np.testing.assert_allclose(rollout.before[t], memory, atol=1e-6)
            _, now, after = net.step(learner.inputs(rollout.observation[t]), memory)
            value[t], following[t] = now, net.step(learner.inputs(rollout.final_observation[t]), after)[1]
            memory = after * torch.from_numpy(~(rollout.terminated | rollout.truncated)[t])[:, None]
        past = learner._past(rollout)
        inputs, final = (learner.inputs(rollout.arranged(x)) for x in (rollout.observation, rollout.final_observation))
        _, v, f = learner._looked_back(inputs, final, past, None)
    np.testing.assert_allclose(rollout.in_time(v.numpy()), value, atol=1e-5)
    np.testing.assert_allclose(rollout.in_time(f.numpy()), following, atol=1e-5)
    inside = ~rollout.truncated[:-1]
    np.testing.assert_allclose(following[:-1][inside], value[1:][inside], atol=1e-5)
    assert np.abs(following[:-1] - value[1:])[~inside].min() > 1e-4 and not rollout.terminated.any()
    np.testing.assert_allclose(learner.memory, memory, atol=1e-6)


def test_a_gradient_stops_where_its_sequence_begins() -> None:
    """Of two sequences' samples each depends on its own observations alone, although the second starts from the first one's memory."""
    learner = PPO("cartpole_no_velocity", replace(SMALL, rows=1)).learn(64)
    rollout, _ = lived(learner)
    inputs = learner.inputs(rollout.arranged(rollout.observation)).requires_grad_()
    _, value = learner.net(inputs, learner._past(rollout))
    value.view(2, 8)[1, -1].backward()
    assert inputs.grad is not None and inputs.grad[0].abs().max() == 0 and inputs.grad[1, :-1].abs().max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_going_on_gives_the_bits_of_never_stopping(kind: str, tmp_path: Path) -> None:
    settings = replace(SMALL, engine="torch", memory=kind, evaluations=4, evaluation_episodes=2)
    whole = train("cartpole_no_velocity", seed=3, out=tmp_path / "whole", settings=settings)
    train("cartpole_no_velocity", seed=3, out=tmp_path / "parts", settings=settings, progress=lambda p: p.steps < 192)
    run = resume(tmp_path / "parts")
    assert run.result["resumed"][0]["exact"]
    assert_same_end(run, whole)
    kept = PPO.load(run.checkpoints()[-1])
    assert isinstance(kept, PPO) and kept.memory.any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_becomes_bundles_that_are_its_program(kind: str, tmp_path: Path) -> None:
    """Calibrated on its own episodes, memory and all; the C of the bundle gives the program's bits through their starts."""
    run = train("cartpole_no_velocity", out=tmp_path / "run", settings=replace(SMALL, memory=kind))
    task = task_of(run.path)
    assert task.starts.sum() > 1
    for board in ("host", "esp32", "rp2040"):
        export(task.policy, target.load(board), tmp_path / board, task.observations, task.shield.specification, starts=task.starts)
    rows = verify(Bundle.load(tmp_path / "host"), 300, only=("c",))
    assert rows and all(row.vectors > 100 and row.mismatches == 0 for row in rows)


@pytest.mark.parametrize(("kind", "parts"), [("gru", 1), ("lstm", 2)])
@pytest.mark.parametrize("deterministic", [True, False])
def test_predict_takes_and_gives_a_state(kind: str, parts: int, deterministic: bool) -> None:
    learner = PPO("pendulum", replace(SMALL, memory=kind)).learn(128)
    policy, rng = learner.policy(), np.random.default_rng(0)
    state, memory = None, np.zeros((3, policy.memory))
    for t in range(5):
        observation, begins = rng.uniform(-1, 1, (3, 3)), np.array([False, t == 3, False])
        memory[begins] = 0.0
        expected, memory = policy.act_step(observation, memory)
        action, state = learner.predict(observation, state, begins, deterministic)
        assert state is not None and [part.shape for part in state] == [(1, 3, 6)] * parts
        np.testing.assert_allclose(np.concatenate(state, -1)[0], memory, atol=1e-6)
        assert np.array_equal(action, expected) == deterministic
    assert learner.predict(observation[0])[0].shape == (1,)
    with pytest.raises(InvalidInput, match=r"the state of 2 rows is \d of shape \(1, 2, 6\)"):
        learner.predict(observation[:2], state)


def test_a_smooth_explorer_remembers_too() -> None:
    learner = PPO("pendulum", replace(SMALL, exploration="state", hold=4)).learn(256)
    assert learner.net.log_std.shape == (6, 1) and learner.held_noise is not None and learner.held_noise.matrix.shape == (4, 6, 1)


def test_a_gradient_in_parts_is_that_of_the_whole() -> None:
    whole, added = (PPO(short("multiagent", 8), replace(SMALL, accumulate=n, minibatch=32, steps=128)).learn() for n in (1, 3))
    for a, b in zip(whole.net.parameters(), added.net.parameters()):
        np.testing.assert_allclose(b.detach(), a.detach(), rtol=2e-4, atol=2e-6)


def test_bfloat16_learns_and_stays_finite() -> None:
    learner = PPO("pendulum", replace(SMALL, amp=True)).learn()
    assert all(bool(torch.isfinite(p).all()) and p.dtype == torch.float32 for p in learner.net.parameters())


def test_what_cannot_be_is_said() -> None:
    assert "memory 'gru' is of the torch engine" in PPO("memory", SMALL).engine_note
    with pytest.raises(Unsupported, match="memory 'gru' is of the torch engine"):
        PPO("memory", replace(SMALL, engine="native"))
    with pytest.raises(Unsupported, match=r"sac trains no policy with memory: ppo does, or .* pendulum-frames4"):
        SAC("pendulum", SACSettings(memory="lstm"))
    with pytest.raises(Unsupported, match=r"cpo trains no policy with memory: ppo-lagrangian and pid-lagrangian do, or"):
        CPO("cmdp", CPOSettings(cost_limit=1.0, memory="lstm"))
    with pytest.raises(Unsupported, match="leave out network=, or memory"):
        PPO("memory", SMALL, network=lambda c, s: torch.nn.Linear(1, 1))
    for wrong, message in (
        ({"sequence": 5}, "sequence must be a divisor of the horizon, 16, or 0 for all of it, not 5"),
        ({"minibatch": 7}, "a minibatch of 7 samples holds no sequence of 8 steps"),
        ({"memory": "elman"}, "memory must be one of none, gru, lstm"),
        ({"memory_size": 0}, "memory_size must be a whole number of at least 1"),
        ({"vector": "asynchronous"}, "rows that make their steps together"),
    ):
        with pytest.raises(InvalidInput, match=message):
            replace(SMALL, **wrong)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_with_memory_memory_is_solved(kind: str) -> None:
    """Without it a guess: ``test_sanity.py``."""
    settings = PPOSettings(steps=30_000, rows=32, horizon=20, minibatch=160, epochs=4, hidden=(16,), memory=kind, memory_size=16, learning_rate=3e-3)
    assert float(np.mean(PPO("memory", settings).learn().recent_returns)) > 0.96


def test_past_picks_the_samples_of_its_sequences() -> None:
    alive = torch.tensor([[True, False], [True, True]])
    past = Past(torch.zeros(2, 1), torch.ones(2, 2), alive)
    assert past.samples(torch.arange(4).view(2, 2)).tolist() == [0, 2, 3]
    assert past[torch.tensor([1])].samples(torch.arange(2).view(1, 2)).tolist() == [0, 1]
    assert isinstance(PPO("memory", SMALL).net, RecurrentActorCritic)


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_on_costs_inherits_memory(kind: str) -> None:
    """Nothing of the constraint reaches the policy at a price of 0; its critic is shown what the networks remember, and a resumed one goes on."""
    settings = PPOLagrangianSettings(**{**SMALL.to_dict(), "memory": kind, "cost_limit": 1e9, "multiplier": 0.0})
    plain, safe = PPO("cartpole_no_velocity", replace(SMALL, memory=kind)), PPOLagrangian("cartpole_no_velocity", settings)
    plain.learn(128)
    safe.learn(128)
    assert all(torch.equal(p, q) for p, q in zip(plain.net.parameters(), safe.net.parameters()))
    rollout, _ = lived(safe)
    shown, following = safe.shown(rollout)
    assert shown.shape == following.shape == (16, 4, 2 + safe.net.memory)
    inside = rollout.kept[:-1]
    np.testing.assert_array_equal(following[:-1][inside], shown[1:][inside])
    assert not shown[1:, :, 2:][~inside].any() and following[:-1, :, 2:][~inside].any()


def test_a_priced_policy_with_memory_goes_on_to_the_bit(tmp_path: Path) -> None:
    settings = PPOLagrangianSettings(**{**SMALL.to_dict(), "cost_limit": 0.5, "multiplier": 1.0, "engine": "torch"})
    whole = train("cartpole_no_velocity", "ppo-lagrangian", out=tmp_path / "whole", settings=settings)
    train("cartpole_no_velocity", "ppo-lagrangian", out=tmp_path / "parts", settings=settings, progress=lambda p: p.steps < 192)
    assert_same_end(resume(tmp_path / "parts"), whole)
