"""Traces: columns of one length, compared bit by bit, in a file that executes nothing."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from puffer_edge.errors import BundleError, InvalidInput
from puffer_edge.trace import COLUMNS, Trace

STEPS = 6


def trace() -> Trace:
    rng = np.random.default_rng(0)
    ints = {name: rng.integers(-9, 9, (STEPS, n)).astype(np.int32) for name, n in (("observation", 4), ("raw", 2), ("applied", 2))}
    words = {name: np.arange(STEPS, dtype=np.uint32) for name in ("outcome", "state", "cycles_policy", "cycles_shield")}
    floats = {name: np.linspace(0, 1, STEPS) for name in ("cost", "round_trip_us")}
    flags = {name: np.zeros(STEPS, bool) for name in ("terminated", "truncated")}
    time, episode = np.arange(STEPS, dtype=np.int64) * 20_000, np.array([0, 0, 0, 1, 1, 1], np.int32)
    reward = np.array([1.0, 2.0, 3.0, 10.0, 20.0, 30.0])
    return Trace(time, episode, **ints, **words, **floats, **flags, reward=reward, source="reference", seed=7, about={"versions": [1, 2]})


def test_save_and_load(tmp_path: Path) -> None:
    trace().save(tmp_path / "t.npz")
    again = Trace.load(tmp_path / "t.npz")
    for name in COLUMNS:
        a, b = getattr(again, name), getattr(trace(), name)
        assert a.dtype == b.dtype and (a == b).all()
    assert (again.source, again.seed, again.about) == ("reference", 7, {"versions": [1, 2]})


def test_returns_by_episode() -> None:
    assert trace().returns().tolist() == [6.0, 60.0]


def test_an_empty_trace(tmp_path: Path) -> None:
    t = trace()
    empty = dataclasses.replace(t, **{name: getattr(t, name)[:0] for name in COLUMNS})
    assert len(empty) == 0 and empty.returns().tolist() == []
    empty.save(tmp_path / "t.npz")
    assert len(Trace.load(tmp_path / "t.npz")) == 0
    assert empty.compare(empty).tolist() == []


def test_compare_finds_every_differing_step() -> None:
    a = trace()
    applied, state, reward = a.applied.copy(), a.state.copy(), a.reward + 1
    applied[2, 1] += 1
    state[4] += 1
    assert a.compare(a).tolist() == []
    assert a.compare(dataclasses.replace(a, reward=reward)).tolist() == []
    assert a.compare(dataclasses.replace(a, applied=applied, state=state)).tolist() == [2, 4]


def test_lengths_must_agree() -> None:
    with pytest.raises(InvalidInput, match="one length"):
        dataclasses.replace(trace(), state=np.zeros(5, np.uint32))
    t = trace()
    shorter = dataclasses.replace(t, **{name: getattr(t, name)[:3] for name in COLUMNS})
    with pytest.raises(InvalidInput, match="6 and 3 steps"):
        t.compare(shorter)


def test_no_file_is_invalid_input(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no trace"):
        Trace.load(tmp_path / "absent.npz")


def test_damage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    trace().save(path)
    data = path.read_bytes()
    for size in range(0, len(data), 37):
        path.write_bytes(data[:size])
        with pytest.raises(BundleError):
            Trace.load(path)


def test_any_flipped_byte_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    """The format's checksums cover the columns, not every field of its directory."""
    path = tmp_path / "t.npz"
    trace().save(path)
    data = path.read_bytes()
    for at in range(0, len(data), 11):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x24]) + data[at + 1 :])
        try:
            again = Trace.load(path)
        except BundleError:
            continue
        assert all((getattr(again, name) == getattr(trace(), name)).all() for name in COLUMNS)


def saved(path: Path, **changes) -> None:
    """A file with other contents."""
    columns = {name: getattr(trace(), name) for name in COLUMNS}
    about = np.frombuffer(json.dumps({"format": 1, "source": "x", "seed": 0, "about": {}}).encode(), np.uint8)
    parts = {"about": about} | columns | changes
    np.savez(path, **{name: value for name, value in parts.items() if value is not None})


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    newer = np.frombuffer(b'{"format": 2, "source": "x", "seed": 0, "about": {}}', np.uint8)
    saved(path, about=newer)
    with pytest.raises(BundleError, match="upgrade puffer-edge"):
        Trace.load(path)
    for changes in ({"state": None}, {"about": None}, {"about": np.frombuffer(b"[]", np.uint8)}, {"about": np.frombuffer(b"\xff{", np.uint8)}):
        saved(path, **changes)
        with pytest.raises(BundleError):
            Trace.load(path)
    saved(path, state=np.zeros(5, np.uint32))
    with pytest.raises(BundleError, match="one length"):
        Trace.load(path)
    path.write_text("time_us,observation\n0,1\n")
    with pytest.raises(BundleError):
        Trace.load(path)


class Bomb:
    """Would run code when it is unpickled."""

    def __reduce__(self):
        return (print, ("unpickled",))


def test_pickles_are_never_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.npz"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BundleError):
        Trace.load(path)
    saved(path, state=np.array([Bomb()] * STEPS, object))
    with pytest.raises(BundleError):
        Trace.load(path)
    assert capsys.readouterr().out == ""
