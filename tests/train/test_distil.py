"""Distillation: what a student takes is known before it is trained, the budget holds for what is exported, and the return is kept."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from puffer_edge import envs
from puffer_edge.commands.sources import task_of
from puffer_edge.device import target as targets
from puffer_edge.device.limits import Budget, Need
from puffer_edge.envs import closed_loop
from puffer_edge.envs.imperfect import imperfect
from puffer_edge.envs.imperfections import Imperfections
from puffer_edge.envs.plant import Plant
from puffer_edge.errors import DoesNotFit, InvalidInput, WriteFailed
from puffer_edge.export.bundle import export
from puffer_edge.integer.quantize import quantize
from puffer_edge.integer.reference import InFloat
from puffer_edge.integer.shield import Shield
from puffer_edge.policy import Head, Layer, Normalizer, Policy, Recurrent
from puffer_edge.train import DistilSettings, Run, distil, resume, train
from puffer_edge.train.distillation import finished, ladder, table
from puffer_edge.train.distillation.distil import PICTURE, digest
from puffer_edge.train.distillation.student import Student
from tests import samples

SHORT = DistilSettings(students=2, profiles=("int8", "int4"), rounds=2, rows=8, horizon=32, updates=40)
LIMITS = {"macs": 400, "kib": 3.0, "us": 110.0}


@pytest.fixture(scope="module")
def teacher() -> Policy:
    return samples.policy(envs.load("pendulum").contract, (32, 32))


@pytest.fixture(scope="module")
def run(teacher: Policy, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return distil(teacher, "rp2040", **LIMITS, episodes=8, out=tmp_path_factory.mktemp("distil") / "run", settings=SHORT)


def bits(run: Run) -> str:
    return hashlib.sha256((run.path / "policy.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["pendulum", "cartpole"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_what_a_candidate_takes_is_what_any_student_of_its_shape_takes(name: str, activation: str) -> None:
    env = envs.load(name)
    like, guard, budget = samples.policy(env.contract), Shield.build(env.contract, env.shield), Budget(targets.load("rp2040"))
    seen, starts = closed_loop.calibration(env, like, guard)
    settings = DistilSettings(activation=activation)
    shapes: tuple[ladder.Hidden, ...] = ((), (6,), (64,), (12, 12))
    found = {(one.hidden, one.profile): one.need for one in ladder.candidates(like, guard, budget, settings, seen, np.inf)}
    for hidden in shapes:
        for profile in settings.profiles:
            for seed in (1, 2):
                student = samples.policy(env.contract, hidden, activation, seed)
                image = ladder.image_of(quantize(student, seen, starts, profile), guard, seen)
                assert budget.need(image) == found[hidden, profile], (hidden, profile)


def test_the_budget_holds_for_what_export_writes(run: Run, tmp_path: Path) -> None:
    taken, task = run.result["distillation"]["taken"], task_of(run.path)
    assert task.profile == taken["profile"]
    about = task.observations, task.shield.specification, task.about
    bundle = export(task.policy, targets.load("rp2040"), tmp_path / "b", *about, starts=task.starts, profile=task.profile)
    cost = bundle.manifest["cost"]
    assert (cost["macs"], cost["image_bytes"]) == (taken["macs"], taken["image_bytes"])
    assert cost["ticks"][0]["cold_us"] == taken["us"] and cost["ticks"][0]["label"] == taken["label"]
    assert cost["macs"] <= LIMITS["macs"] and cost["image_bytes"] <= 1024 * LIMITS["kib"] and cost["ticks"][0]["cold_us"] <= LIMITS["us"]
    played = closed_loop.play(task.environment, bundle.image.program, task.shield, 8, taken["integer"]["seed"])
    assert float(played.returns.mean()) == taken["integer"]["return"]  # the very integers that were reported


def test_every_row_of_the_table_fits_and_some_shapes_do_not(run: Run) -> None:
    rows = run.result["distillation"]["table"]
    assert {row["profile"] for row in rows} == {"int8", "int4"}
    for row in rows:
        assert row["macs"] <= LIMITS["macs"] and row["image_bytes"] <= 1024 * LIMITS["kib"] and row["us"] <= LIMITS["us"]
    assert max(row["macs"] for row in rows) < 3 * 256 + 256 < run.result["distillation"]["teacher"]["macs"]
    (taken,) = [row for row in rows if row["taken"]]
    assert taken["front"] and taken["surely_kept"] == max(row["surely_kept"] for row in rows)


def test_it_is_a_run_like_any_other(run: Run, teacher: Policy) -> None:
    loaded = Run.load(run.path)
    assert loaded.settings["algorithm"] == "distil" and loaded.settings["settings"] == SHORT.to_dict()
    assert loaded.summary()["status"] == "complete" and loaded.summary()["return"] == loaded.result["evaluation"]["return"]
    assert [row["round"] for row in loaded.metrics()] == [1, 2, 1, 2]
    assert all(np.isfinite(row["loss"]) and 0 <= row["agreement"] <= 1 for row in loaded.metrics())
    assert loaded.policy.origin["teacher"]["sha256"] == loaded.result["distillation"]["teacher"]["sha256"] == digest(teacher)
    assert loaded.result["distillation"]["budget"] == {"target": "rp2040", "engine": "c", **LIMITS}
    for key in ("teacher_float", "float", "integer"):
        assert loaded.result["distillation"]["taken"][key]["seed"] != loaded.result["distillation"]["seed"]
    with pytest.raises(InvalidInput, match="distil its teacher again"):
        resume(run.path)


def test_the_picture_has_a_mark_for_each_row(run: Run) -> None:
    root = ET.fromstring((run.path / PICTURE).read_text("utf-8"))
    circles = [one for one in root.iter() if one.tag.endswith("circle")]
    assert len(circles) == 3 * (len(run.result["distillation"]["table"]) + 1)
    words = " ".join(one.text or "" for one in root.iter() if one.tag.endswith("text"))
    assert "emulated µs of a tick on rp2040" in words and "measured" not in words and words.count("budget") == 3


def test_the_same_seed_gives_the_same_bits_and_another_gives_others(run: Run, teacher: Policy, tmp_path: Path) -> None:
    again = distil(teacher, "rp2040", **LIMITS, episodes=8, out=tmp_path / "a", settings=SHORT)
    other = distil(teacher, "rp2040", **LIMITS, episodes=8, seed=1, out=tmp_path / "b", settings=SHORT)
    assert bits(again) == bits(run) != bits(other)
    assert again.result["distillation"]["table"] == run.result["distillation"]["table"]


def test_a_student_does_not_depend_on_the_others(teacher: Policy) -> None:
    env = envs.load("pendulum")
    first, second = (Student(teacher, (8,), env, Shield.build(env.contract, env.shield), SHORT, 3) for _ in range(2))
    other = Student(teacher, (8, 8), env, Shield.build(env.contract, env.shield), SHORT, 3)
    first.advance()
    other.advance()
    second.advance()
    assert digest(first.policy()) == digest(second.policy()) != digest(other.policy())


def test_an_earlier_run_is_kept_and_a_strange_policy_is_not_overwritten(teacher: Policy, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = dataclasses.replace(SHORT, students=1, rounds=1, profiles=("int8",))
    first = distil(teacher, macs=20, episodes=2, out=out, settings=settings)
    earlier = bits(first)
    distil(first, macs=20, episodes=2, out=out, settings=settings)
    assert bits(Run.load(tmp_path / "run.1")) == earlier != bits(Run.load(out))
    teacher.save(tmp_path / "imported" / "policy.safetensors")
    with pytest.raises(InvalidInput, match="another --out"):
        distil(tmp_path / "imported", macs=20, out=tmp_path / "imported")


@pytest.mark.parametrize(
    ("limits", "names"),
    [
        ({"macs": 2}, ["needs 3 multiply-accumulates, the budget has 2", "linear"]),
        ({"kib": 0.5}, ["KiB of policy image", "linear"]),
        ({"target": "rp2040", "us": 5.0}, ["predicted µs for a tick", "the budget has 5", "linear"]),
        ({"target": "rp2040", "us": 5.0, "macs": 1}, ["predicted µs for a tick", "multiply-accumulates of 1"]),
    ],
)
def test_a_budget_that_nobody_meets_is_refused_with_what_the_nearest_needs(teacher: Policy, tmp_path: Path, limits, names: list[str]) -> None:
    with pytest.raises(DoesNotFit) as refused:
        distil(teacher, **limits, out=tmp_path / "run")
    assert all(name in str(refused.value) for name in names), str(refused.value)
    assert refused.value.needs > refused.value.has and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "a budget needs a number or a target"),
        ({"macs": 0}, "budget of macs must be a positive number, not 0"),
        ({"kib": -1.0}, "budget of kib"),
        ({"target": "rp2040", "us": float("nan")}, "budget of us"),
        ({"us": 10.0}, "give --target too"),
        ({"target": "host", "us": 10.0}, "no time is predicted for host"),
        ({"target": "rp2041", "macs": 10}, "did you mean rp2040"),
        ({"macs": 10, "seed": -1}, "seed is not negative"),
        ({"macs": 10, "episodes": 0}, "episodes lie in"),
    ],
)
def test_wrong_input_says_the_way_out(teacher: Policy, tmp_path: Path, limits, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        distil(teacher, **limits, out=tmp_path / "run")


def test_a_teacher_without_an_environment_is_refused_and_can_be_given_one(teacher: Policy, tmp_path: Path) -> None:
    homeless = dataclasses.replace(teacher, origin={})
    with pytest.raises(InvalidInput, match="import with --env"):
        distil(homeless, macs=20, out=tmp_path / "run")
    settings = dataclasses.replace(SHORT, students=1, rounds=1, profiles=("shift",))
    found = distil(homeless, macs=20, episodes=2, out=tmp_path / "run", environment=envs.load("pendulum"), settings=settings)
    assert found.policy.origin["environment"] == "pendulum" and found.policy.origin["profile"] == "shift"


def test_a_student_acts_on_the_plant_that_its_teacher_was_trained_on(teacher: Policy, tmp_path: Path) -> None:
    plant = Imperfections(delay_us=30_000.0)
    real = imperfect(envs.load("pendulum"), plant)
    delayed = dataclasses.replace(teacher, contract=real.contract, origin=teacher.origin | {"plant": plant.to_dict()})
    settings = dataclasses.replace(SHORT, students=1, rounds=1, profiles=("int8",))
    found = distil(delayed, macs=20, episodes=2, out=tmp_path / "run", settings=settings)
    assert found.policy.origin["plant"] == plant.to_dict() == found.settings["plant"] != {}
    assert task_of(found.path).environment.imperfections == plant
    again = task_of(found.path).returns(InFloat(found.policy), 2, found.result["evaluation"]["seed"])
    assert float(again.returns.mean()) == found.result["evaluation"]["return"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "rounds must be"),
        ({"mix": 1.5}, "mix must lie"),
        ({"temperature": 0.0}, "temperature must lie"),
        ({"profiles": ("int9",)}, "did you mean int"),
        ({"profiles": ()}, "at least one profile"),
        ({"activation": "gelu"}, "there is no activation"),
    ],
)
def test_wrong_settings(change, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        DistilSettings(**change)


def row(kept: float, macs: int, size: int, us: float, refused: str = "", surely: float | None = None) -> table.Row:
    policy = samples.policy(envs.load("pendulum").contract, (2,))
    sure = kept if surely is None else surely
    return table.Row((macs,), "int8", policy, Need(macs, size, 0, us, "modelled"), 1.0, (0.0, 1.0), 1.0, kept, sure, refused)


def test_the_front_and_the_best() -> None:
    small, good, dear, bad, none = row(0.9, 1, 10, 1.0), row(1.0, 2, 20, 2.0), row(1.0, 3, 20, 2.0), row(0.8, 2, 20, 2.0), row(1.0, 0, 0, 0.0, "no")
    assert table.front([small, good, dear, bad, none]) == (small, good)
    assert table.best([small, dear, good, bad, none]) is good
    lucky = row(1.0, 1, 10, 1.0, surely=0.7)
    assert table.best([lucky, good]) is good and table.best([lucky, good]) in table.front([lucky, good, dear])
    assert len(table.front([good, dataclasses.replace(good)])) == 2  # equals do not beat each other


def test_labels_come_with_the_teachers_memory_which_an_episodes_end_clears() -> None:
    env = envs.load("cartpole")
    c, rng = env.contract, np.random.default_rng(0)
    cell = Recurrent("gru", rng.normal(0, 1, (12, 4)), rng.normal(0, 1, (12, 4)), rng.normal(0, 1, 12), rng.normal(0, 1, 12))
    last = Layer(rng.normal(0, 1, (2, 4)), np.zeros(2), "none")
    recurrent = Policy(c, (cell, last), Normalizer(np.zeros(4), np.ones(4)), Head("discrete", np.ones(1), np.zeros(1)), {"environment": "cartpole"})
    guard = Shield.build(c, env.shield)
    always = DistilSettings(rounds=1, rows=3, horizon=120, updates=1, mix=1.0, temperature=1.0)
    student = Student(recurrent, (4,), env, guard, always, 0)
    plant = Plant(env, 3, student.plant.seed, guard)
    student.advance()
    observation, memory, ends = c.physical_observation(plant.last), np.zeros((3, 4)), 0
    for inputs, labels in zip(student._inputs, student._labels):
        outputs, memory = recurrent.step(observation, memory)
        np.testing.assert_array_equal(inputs, observation)
        np.testing.assert_allclose(labels, np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True), rtol=1e-12)
        step = plant.step(recurrent.decide(outputs))
        over = step.terminated | step.truncated
        observation, memory, ends = step.observation, np.where(over[:, None], 0.0, memory), ends + int(over.sum())
    assert ends > 3


@pytest.mark.parametrize("head", ["clip", "tanh"])
def test_a_student_beyond_the_end_at_which_the_teacher_is_is_not_wrong(head: str, teacher: Policy) -> None:
    env = envs.load("pendulum")
    contract = dataclasses.replace(env.contract, head=head)
    like = dataclasses.replace(teacher, contract=contract, head=Head(head, 3 * teacher.head.scale, teacher.head.offset))
    student = Student(like, (4,), env.under(contract), Shield.build(contract, env.shield), SHORT, 0)
    outputs, high = torch.tensor([[0.9], [-0.9], [0.1]]), torch.tensor([[1.0], [1.0], [1.0]])
    unit = torch.tanh(outputs) if head == "tanh" else outputs
    expected = float(((3 * unit - 1).clamp(max=0) ** 2).mean())  # three times the range: 0.9 is far beyond its end
    assert float(student._loss(outputs, high)) == pytest.approx(expected, rel=1e-6)
    assert float(student._loss(outputs[:1], high[:1])) == 0.0 and float(student._loss(outputs[1:2], high[1:2])) > 1.0


def test_the_command_prints_the_table_or_json_and_says_what_is_wrong(teacher: Policy, tmp_path: Path) -> None:
    teacher.save(tmp_path / "teacher.safetensors")
    flags = ["--macs", "20", "--episodes", "2", "--students", "1", "--rounds", "1", "--updates", "5", "--profiles", "int8"]

    def cli(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "puffer_edge.cli", "distil", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    shown = cli(tmp_path / "teacher.safetensors", *flags, "--out", tmp_path / "a")
    assert shown.returncode == 0 and "took " in shown.stdout and "next: puffer-edge export" in shown.stdout, shown.stderr
    result = json.loads(cli(tmp_path / "teacher.safetensors", *flags, "--out", tmp_path / "b", "--json").stdout)
    assert result["taken"]["macs"] <= 20 and result["budget"]["macs"] == 20 and bits(Run.load(result["run"])) == bits(Run.load(tmp_path / "a"))
    refused = cli(tmp_path / "teacher.safetensors", "--macs", 1, "--json")
    assert refused.returncode == DoesNotFit.exit_code and json.loads(refused.stdout)["error"] == "DoesNotFit"


def test_a_profile_that_the_policy_was_made_for_is_what_commands_take(run: Run, tmp_path: Path) -> None:
    stranger = dataclasses.replace(run.policy, origin=run.policy.origin | {"profile": 7})
    stranger.save(tmp_path / "p.safetensors")
    assert task_of(run.path).profile == run.policy.origin["profile"] and task_of(tmp_path / "p.safetensors").profile == "int8"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), [("servo", 100_000), ("cartpole", 60_000)])
def test_a_tenth_of_the_products_keeps_the_return(name: str, steps: int, tmp_path: Path) -> None:
    teacher = train(name, steps=steps, out=tmp_path / "teacher")
    settings = DistilSettings(students=2, profiles=("int8",), rounds=5, updates=300)
    macs = 64 * (teacher.policy.contract.n_observations + 64 + teacher.policy.contract.n_outputs)
    found = distil(teacher, "rp2040", macs=macs // 10, kib=4.0, us=200.0, episodes=50, out=tmp_path / "student", settings=settings)
    taken = found.result["distillation"]["taken"]
    assert taken["macs"] * 10 <= macs and taken["return_kept"] >= 0.95
    wanted = closed_loop.float_returns(envs.load(name), teacher.policy, Shield.build(teacher.policy.contract, envs.load(name).shield), 50, 99)
    student = closed_loop.play(envs.load(name), InFloat(found.policy), Shield.build(found.policy.contract, envs.load(name).shield), 50, 99)
    assert float(student.returns.mean()) >= 0.95 * float(wanted.mean()) > 100.0


def stopping(at: str, error: BaseException) -> Any:
    """A progress function that raises where a note begins like that."""

    def progress(done: int, total: int, note: str) -> None:
        if note.startswith(at):
            raise error

    return progress


def test_ctrl_c_costs_no_finished_student_and_the_same_call_goes_on(teacher: Policy, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"macs": 400, "episodes": 4, "settings": dataclasses.replace(SHORT, students=3, profiles=("int8",))}
    whole = distil(teacher, out=tmp_path / "whole", **asked)
    names = [ladder.title(tuple(row["hidden"])) for row in whole.result["distillation"]["table"]]
    assert not (whole.path / "students").exists()
    out = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        distil(teacher, out=out, progress=stopping(f"{names[0]}:", KeyboardInterrupt()), **asked)
    assert not out.exists()
    first = distil(teacher, out=out, progress=stopping(f"{names[1]}:", KeyboardInterrupt()), **asked)
    assert first.result["status"] == "interrupted" and first.summary()["interrupted"]
    about = first.result["distillation"]
    assert [ladder.title(tuple(hidden)) for hidden in about["students"]["missing"]] == names[1:] and len(about["table"]) == 1
    with pytest.raises(InvalidInput, match="the same 'puffer-edge distil' command goes on"):
        resume(out)
    with pytest.raises(RuntimeError):  # a process that dies, later
        distil(teacher, out=out, progress=stopping(f"{names[2]}:", RuntimeError()), **asked)
    seen: list[str] = []
    run = distil(teacher, out=out, progress=lambda done, total, note: seen.append(note), **asked)
    assert [note for note in seen if "round" in note] == [f"{names[2]}: round {k} of 2" for k in (1, 2)]
    assert bits(run) == bits(whole) and run.result["status"] == "complete" and not (tmp_path / "parts.1").exists() and not (out / "students").exists()
    theirs = whole.result["distillation"]
    assert run.result["distillation"] == theirs | {"students": {"finished_before": 2, "missing": []}} and run.result["steps"] == whole.result["steps"]
    assert run.metrics() == whole.metrics()


def test_another_question_takes_no_student_of_the_first(teacher: Policy, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"macs": 400, "episodes": 2, "settings": dataclasses.replace(SHORT, students=2, rounds=1, profiles=("int8",))}
    names: list[str] = []
    distil(teacher, out=tmp_path / "whole", progress=lambda done, total, note: names.append(note.split(":")[0]), **asked)
    out, last = tmp_path / "parts", names[-1]
    distil(teacher, out=out, progress=stopping(f"{last}:", KeyboardInterrupt()), **asked)
    other = distil(teacher, out=out, seed=1, **asked)
    assert other.result["distillation"]["students"]["finished_before"] == 0 and Run.load(tmp_path / "parts.1").result["status"] == "interrupted"
    for file in (tmp_path / "parts.1" / "students").rglob("*.json"):
        file.write_text(file.read_text()[:40])  # cut: it is trained again
    (tmp_path / "parts.1").rename(tmp_path / "cut")
    assert bits(distil(teacher, out=tmp_path / "cut", **asked)) == bits(Run.load(tmp_path / "whole"))


def test_a_full_disk_leaves_what_is_finished(teacher: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"macs": 400, "episodes": 2, "settings": dataclasses.replace(SHORT, students=2, rounds=1, profiles=("int8",))}
    write, written = finished.write_atomic, []

    def full(path: Path, data: str) -> None:
        if written:
            raise OSError(28, "No space left on device")
        written.append(path)
        write(path, data)

    monkeypatch.setattr(finished, "write_atomic", full)
    with pytest.raises(WriteFailed, match=r"No space left on device; 1 are finished and stay there"):
        distil(teacher, out=tmp_path / "run", **asked)
    monkeypatch.undo()
    assert distil(teacher, out=tmp_path / "run", **asked).result["distillation"]["students"]["finished_before"] == 1
