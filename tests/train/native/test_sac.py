"""SAC's update in C against torch in float64: gradients, whole updates, draws; against itself: threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from puffer_edge.contract import ActionChannel, Contract, ObservationChannel  # noqa: E402
from puffer_edge.errors import InvalidInput, Unsupported  # noqa: E402
from puffer_edge.train.algorithms.sac import STATISTICS, Batch, gradients  # noqa: E402
from puffer_edge.train.native import structs  # noqa: E402
from puffer_edge.train.native.sac import SACEngine, SACShape, fill, fill_ring  # noqa: E402
from puffer_edge.train.nets.soft_actor_critic import SoftActorCritic  # noqa: E402
from puffer_edge.train.replay import Replay  # noqa: E402
from tests.train.native.stage import philox, uniform  # noqa: E402

Array = np.ndarray[Any, Any]
SHAPES = {
    "small": SACShape(3, 1, (16, 16), (16, 16)),
    "tanh, one layer": SACShape(5, 3, (13,), (9,), "tanh"),
    "three layers, a small actor": SACShape(2, 2, (7,), (33, 17, 9)),
    "wide": SACShape(4, 6, (160, 40), (130, 200)),
    "gsde": SACShape(2, 2, (24, 20), (16, 16), state_noise=True),
    "gsde, tanh": SACShape(3, 1, (11,), (12, 8), "tanh", True),
}
ROWS, RATES, DISCOUNT, FOLLOW, SEED, N_STEP = 2, (2e-3, 1e-3, 3e-3), 0.97, 0.01, 11, 3
EPSILON, NEXT, NOW = 1e-8, 4, 5


def replay_of(shape: SACShape, steps: int = 200, kept: int = 300) -> Replay:
    rng, replay, rows = np.random.default_rng(0), Replay(ROWS, kept, shape.inputs, shape.numbers), np.arange(ROWS)
    replay.see(rows, rng.normal(size=(ROWS, shape.inputs)))
    for _ in range(steps):
        chance, x = rng.random(ROWS), rng.normal(size=(2, ROWS, shape.inputs))
        ends = chance < 0.1, (chance >= 0.1) & (chance < 0.2)
        final = x[1] if ends[0].any() or ends[1].any() else x[0]
        replay.write(rng.uniform(-1, 1, (ROWS, shape.numbers)), rng.normal(size=ROWS), rng.random(ROWS), *ends, final, x[0])
    return replay


def net_of(shape: SACShape) -> Any:
    """The networks, somewhat away from their start."""
    contract = Contract(
        name="test",
        observations=tuple(ObservationChannel(f"o{k}", "1", -9.0, 9.0) for k in range(shape.inputs)),
        actions=tuple(ActionChannel(f"a{k}", "1", -1.0, 1.0, safe=0.0, initial=0.0) for k in range(shape.numbers)),
        head="tanh",
        rate_hz=10.0,
    )
    generator = torch.Generator().manual_seed(3)
    kind = "state" if shape.state_noise else "independent"
    net = SoftActorCritic(contract, shape.hidden, shape.critic_hidden, shape.activation, kind, -1.0, 0.3, generator)
    with torch.no_grad():
        net.flat += 0.1 * torch.randn(net.flat.shape, generator=generator)
        net.target.flat.copy_(net.critic.flat + 0.05 * torch.randn(net.critic.flat.shape, generator=generator))
    return net


def structure_of(engine: SACEngine, net: Any, replay: Replay, horizon: int, batch: int) -> tuple[Any, dict[str, Array]]:
    """Updates alone; the arrays that they change."""
    shape, real, s = engine.shape, engine.real, structs.Sac()
    held = {"flat": net.flat.numpy().astype(real), "target": net.target.flat.numpy().reshape(-1).astype(real)}
    held |= {"first": np.zeros(shape.size, real), "second": np.zeros(shape.size, real)}
    held |= {"adam_steps": np.zeros(1, np.int64), "drawn": np.zeros(1, np.uint64)}
    s.horizon, s.batch, s.every, s.updates, s.n_step, s.hold, s.seed = horizon, batch, 1, 1, N_STEP, 1, SEED
    s.discount, s.follow, s.target_entropy, s.clip = DISCOUNT, FOLLOW, -float(shape.numbers), 10.0
    s.beta1, s.beta2, s.epsilon = 0.9, 0.999, EPSILON
    s.actor_rate, s.critic_rate, s.temperature_rate = RATES
    fill(s, **held, mean=np.full(shape.inputs, 0.1), deviation=np.full(shape.inputs, 1.5))
    fill_ring(s, replay)
    return s, held


def noise(count: int, m: int, batch: int, stream: int) -> Any:
    """(count, m) of the normal numbers that C draws."""
    found = np.zeros((count, -(-m // 4) * 4))
    for first in range(0, m, 4):
        w = philox((first // 4, np.arange(count), batch, 0), (SEED, stream))
        for pair in (0, 1):
            length, turn = np.sqrt(-2 * np.log(uniform(w[2 * pair]) + 2.0**-24)), 2 * np.pi * uniform(w[2 * pair + 1])
            found[:, first + 2 * pair], found[:, first + 2 * pair + 1] = length * np.cos(turn), length * np.sin(turn)
    return torch.from_numpy(found[:, :m])


def in_torch(net: Any, replay: Replay, updates: int, count: int) -> tuple[Array, Array, Array]:
    """Flat parameters, targets, and the mean statistics after so many updates in float64; the network is changed."""
    for module in (net.critic, net.target):
        module.put(module.flat.double())
    net.double()
    net.target.requires_grad_(False)
    m, seen = net.critic.widths[0] - replay.observation.shape[2], []
    spread = [net.log_std] if net.log_std is not None else []
    groups = ([*net.actor.parameters(), *spread], list(net.critic.parameters()), [net.log_temperature])
    optimizer = torch.optim.Adam([{"params": p, "lr": rate} for p, rate in zip(groups, RATES)], eps=EPSILON)
    for k in range(updates):
        sample = replay.sample(count, SEED, k, N_STEP, DISCOUNT)
        look = [torch.from_numpy(np.clip((x.astype(np.float64) - 0.1) / 1.5, -10, 10)) for x in (sample.observation, sample.following)]
        numbers = [torch.from_numpy(x.astype(np.float64)) for x in (sample.action, sample.reward, sample.weight)]
        batch = Batch(look[0], *numbers, look[1])
        seen.append(gradients(net, batch, noise(count, m, k, NEXT), noise(count, m, k, NOW), -float(m)))
        optimizer.step()
        with torch.no_grad():
            for theirs, ours in zip(net.target.parameters(), net.critic.parameters()):
                theirs.lerp_(ours, FOLLOW)
    return flat_of(net), both(net.target), torch.stack(seen).mean(0).numpy()


def both(twin: Any) -> Array:
    """(2 · size,) parameters of two critics, one after the other."""
    return np.concatenate([p[c].detach().numpy().ravel() for c in (0, 1) for pair in zip(twin.weights, twin.biases) for p in pair])


def flat_of(net: Any) -> Array:
    parts = [p.detach().numpy().ravel() for p in net.actor.parameters()] + ([net.log_std.detach().numpy().ravel()] if net.log_std is not None else [])
    return np.concatenate([*parts, both(net.critic), net.log_temperature.detach().numpy()])


def distance(a: Array, b: Array) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("name", SHAPES)
def test_whole_updates_are_torchs(name: str, double: Path, folder: Path, runs: list[str]) -> None:
    """Three of them in a build in double; in float within what float can be."""
    shape, count, updates = SHAPES[name], 70, 3
    replay, net = replay_of(shape), net_of(shape)
    exact = SACEngine(shape, 2, "portable", double)
    s, held = structure_of(exact, net, replay, updates, count)
    wide = {variant: structure_of(SACEngine(shape, 1, variant, folder), net, replay, updates, count) for variant in runs}
    wanted, target, statistics = in_torch(net, replay, updates, count)
    assert exact.run(s) == (0, 0, 0)
    assert distance(held["flat"], wanted) <= 1e-9 and distance(held["target"], target) <= 1e-9
    assert held["adam_steps"][0] == held["drawn"][0] == s.updates_done == updates
    np.testing.assert_allclose(list(s.statistics), statistics, rtol=1e-7)
    assert structs.SAC_STATISTICS == STATISTICS
    for variant, (structure, single) in wide.items():
        SACEngine(shape, 1, variant, folder).run(structure)
        assert distance(single["flat"], wanted) < 2e-3  # Adam divides small gradients by small deviations
        np.testing.assert_allclose(list(structure.statistics), statistics, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", SHAPES)
def test_gradients_are_autograds(name: str, double: Path, folder: Path, runs: list[str]) -> None:
    """Read from Adam's first moment after one step, a tenth of the gradient; targets follow."""
    shape, count = SHAPES[name], 131
    replay, net = replay_of(shape), net_of(shape)
    engines = [SACEngine(shape, 1, variant, folder) for variant in runs]
    floats = [structure_of(engine, net, replay, 1, count) for engine in engines]
    exact = SACEngine(shape, 1, "portable", double)
    s, held = structure_of(exact, net, replay, 1, count)
    exact.run(s)
    for engine, (structure, single) in zip(engines, floats):
        engine.run(structure)
        assert distance(single["first"], held["first"]) < 1e-5
        assert distance(single["target"], held["target"]) < 1e-6


@pytest.mark.parametrize("name", ["wide", "gsde"])
def test_bits_do_not_depend_on_threads(name: str, folder: Path, runs: list[str]) -> None:
    shape = SHAPES[name]
    replay = replay_of(shape)
    for variant in runs:
        found = []
        for threads in (1, 2, 3, 8):
            engine = SACEngine(shape, threads, variant, folder)
            s, held = structure_of(engine, net_of(shape), replay, 4, 100)
            engine.run(s)
            found.append((*(held[n].tobytes() for n in ("flat", "second", "target")), list(s.statistics)))
        assert found == [found[0]] * 4


def test_what_does_not_fit_is_told(folder: Path) -> None:
    shape = SHAPES["small"]
    engine, net = SACEngine(shape, 1, "portable", folder), net_of(shape)
    s, _ = structure_of(engine, net, Replay(ROWS, 10, shape.inputs, shape.numbers), 1, 8)
    with pytest.raises(InvalidInput, match="no step"):
        engine.run(s)
    s, _ = structure_of(engine, net, replay_of(SHAPES["wide"]), 1, 8)
    with pytest.raises(InvalidInput, match="a replay of these networks' sizes"):
        engine.run(s)
    s, _ = structure_of(engine, net, replay_of(shape), 1, 0)
    with pytest.raises(InvalidInput, match="batch must be at least 1, not 0"):
        engine.run(s)
    fill(s, flat=np.zeros(3, np.float32))
    s.batch = 8
    with pytest.raises(InvalidInput, match="flat needs"):
        engine.run(s)
    for wrong in (SACShape(3, 17, (8,), (8,)), SACShape(3, 1, (), (8,)), SACShape(3, 1, (8,), (8, 5000)), SACShape(3, 1, (8,), (8,), "elu")):
        with pytest.raises(Unsupported, match="does not take these networks"):
            SACEngine(wrong, 1, "portable", folder)
