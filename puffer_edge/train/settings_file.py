"""Settings as TOML: presets, a user's file, and what a run keeps; each layer over the one before it.

    preset of the environment < the user's file < flags of the command line, or ``dataclasses.replace``

A file has one table for each algorithm::

    [ppo]
    steps = 200_000
    hidden = [32, 32]
    target_kl = "none"      # TOML has no null: "none" where a setting may be None

What a file leaves out comes from the layer below. A run's own ``settings.toml`` is such a file too: what it says about that run
(environment, seed, shield, plant, versions) is not read as a setting.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, overload

from puffer_edge import find
from puffer_edge.errors import InvalidInput
from puffer_edge.intake.contract_toml import load_toml
from puffer_edge.train.constraint import PIDLagrangianSettings, PPOLagrangianSettings
from puffer_edge.train.distillation.settings import DistilSettings
from puffer_edge.train.sac_settings import DiscreteSACSettings, SACSettings
from puffer_edge.train.settings import PPOSettings, Settings
from puffer_edge.train.trust_region_settings import CPOSettings, TRPOLagrangianSettings, TRPOSettings

PRESETS = "puffer_edge.train.presets"
ABOUT_A_RUN = ("format", "environment", "algorithm", "seed", "shield", "plant", "versions")
"""Keys of a run's file that are no settings."""
ALGORITHMS: dict[str, type[Settings]] = {
    "ppo": PPOSettings,
    "sac": SACSettings,
    "discrete-sac": DiscreteSACSettings,
    "trpo": TRPOSettings,
    "ppo-lagrangian": PPOLagrangianSettings,
    "pid-lagrangian": PIDLagrangianSettings,
    "trpo-lagrangian": TRPOLagrangianSettings,
    "cpo": CPOSettings,
}
"""The settings of each algorithm."""
TABLES: dict[str, type[Settings] | type[DistilSettings]] = {**ALGORITHMS, "distil": DistilSettings}
"""The settings of everything that writes a run."""
NONE = "none"
_OPTIONAL = {name: {f.name for f in dataclasses.fields(kind) if "None" in str(f.type)} for name, kind in TABLES.items()}


def preset_names() -> tuple[str, ...]:
    """The environments that have a preset: the files of ``puffer_edge/train/presets``."""
    return find.names(PRESETS, ".toml")


@overload
def preset(environment: str, algorithm: Literal["ppo"] = "ppo") -> PPOSettings: ...
@overload
def preset(environment: str, algorithm: str) -> Settings: ...
def preset(environment: str, algorithm: str = "ppo") -> Settings:
    """Settings for an environment: its preset, or the defaults where it has none for the algorithm. One that is made of another starts
    from that one's.

    Raises:
        InvalidInput: an unknown algorithm.
    """
    kind, file = ALGORITHMS[find.choose("algorithm", algorithm, ALGORITHMS)], find.folder(PRESETS) / f"{environment}.toml"
    values: dict[str, Any] = {}
    if environment in preset_names():
        tables = load_toml(file)[0]
        for name, base in ALGORITHMS.items():
            values |= read_settings(file, name) if name in tables and issubclass(kind, base) else {}
    return kind.from_dict(values)


@overload
def settings_for(
    environment: str,
    file: str | os.PathLike[str] | None = None,
    algorithm: Literal["ppo"] = "ppo",
    changes: Mapping[str, Any] | None = None,
) -> PPOSettings: ...
@overload
def settings_for(environment: str, file: str | os.PathLike[str] | None, algorithm: str, changes: Mapping[str, Any] | None = None) -> Settings: ...
def settings_for(
    environment: str, file: str | os.PathLike[str] | None = None, algorithm: str = "ppo", changes: Mapping[str, Any] | None = None
) -> Settings:
    """Resolve settings: preset, then the user's file, then single changes.

    Args:
        environment: name; decides the preset.
        file: the user's TOML.
        algorithm: whose settings, and which table of the file.
        changes: by name, as from the command line.

    Raises:
        InvalidInput: no such file, no TOML, a key that no setting has (the message lists those there are), or a value out of range.
    """
    below = preset(environment, algorithm)
    values = below.to_dict() | (read_settings(file, algorithm) if file is not None else {}) | dict(changes or {})
    return type(below).from_dict(values)


def read_settings(file: str | os.PathLike[str], algorithm: str = "ppo") -> dict[str, Any]:
    """The settings that a file gives for one algorithm, by name.

    Raises:
        InvalidInput: no such file, no TOML, an unknown table or key.
    """
    data, _ = load_toml(file)
    unknown = sorted(set(data) - {*TABLES, *ABOUT_A_RUN})
    if unknown:
        hint = f" (a setting goes under [{algorithm}])" if set(unknown) & _names(algorithm) else ""
        raise InvalidInput(f"{os.fspath(file)} has {', '.join(unknown)}, which is no table of settings{hint}: there is [{'], ['.join(ALGORITHMS)}]")
    table = data.get(algorithm)
    if not isinstance(table, dict):
        raise InvalidInput(f"{os.fspath(file)} has no table [{algorithm}]")
    strange = sorted(set(table) - _names(algorithm))
    if strange:
        known = ", ".join(f.name for f in dataclasses.fields(TABLES[algorithm]))
        raise InvalidInput(f"{os.fspath(file)}: {algorithm} has no setting {', '.join(strange)}: it has {known}")
    return {key: None if value == NONE and key in _OPTIONAL[algorithm] else value for key, value in table.items()}


def format_settings(about: Mapping[str, Any], algorithm: str, settings: Mapping[str, Any]) -> str:
    """A run's ``settings.toml``: what it was, and every setting with its value, defaults too.

    Args:
        about: plain values by ``ABOUT_A_RUN``.
        algorithm: name of the table.
        settings: plain values by name.
    """
    plain = [f"{key} = {_value(value)}" for key, value in about.items() if not isinstance(value, (dict, list))]
    lines = ["# What this run was trained with: every setting, also those that nobody chose.", *plain]
    for key, value in about.items():
        if isinstance(value, dict) and value:
            lines += ["", f"[{key}]", *(f"{_key(name)} = {_value(item)}" for name, item in value.items())]
    lines += ["", f"[{algorithm}]", *(f"{_key(name)} = {_value(item)}" for name, item in settings.items())]
    for key, value in about.items():
        for table in value if isinstance(value, list) else ():
            lines += ["", f"[[{key}]]", *(f"{_key(name)} = {_value(item)}" for name, item in table.items())]
    return "\n".join(lines) + "\n"


def read_run(file: Path, newest: int) -> dict[str, Any]:
    """A run's ``settings.toml``: what it was, and under "settings" the algorithm's.

    Args:
        file: the file.
        newest: format up to which the algorithm's settings are read.

    Raises:
        InvalidInput: it is missing, damaged, or lacks a part.
    """
    data, _ = load_toml(file)
    about = {"shield": [], "plant": {}, **{key: data[key] for key in ABOUT_A_RUN if key in data}}
    if isinstance(about.get("format"), int) and about["format"] > newest:
        return about
    if about.get("algorithm") not in TABLES:
        raise InvalidInput(f"{file} does not say by which algorithm the run was trained")
    return about | {"settings": read_settings(file, about["algorithm"])}


def _names(algorithm: str) -> set[str]:
    return {f.name for f in dataclasses.fields(TABLES[algorithm])}


def _value(value: Any) -> str:
    """A plain value as TOML."""
    if value is None:
        return f'"{NONE}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value) if math.isfinite(value) else {math.inf: "inf", -math.inf: "-inf"}.get(value, "nan")
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(str(key))} = {_value(item)}" for key, item in value.items()) + " }"
    return "[" + ", ".join(_value(item) for item in value) + "]"


def _key(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else _quoted(text)


def _quoted(text: str) -> str:
    escaped = "".join(c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}" for c in text.replace("\\", "\\\\").replace('"', '\\"'))
    return f'"{escaped}"'
