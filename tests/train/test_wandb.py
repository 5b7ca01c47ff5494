"""W&B: offline nothing is sent, the stored rows are those of metrics.jsonl, a training that goes on keeps its id; and what is said without it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from puffer_edge.errors import BundleError, MissingExtra
from puffer_edge.train import PPOSettings, Run, train

SMALL = PPOSettings(steps=256, rows=4, horizon=16, epochs=1, minibatch=64, hidden=(8,), evaluations=2, evaluation_episodes=2)
SCRIPT = """
import sys
from puffer_edge.train import PPOSettings, resume, train
from puffer_edge.train.wandb import WandB

small = PPOSettings(steps=256, rows=4, horizon=16, epochs=1, minibatch=64, hidden=(8,), evaluations=2, evaluation_episodes=2)
train("cartpole", out=sys.argv[1], settings=small, writers=[WandB("mine")], progress=lambda p: {"twice": 2.0 * p.steps} if p.steps < 192 else False)
resume(sys.argv[1], writers=[WandB()])
"""


def test_without_it_the_extra_is_named_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from puffer_edge.train.wandb import WandB

    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtra, match=r"pip install 'puffer-edge\[wandb\]'"):
        train("cartpole", out=tmp_path / "run", settings=SMALL, writers=[WandB()])
    assert not (tmp_path / "run").exists()


def in_a_process(code: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """W&B starts a service and hooks into the end of its process: both stay out of this one."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")} | {"HOME": str(folder), "WANDB_ERROR_REPORTING": "false"}
    command = [sys.executable, "-c", code, str(folder / "run")]
    return subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL)


def test_offline_it_stores_what_the_log_holds_and_calls_nobody(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    with socket.create_server(("127.0.0.1", 0)) as server:  # where W&B is said to be, and the way to everywhere else
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        ways = dict.fromkeys(("WANDB_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), url)
        finished = in_a_process(SCRIPT, tmp_path, WANDB_MODE="offline", **ways)
        assert finished.returncode == 0, finished.stderr
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    run = Run.load(tmp_path / "run")
    identity = json.loads((run.path / "wandb.json").read_text())
    files = sorted(run.path.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime)
    assert [path.stem for path in files] == [f"run-{identity['id']}"] * 2 and identity["project"] == "mine"
    found = [record for path in files for record in records(path)]
    begun = [record.run for record in found if record.WhichOneof("record_type") == "run"]
    assert {(r.project, r.display_name) for r in begun} == {("mine", "run")}
    assert {"learning_rate", "environment", "seed"} <= {item.key for item in begun[0].config.update}
    history = [{i.nested_key[0] if i.nested_key else i.key: json.loads(i.value_json) for i in r.history.item} for r in found if r.HasField("history")]
    for name in ("policy_loss", "eval_rew_mean"):
        assert {row["_step"]: row[name] for row in history if name in row} == {r["steps"]: r[name] for r in run.metrics() if name in r}
    assert [row["twice"] for row in history if "twice" in row] == [128.0, 256.0]
    stored = {item.key or item.nested_key[0]: item.value_json for r in found if r.HasField("summary") for item in r.summary.update}
    assert json.loads(stored["status"]) == "complete"


def test_without_a_login_it_says_so_before_anything_is_written(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    code = "from puffer_edge.train.wandb import WandB\nWandB()"
    finished = in_a_process(code, tmp_path, WANDB_BASE_URL="http://127.0.0.1:9")
    assert "InvalidInput: W&B:" in finished.stderr and "WANDB_MODE=offline" in finished.stderr


def test_a_damaged_identity_is_named(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    code = "import pathlib, sys\nfrom puffer_edge.train.wandb import WandB\nWandB().begin(pathlib.Path(sys.argv[1]), {'settings': {}}, 0)"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "wandb.json").write_text("{}")
    finished = in_a_process(code, tmp_path, WANDB_MODE="offline")
    assert BundleError.__name__ in finished.stderr and "wandb.json is damaged" in finished.stderr


def records(path: Path) -> Iterator[Any]:
    """Records of a W&B file of less than 32 KiB: seven bytes, then checksum (4), length (2), type (1) and payload, as in LevelDB's log."""
    from wandb.proto import wandb_internal_pb2

    data, at = path.read_bytes(), 7
    assert len(data) < 32768
    while at + 7 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 6], "little")
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data[at + 7 : at + 7 + length])
        yield record
        at += 7 + length
