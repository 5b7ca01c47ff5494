"""The imperfections of a plant as a TOML file that people write, or that a run keeps."""

from __future__ import annotations

import os

from puffer_edge.envs.imperfections import Imperfections
from puffer_edge.errors import InvalidInput
from puffer_edge.intake.contract_toml import load_toml


def read_plant(path: str | os.PathLike[str]) -> Imperfections:
    """The imperfections in a TOML file: its keys and tables, or those under [plant], as in a run's ``settings.toml``.

    Raises:
        InvalidInput: it is missing, empty, no TOML, or has an unknown key or a value out of range.
    """
    data, _ = load_toml(path)
    if not data:
        raise InvalidInput(f"{os.fspath(path)} is empty: write what the plant has, such as delay_us = 20_000, or leave it out for an ideal one")
    try:
        return Imperfections.from_dict(data.get("plant", {} if "environment" in data else data))
    except InvalidInput as error:
        raise InvalidInput(f"{os.fspath(path)}: {error}") from None
