"""What an engine bears and refuses: forks, Python threads, copies, updates of absurd sizes."""

from __future__ import annotations

import copy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from puffer_edge.errors import InvalidInput
from puffer_edge.train.algorithms.ppo import Weights
from puffer_edge.train.native.engine import Engine, Shape, fill
from puffer_edge.train.settings import PPOSettings
from tests.train.native.reference import SHAPES, parameters, samples
from tests.train.native.test_native import update_of

FORK = """
import os, sys, warnings
from pathlib import Path
import numpy as np
from puffer_edge.errors import Unsupported
from puffer_edge.train.native.engine import Engine, Shape

warnings.simplefilter("ignore")  # Python 3.12 warns of any fork beside threads
shape = Shape(4, (8,), "tanh", "categorical", (2,))
engine = Engine(shape, 2, "portable", Path(sys.argv[1]))
flat, x = np.zeros(shape.size, np.float32), np.zeros((500, 4), np.float32)
engine.forward(flat, x)
child = os.fork()
if child == 0:
    try:
        engine.forward(flat, x)
        print("it ran")
    except Unsupported as error:
        print(error)
    del engine
    Engine(shape, 2, "portable", Path(sys.argv[1])).forward(flat, x)
    print("one of its own serves", flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
engine.forward(flat, x)
print("and the first one still")
"""


def test_a_forked_process_is_told_to_make_its_own(folder: Path) -> None:
    """It has no threads of the engine's: it would wait for them for ever, at the first call or at its end."""
    answer = subprocess.run([sys.executable, "-c", FORK, str(folder)], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    said = answer.stdout.splitlines()
    assert "after a fork, make one of its own" in said[0]
    assert said[1:] == ["one of its own serves", "and the first one still"]


def test_python_threads_take_turns(folder: Path) -> None:
    shape = SHAPES["three layers"]
    engine, flat = Engine(shape, 2, "portable", folder), parameters(shape).astype(np.float32)
    inputs = [np.random.default_rng(k).standard_normal((700, shape.inputs)).astype(np.float32) for k in range(8)]
    wanted = [engine.forward(flat * (k + 1), x) for k, x in enumerate(inputs)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            found = list(pool.map(lambda k: engine.forward(flat * (k + 1), inputs[k]), range(8)))
            assert all(np.array_equal(a, b) for a, b in zip(found, wanted))


def test_an_engine_is_not_copied(folder: Path) -> None:
    engine = Engine(SHAPES["classic"], 1, "portable", folder)
    for copied in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="make another one of its shape"):
            copied(engine)


def test_an_update_that_does_not_fit_is_refused_before_c_is_called(folder: Path) -> None:
    engine = Engine(SHAPES["three layers"], 1, "portable", folder)
    data, settings = samples(engine.shape, 50), PPOSettings(minibatch=25)
    for field, value, says in (
        ("samples", 0, "samples must lie in 1"),
        ("samples", 2**40, "samples must lie in 1"),
        ("samples", 51, r"inputs is \(50, 7\) of float32, it needs \(51, 7\)"),
        ("minibatch", 0, "minibatch must lie in 1"),
        ("epochs", 65, "epochs must lie in 1 … 64, not 65"),
        ("epsilon", 0.0, "epsilon must be a positive finite number, not 0"),
        ("learning_rate", float("nan"), "learning_rate must be a finite number of at least 0, not nan"),
        ("max_grad_norm", -1.0, "max_grad_norm must be at least 0, not -1"),
        ("beta2", 1.0, "beta2 must lie in 0 … 1"),
    ):
        u, _ = update_of(engine, data, settings, Weights(), **{field: value})
        with pytest.raises(InvalidInput, match=says):
            engine.update(u)
    for k, choice, says in ((1, 4, "choices of group 1 must lie in 0 … 3, not 0 … 4"), (0, -1, "group 0 must lie in 0 … 2, not -1")):
        wrong = data | {"action": data["action"].copy()}
        wrong["action"][:, k] = np.arange(50) % 3
        wrong["action"][3, k] = choice
        u, _ = update_of(engine, wrong, settings, Weights())
        with pytest.raises(InvalidInput, match=says):
            engine.update(u)
    u, held = update_of(engine, data, settings, Weights())
    fill(u, first=held["first"].astype(np.float64))
    with pytest.raises(InvalidInput, match="first is .* of float64, it needs .* of float32"):  # noqa: RUF043
        engine.update(u)
    u, held = update_of(engine, data, settings, Weights())
    u.loss.value_form = 7
    with pytest.raises(InvalidInput, match="value form must lie in 0 … 2, not 7"):
        engine.update(u)
    for wrong_samples in (0, 2**31):
        with pytest.raises(InvalidInput, match="samples must lie in 1"):
            engine.order(wrong_samples, 0, 0, 0)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 47, 49, 383, 385])
def test_minibatches_of_any_size_leave_the_same_bits_for_any_threads(count: int, folder: Path, runs: list[str]) -> None:
    shape = replace(SHAPES["classic"], hidden=(5,))
    for variant in runs:
        found = []
        for threads in (1, 2, 5):
            engine = Engine(shape, threads, variant, folder)
            u, held = update_of(engine, samples(shape, count), PPOSettings(epochs=2, minibatch=max(count - 1, 2)), Weights(0.01))
            engine.update(u)
            assert np.isfinite(held["parameters"]).all()
            found.append(held["parameters"].tobytes())
        assert len(set(found)) == 1


def test_one_input_one_unit_one_choice(folder: Path, runs: list[str]) -> None:
    """The smallest networks there are: all padding."""
    shape = Shape(1, (1,), "relu", "categorical", (1,))
    for variant in runs:
        engine = Engine(shape, 2, variant, folder)
        flat = np.array([2.0, 1.0, -3.0, 0.5, 4.0, -1.0, 0.25, 2.0], np.float32)
        out = engine.forward(flat, np.array([[1.0], [-1.0]], np.float32))
        np.testing.assert_array_equal(out, [[-3 * 3 + 0.5, 0.25 * 3 + 2], [0.5, 0.25 * 0 + 2]])
