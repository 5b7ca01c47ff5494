"""An environment that hangs is named with its line; one that is slow, however many calls it takes, is not."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest

from puffer_edge import envs
from puffer_edge.envs import check
from puffer_edge.envs.checking.patience import patience
from puffer_edge.errors import WorkerFailed

painted = pytest.importorskip("tests.envs.painted")
pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no such signal")


@pytest.mark.parametrize("method", ["reset", "step"])
def test_one_that_hangs_is_named(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> None:
        while True:
            try:
                time.sleep(0.01)  # here
            except Exception:  # nothing that passes
                continue

    monkeypatch.setattr(painted.Painted, method, hang)
    before = signal.getsignal(signal.SIGALRM)
    with (
        pytest.raises(
            WorkerFailed, match=r"mine hangs: a call has not ended after 0\.3 s; it is in\n.*test_patience\.py, line \d+: (time|try|while)"
        ),
        patience("mine", 0.3),
    ):
        list(check.verdicts(envs.load("tests.envs.painted:Painted")))
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_one_that_is_slow_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: object, action: object) -> object:
        time.sleep(0.02)
        return np.zeros(2, np.float32), 1.0, False, False, {}

    monkeypatch.setattr(painted.Painted, "step", step)
    begun, environment = time.monotonic(), envs.load("tests.envs.painted:Painted")
    with patience("mine", 0.3):
        state = environment.start(0, [0])
        while time.monotonic() < begun + 1.0:
            state, *_ = environment.step(state, np.zeros((1, 1)))
