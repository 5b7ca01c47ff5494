"""Contracts as TOML: templates, fields that are asked for by line, and defaults that fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puffer_edge.contract import Contract
from puffer_edge.errors import ContractError, InvalidInput, PufferEdgeError
from puffer_edge.intake.contract_toml import read_contract, template
from puffer_edge.intake.draft import Draft
from puffer_edge.policy import Layer, Normalizer

GOOD = """
name = "servo"
head = "tanh"
rate_hz = 100
[[observations]]
name = "tilt"
unit = "rad"
low = -1.0
high = 1.0
[[observations]]
name = "field"
unit = "T"
low = -1e-4
high = 1e-4
[[observations]]
name = "pressure"
unit = "Pa"
low = 0
high = 200000
[[actions]]
name = "pulse"
unit = "us"
low = 1000
high = 2000
safe = 1500
"""


def read(folder: Path, text: str) -> Contract:
    (folder / "c.toml").write_text(text)
    return read_contract(folder / "c.toml")


def draft(head: str | None, n: int = 2, m: int = 2, **more: Any) -> Draft:
    return Draft("a test", (Layer(np.zeros((m, n)), np.zeros(m), "none"),), head, **more)


def test_defaults_fit_the_ranges(tmp_path: Path) -> None:
    c = read(tmp_path, GOOD)
    assert [ch.fraction_bits for ch in c.observations] == [16, 25, 12] and c.actions[0].initial == 1500 and c.actions[0].fraction_bits == 16
    assert read(tmp_path, GOOD.replace('"T"', '"T"\nfraction_bits = 30')).observations[1].fraction_bits == 30


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("rate_hz = 100", "", r"c\.toml: rate_hz is missing: how often"),
        ("rate_hz = 100", 'rate_hz = "?"', r"c\.toml, line 4: rate_hz is still '\?'"),
        ("high = 1e-4", 'high = "?"', r"line 14: observations\[1\]\.high is still '\?': the highest value"),
        ("high = 1e-4", "", r"line 10: observations\[1\]\.high is missing"),
        ('unit = "Pa"', 'unit = "Pa"\ncolour = 1', r"line 18: observations\[2\]\.colour is not a field of a contract; known here: name, unit"),
        ("safe = 1500", "", r"actions\[0\]\.safe is missing: the output while disarmed"),
        ("safe = 1500", "safe = nan", r"actions\[0\]\.safe must be a finite number, not nan"),
        ("low = 1000", 'low = "much"', r"actions\[0\]\.low must be a finite number, not 'much'"),
        ("rate_hz = 100", "rate_hz = true", "rate_hz must be a finite number, not True"),
        ('name = "servo"', "name = 1979-05-27", "no use for"),
        ('head = "tanh"', 'head = "soft"', r"c\.toml: unknown head 'soft'"),
        ("[[actions]]", "[actions]", "each under"),
        ("rate_hz = 100", "rate_hz = = 100", r"is not TOML: .*line 4"),
        ('name = "servo"', 'name = "servo"\ndepth = ' + "[" * 5000, "is not TOML"),
    ],
)
def test_messages_name_the_line_and_the_field(old: str, new: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=match):
        read(tmp_path, GOOD.replace(old, new))


def test_fields_that_contradict(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"c\.toml: safe of pulse is 2500, outside"):
        read(tmp_path, GOOD.replace("safe = 1500", "safe = 2500"))
    with pytest.raises(InvalidInput, match="there is no file"):
        read_contract(tmp_path / "absent.toml")
    (tmp_path / "big.toml").write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(InvalidInput, match=r"larger than 1\.0 MiB"):
        read_contract(tmp_path / "big.toml")


def filled(text: str, head: str) -> str:
    """A template as somebody would complete it."""
    lines = []
    for line in text.splitlines():
        key = line.split("=")[0].strip()
        value = {"name": '"task"', "head": f'"{head}"', "unit": '"1"', "rate_hz": "50.0", "low": "-1.0", "high": "1.0", "safe": "0.0"}.get(key)
        lines.append(f"{key} = {value}" if value and '"?"' in line else line.replace('"?"', "0.5"))
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("drafted", "head", "outputs"),
    [
        (draft("clip", action_low=np.array([-1.0, -2.0]), action_high=np.array([1.0, 2.0])), "clip", 2),
        (draft("tanh"), "tanh", 2),
        (draft(None), "clip", 2),
        (draft("discrete", m=3, choices=(3,)), "discrete", 3),
        (draft("multi_discrete", m=5, choices=(2, 3)), "multi_discrete", 5),
        (draft("tanh", names=("speed", "place"), normalizer=Normalizer(np.zeros(2), np.ones(2))), "tanh", 2),
        (draft("tanh", observation_low=np.array([-np.inf, -4.8]), observation_high=np.array([np.inf, 4.8])), "tanh", 2),
    ],
)
def test_a_template_is_open_until_it_is_filled(drafted: Draft, head: str, outputs: int, tmp_path: Path) -> None:
    text = template(drafted)
    with pytest.raises(InvalidInput, match=r"line \d+: name is still"):
        read(tmp_path, text)
    c = read(tmp_path, filled(text, head))
    assert c.head == head and c.n_observations == 2 and c.n_outputs == outputs
    if drafted.names:
        assert [ch.name for ch in c.observations] == ["speed", "place"] and "saw 0 ± 1" in text
    if drafted.observation_low is not None:
        assert c.observations[1].high == 4.8 and "low = -4.8   # as the training declared it" in text


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=300), st.integers(0, len(GOOD)))
def test_any_text_gives_a_contract_or_a_clear_error(tmp_path_factory: pytest.TempPathFactory, text: str, at: int) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "any.toml").write_bytes((GOOD[:at] + text + GOOD[at:]).encode())
    try:
        read_contract(folder / "any.toml")
    except PufferEdgeError as error:
        assert len(str(error)) < 2000
