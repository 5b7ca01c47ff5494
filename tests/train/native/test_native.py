"""The native trainer against torch in float64: forward, backward, a whole update; against numpy: advantages; against itself: threads."""

from __future__ import annotations

import ctypes
import itertools
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from puffer_edge.errors import InvalidInput, Unsupported  # noqa: E402
from puffer_edge.train import advantages, native  # noqa: E402
from puffer_edge.train.algorithms.ppo import Weights  # noqa: E402
from puffer_edge.train.native import build, structs  # noqa: E402
from puffer_edge.train.native.engine import Engine, Shape, fill  # noqa: E402
from puffer_edge.train.settings import PPOSettings  # noqa: E402
from tests.train.native.reference import SHAPES, Array, outputs, parameters, samples, total  # noqa: E402

LOSSES = {
    "plain": PPOSettings(entropy_weight=0.01),
    "clipped, dual": PPOSettings(value_loss="clipped", value_clip=0.3, dual_clip=1.5),
    "clamped, penalty": PPOSettings(value_loss="clamped", value_clip=0.8, normalize_advantage=False),
}


def distance(a: Array, b: Array) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("name", SHAPES)
def test_outputs_and_gradients_are_autograds(name: str, folder: Path, runs: list[str]) -> None:
    shape, rng = SHAPES[name], np.random.default_rng(0)
    flat = parameters(shape)
    for rows in (1, 47, 48, 500):
        x, d = rng.standard_normal((rows, shape.inputs)), rng.standard_normal((rows, shape.outputs + 1))
        wanted = torch.from_numpy(flat).requires_grad_()
        out = outputs(shape, wanted, torch.from_numpy(x))
        out.backward(torch.from_numpy(d))
        for variant in runs:
            engine = Engine(shape, 2, variant, folder)
            single = flat.astype(np.float32)
            assert distance(engine.forward(single, x), out.detach().numpy()) < 2e-6
            assert wanted.grad is not None and distance(engine.backward(single, x, d), wanted.grad.numpy()) < 1e-5


def update_of(engine: Engine, data: dict[str, Array], settings: PPOSettings, weights: Weights, **about: Any) -> tuple[Any, dict[str, Array]]:
    """The structure of an update on a copy of the data, and what it writes to."""
    real, count = engine.real, len(data["inputs"])
    held = {"parameters": parameters(engine.shape).astype(real)}
    held |= {"first": np.zeros_like(held["parameters"]), "second": np.zeros_like(held["parameters"]), "adam_steps": np.zeros(1, np.int64)}
    u = structs.Update()
    u.samples, u.minibatch, u.epochs, u.seed, u.update = count, settings.minibatch, settings.epochs, 5, 9
    u.normalize_advantage, u.learning_rate = settings.normalize_advantage and "advantage" in data, 1e-3
    u.beta1, u.beta2, u.epsilon = 0.9, 0.999, 1e-5
    u.max_grad_norm = settings.max_grad_norm
    u.loss.clip, u.loss.dual_clip, u.loss.value_form = settings.clip, settings.dual_clip or 0.0, structs.VALUE_FORMS.index(settings.value_loss)
    u.loss.value_weight, u.loss.value_clip = settings.value_weight, settings.value_clip
    u.loss.entropy_weight, u.loss.kl_weight = weights.entropy, weights.kl
    for name, value in about.items():
        setattr(u, name, value)
    kinds = {"gaussian": ("number", real), "categorical": ("choice", np.int32)}
    action = {kinds[engine.shape.kind][0]: data["action"].astype(kinds[engine.shape.kind][1])} if "action" in data else {}
    mask = {"allowed": data["allowed"].astype(np.uint8)} if "allowed" in data else {}
    fill(u, **held, **action, **mask, **{name: x.astype(real) for name, x in data.items() if name not in ("action", "allowed")})
    return u, held


def in_torch(shape: Shape, data: dict[str, Array], settings: PPOSettings, weights: Weights, orders: list[Array]) -> tuple[Array, Array]:
    """Parameters after the update in float64, and the means of the statistics."""
    flat, seen = torch.from_numpy(parameters(shape)).requires_grad_(), []
    optimizer = torch.optim.Adam([flat], lr=1e-3, eps=1e-5)
    for order in orders:
        for k in range(0, len(order), settings.minibatch):
            value, statistics = total(shape, flat, data, order[k : k + settings.minibatch], settings, weights)
            optimizer.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_([flat], settings.max_grad_norm)
            optimizer.step()
            seen.append(statistics)
    return flat.detach().numpy(), torch.stack(seen).mean(0).numpy()


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("name", SHAPES)
def test_a_whole_update_is_torchs(name: str, kind: str, double: Path, folder: Path, runs: list[str]) -> None:
    """Three epochs of five minibatches, the last one smaller, in a build in double; in float within what float can be."""
    shape, settings = SHAPES[name], replace(LOSSES[kind], epochs=3, minibatch=150)
    weights = Weights(settings.entropy_weight, 0.3 if "penalty" in kind else 0.0)
    data = samples(shape, 700)
    exact = Engine(shape, 2, "portable", double)
    orders = [exact.order(700, 5, 9, epoch) for epoch in range(3)]
    wanted, statistics = in_torch(shape, data, settings, weights, orders)
    u, held = update_of(exact, data, settings, weights)
    exact.update(u)
    assert distance(held["parameters"], wanted) <= 1e-9
    assert held["adam_steps"][0] == 15 and u.epochs_done == 3
    ours = dict(zip(structs.STATISTICS, u.statistics))
    np.testing.assert_allclose([ours[n] for n in ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")], statistics, rtol=1e-7)
    for variant in runs:
        engine = Engine(shape, 1, variant, folder)
        u, held = update_of(engine, data, settings, weights)
        engine.update(u)
        assert distance(held["parameters"], wanted) < 2e-3  # Adam divides small gradients by small deviations


@pytest.mark.parametrize("name", ["classic", "three layers", "shared"])
def test_a_masked_update_is_torchs(name: str, double: Path, folder: Path, runs: list[str]) -> None:
    """The same, with some choices out of reach; an entropy bonus, which would pull at them."""
    shape, settings, weights = SHAPES[name], PPOSettings(epochs=3, minibatch=150), Weights(0.05, 0.3)
    data = samples(shape, 700, masked=True)
    exact = Engine(shape, 2, "portable", double)
    wanted, statistics = in_torch(shape, data, settings, weights, [exact.order(700, 5, 9, epoch) for epoch in range(3)])
    u, held = update_of(exact, data, settings, weights)
    exact.update(u)
    assert distance(held["parameters"], wanted) <= 1e-9
    ours = dict(zip(structs.STATISTICS, u.statistics))
    np.testing.assert_allclose([ours[n] for n in ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")], statistics, rtol=1e-7)
    plain, _ = in_torch(shape, {k: v for k, v in data.items() if k != "allowed"}, settings, weights, [np.arange(700)])
    assert distance(plain, wanted) > 1e-3, "the mask must matter"
    for variant in runs:
        u, held = update_of(Engine(shape, 1, variant, folder), data, settings, weights)
        Engine(shape, 1, variant, folder).update(u)
        assert distance(held["parameters"], wanted) < 2e-3


def test_what_is_never_allowed_has_no_gradient(folder: Path, runs: list[str]) -> None:
    """Weights of the last layer for a choice that no sample allowed stay as they were, to the bit."""
    shape = SHAPES["classic"]
    shape = replace(shape, sizes=(4,))
    data = samples(shape, 300, masked=True)
    data["allowed"][:, 2], data["allowed"][:, 0] = False, True
    data["action"] = np.where(data["action"] == 2, 0, data["action"])
    actor = shape.networks[0]
    end = sum(a * b + b for a, b in itertools.pairwise(actor))
    for variant in runs:
        engine = Engine(shape, 2, variant, folder)
        u, held = update_of(engine, data, PPOSettings(epochs=2, minibatch=100), Weights(0.1))
        before = held["parameters"].copy()
        engine.update(u)
        rows = slice(end - 4 - 4 * 64, end - 4)
        moved = (held["parameters"] != before)[rows].reshape(4, 64).any(1), (held["parameters"] != before)[end - 4 : end]
        assert moved[0].tolist() == moved[1].tolist() == [True, True, False, True]


@pytest.mark.parametrize("name", ["classic", "gaussian", "shared", "critic alone"])
def test_bits_do_not_depend_on_threads(name: str, folder: Path, runs: list[str]) -> None:
    shape, settings = SHAPES[name], PPOSettings(epochs=2, minibatch=333)
    for variant in runs:
        found = []
        for threads in (1, 2, 3, 8):
            engine = Engine(shape, threads, variant, folder)
            u, held = update_of(engine, samples(shape, 1000), settings, Weights(0.01))
            engine.update(u)
            found.append((held["parameters"].tobytes(), held["second"].tobytes(), list(u.statistics)))
        assert found == [found[0]] * 4


def test_an_update_stops_at_the_kl(folder: Path) -> None:
    shape, data = SHAPES["classic"], samples(SHAPES["classic"], 600)
    for limit, epochs in ((1e-9, 1), (1e9, 4)):
        engine = Engine(shape, 1, "portable", folder)
        u, _ = update_of(engine, data, PPOSettings(epochs=4, minibatch=200), Weights(), stop_kl=limit)
        engine.update(u)
        assert u.epochs_done == epochs and all(u.epoch_kl[k] > 0 for k in range(epochs))


@pytest.mark.parametrize("samples_", [1, 2, 3, 64, 1000, 65_536])
def test_a_shuffle_is_a_permutation_of_its_own(samples_: int, folder: Path) -> None:
    engine = Engine(SHAPES["classic"], 1, "portable", folder)
    seen = [engine.order(samples_, seed, update, epoch) for seed, update, epoch in itertools.product((0, 1), (0, 7), (0, 1))]
    for order in seen:
        np.testing.assert_array_equal(np.sort(order), np.arange(samples_))
    if samples_ >= 64:
        assert len({order.tobytes() for order in seen}) == len(seen)
    if samples_ >= 1000:  # neighbours are spread, and nothing stays where it was more often than chance has it
        for order in seen:
            assert abs(np.corrcoef(np.arange(samples_), order)[0, 1]) < 0.12 and (order == np.arange(samples_)).sum() < 12
            assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.12


def rollout_of(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, Array]:
    ended = rng.random(shape)
    numbers = {name: rng.normal(size=shape) for name in ("reward", "value", "final_value")}
    return numbers | {"terminated": ended < 0.1, "truncated": (ended >= 0.1) & (ended < 0.2)}


def test_advantages_are_those_of_the_definition(double: Path) -> None:
    engine, rng = Engine(SHAPES["classic"], 2, "portable", double), np.random.default_rng(0)
    for shape in ((1, 1), (5, 3), (64, 200)):
        data = rollout_of(rng, shape)
        wanted = advantages.advantages(**data, discount=0.97, trace_decay=0.9)
        for found in (
            engine.advantages(**data, discount=0.97, trace_decay=0.9),
            engine.advantages(**data, discount=0.97, trace_decay=0.9, ratio=np.ones(shape)),
        ):
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)
        off = {"ratio": rng.lognormal(0, 0.7, shape), "ratio_clip": 1.3, "trace_clip": 0.9}
        ours = engine.advantages(**data, discount=0.97, trace_decay=0.9, **off)
        np.testing.assert_allclose(ours, advantages.advantages(**data, discount=0.97, trace_decay=0.9, **off), rtol=1e-12, atol=1e-12)
        scaled = engine.advantages(**data | {"reward": data["reward"] * 5}, discount=0.97, trace_decay=0.9, reward_scale=5.0)
        np.testing.assert_allclose(scaled, wanted, rtol=1e-9, atol=1e-12)
        alive = rng.random(shape) < 0.7
        ours = engine.advantages(**data, discount=0.97, trace_decay=0.9, alive=alive)
        np.testing.assert_allclose(ours, advantages.advantages(**data, discount=0.97, trace_decay=0.9, alive=alive), rtol=1e-12, atol=1e-12)


def test_v_trace_by_hand(double: Path) -> None:
    """Two steps, ratios 2 and ½, clipped at 1: the later weighs half, the earlier as it is, and its trace too."""
    engine = Engine(SHAPES["classic"], 1, "portable", double)
    column = {name: np.array(x)[:, None] for name, x in {"reward": [1.0, 2.0], "value": [0.5, 0.25], "final_value": [0.25, 4.0]}.items()}
    none = np.zeros((2, 1), bool)
    found, _ = engine.advantages(**column, terminated=none, truncated=none, discount=0.5, trace_decay=0.5, ratio=np.array([[2.0], [0.5]]))
    later = 0.5 * (2.0 + 0.5 * 4.0 - 0.25)
    np.testing.assert_allclose(found[:, 0], [(1.0 + 0.5 * 0.25 - 0.5) + 0.25 * 1.0 * later, later], rtol=1e-15)
    ended = np.array([[True], [False]])
    cut, _ = engine.advantages(**column, terminated=ended, truncated=none, discount=0.5, trace_decay=0.5)
    late, _ = engine.advantages(**column, terminated=none, truncated=ended, discount=0.5, trace_decay=0.5)
    np.testing.assert_allclose([cut[0, 0], late[0, 0]], [1.0 - 0.5, 1.0 + 0.5 * 0.25 - 0.5])


def test_moments_are_numpys_for_any_number_of_threads(folder: Path) -> None:
    x = np.random.default_rng(0).normal(5.0, [1.0, 1e-3, 100.0], (1000, 3))
    found = [Engine(SHAPES["classic"], threads, "portable", folder).moments(x) for threads in (1, 3)]
    assert all(np.array_equal(a, b) for a, b in zip(*found))
    np.testing.assert_allclose(found[0][0], x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found[0][1], ((x - x.mean(0)) ** 2).sum(0), rtol=1e-12)


def test_random_words_are_the_published_ones(folder: Path) -> None:
    """The known answers of the Random123 distribution for Philox4x32-10."""
    library, out = native.load("portable", folder), (ctypes.c_uint32 * 4)()
    for counter, key, wanted in (
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0], [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
    ):
        library.pe_native_philox((ctypes.c_uint32 * 4)(*counter), (ctypes.c_uint32 * 2)(*key), out)
        assert list(out) == wanted


def functions(variant: str, folder: Path, x: Array) -> list[Array]:
    """exp, log, tanh, sine and cosine of a turn."""
    found = [np.empty_like(x) for _ in range(5)]
    native.load(variant, folder).pe_native_functions(len(x), x.ctypes.data, *(y.ctypes.data for y in found))
    return found


def test_nan_in_a_weight_or_an_input_reaches_the_outputs(folder: Path, runs: list[str]) -> None:
    for variant, name in itertools.product(runs, ("classic", "critic alone")):
        engine, shape = Engine(SHAPES[name], 1, variant, folder), SHAPES[name]
        flat, x = parameters(shape).astype(np.float32), np.ones((50, shape.inputs), np.float32)
        assert np.isfinite(engine.forward(flat, x)).all()
        x[7, 1] = np.nan
        out = engine.forward(flat, x)
        assert np.isnan(out[7]).all() and np.isfinite(np.delete(out, 7, 0)).all()
        flat[0] = np.nan
        assert np.isnan(engine.forward(flat, x[:1])[0, : shape.outputs or 1]).all()


def test_functions_are_as_exact_as_they_say(folder: Path, runs: list[str]) -> None:
    x = np.concatenate([np.linspace(-87, 88, 400_001), np.geomspace(1e-30, 1e30, 400_001), -np.geomspace(1e-6, 80, 100_001)]).astype(np.float32)
    for variant in runs:
        e, log, t, *_ = functions(variant, folder, x)
        exact, bounded, positive = x.astype(np.float64), np.clip(x, -87, 88).astype(np.float64), x > 1e-37
        assert np.abs(e / np.exp(bounded) - 1).max() < 2.5e-7
        assert (np.abs(log[positive] - np.log(exact[positive])) < 3e-7 * np.maximum(1, np.abs(np.log(exact[positive])))).all()
        assert np.abs(t / np.where(exact == 0, 1, np.tanh(exact)) - 1)[exact != 0].max() < 4e-7 and np.abs(t).max() <= 1
        turn = np.arange(2**20, dtype=np.float32) / 2**20
        *_, sine, cosine = functions(variant, folder, turn)
        angle = 2 * np.pi * turn.astype(np.float64)
        assert np.abs(sine - np.sin(angle)).max() < 2.5e-7 and np.abs(cosine - np.cos(angle)).max() < 2.5e-7
        nan = functions(variant, folder, np.full(17, np.nan, np.float32))
        assert all(np.isnan(y).all() for y in nan)


def test_what_it_does_not_take_is_refused_before_c_is_called(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = SHAPES["classic"]
    for shape, says in (
        (replace(good, hidden=(8,) * 4), "1 to 3 hidden layers, not 4"),
        (replace(good, hidden=(5000,)), "widths of 1 up to 4096"),
        (replace(good, sizes=(2,) * 17), "16 groups"),
        (replace(good, sizes=(300,)), "256 outputs"),
        (replace(good, hidden=(0,)), "widths of 1 up to 4096"),
        (replace(good, inputs=-3), "widths of 1 up to 4096"),
        (replace(good, sizes=()), "groups of at least one choice"),
        (replace(good, kind="gaussian", sizes=(2,)), "a 1 for each number"),
        (replace(good, activation="gelu"), "activation relu or tanh"),
        (replace(good, kind="value"), "a critic alone has no choices"),
        (replace(good, hidden=(4096, 4096)), "16777216 parameters, not 3"),
    ):
        with pytest.raises(Unsupported, match=says):
            Engine(shape, 1, "portable", folder)
    with pytest.raises(InvalidInput, match="threads must lie in 1 … 256, not 0"):
        Engine(good, 0, "portable", folder)
    engine = Engine(good, 1, "portable", folder)
    with pytest.raises(InvalidInput, match=r"parameters has shape \(3,\), not"):
        engine.forward(np.zeros(3, np.float32), np.zeros((1, 4), np.float32))
    with pytest.raises(InvalidInput, match="x has shape"):
        engine.forward(np.zeros(good.size, np.float32), np.zeros((1, 5), np.float32))
    with pytest.raises(Unsupported, match="is not built here: python -m"):
        native.load("", tmp_path)
    with pytest.raises(Unsupported, match="no variant 'sse'"):
        native.load("sse", folder)
    build.library("portable", tmp_path).write_bytes(b"not a library")
    with pytest.raises(Unsupported, match="does not load"):
        native.load("portable", tmp_path)
    lacking = tmp_path / "lacking"
    lacking.mkdir()
    (lacking / "old.c").write_text(f"int pe_native_version(void) {{ return {native.VERSION}; }}")
    compiler, made = build.compiler() or [], build.library("portable", lacking)
    subprocess.run([*compiler, "-shared", "-fPIC", str(lacking / "old.c"), "-o", str(made)], check=True)
    with pytest.raises(Unsupported, match="lacks pe_engine_new, though its version is"):
        native.load("portable", lacking)
    version = native.VERSION
    monkeypatch.setattr(native, "VERSION", 99)
    native._load.cache_clear()
    with pytest.raises(Unsupported, match=f"has version {version}, this code speaks 99"):
        native.load("portable", folder)
    native._load.cache_clear()
