"""What a tick costs on a target: the work in it, times the price of each kind of work on a core, from ``targets/cores``.

Nothing here was timed on a board unless a price is labelled ``measured``. ``emulated``: cycles of an emulator that knows the chip.
``modelled``: instructions counted or estimated, and cycles computed from them. A prediction has the weakest label among its prices.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

from puffer_edge import find
from puffer_edge.device.target import Target
from puffer_edge.device.work import KINDS, Work
from puffer_edge.errors import InvalidInput

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = "puffer_edge.targets.cores"
LABELS = ("measured", "emulated", "modelled")
"""From the strongest to the weakest."""
ENGINES = ("c", "micropython")
SHARE = 0.5
"""Of a period, the part that a tick may take: the rest is for sensors, actuators, the link and what no model knows."""


@dataclass(frozen=True)
class Price:
    """What one unit of a kind of work costs.

    Attributes:
        cycles: of the core.
        label: "measured", "emulated" or "modelled".
        source: how it is known.
    """

    cycles: float
    label: str
    source: str


@dataclass(frozen=True)
class Core:
    """A core's prices.

    Attributes:
        name: name of its file.
        title: name for people.
        prices: by engine and kind of work.
        code_bytes: flash of the engine itself, by engine, where it is known.
        mpy: what mpy-cross calls its machine code; empty where MicroPython has none for it.
    """

    name: str
    title: str
    prices: dict[str, dict[str, Price]]
    code_bytes: dict[str, int]
    mpy: str = ""


@dataclass(frozen=True)
class Prediction:
    """A tick on a target.

    Attributes:
        engine: "c" or "micropython".
        clock_mhz: of the core.
        cycles: predicted, with everything that the flash cache can hold in it.
        cold_cycles: predicted, where every line of code and weights that comes from flash is fetched anew; the same without such a cache.
        label: the weakest of the prices.
        parts: cycles by kind of work.
    """

    engine: str
    clock_mhz: int
    cycles: float
    cold_cycles: float
    label: str
    parts: dict[str, float]

    @property
    def us(self) -> float:
        """Predicted microseconds, the flash cache warm."""
        return self.cycles / self.clock_mhz

    @property
    def cold_us(self) -> float:
        """Predicted microseconds, the flash cache cold: what a deadline is compared with."""
        return self.cold_cycles / self.clock_mhz

    def share(self, rate_hz: float) -> float:
        """Part of a period that the tick takes, the flash cache cold."""
        return self.cold_us * rate_hz / 1e6

    def summary(self, rate_hz: float) -> dict[str, Any]:
        """As the manifest holds it."""
        return {
            "engine": self.engine,
            "clock_mhz": self.clock_mhz,
            "cycles": round(self.cycles),
            "us": round(self.us, 1),
            "cold_us": round(self.cold_us, 1),
            "label": self.label,
            "share_of_period": round(self.share(rate_hz), 4),
        }


def names() -> tuple[str, ...]:
    """Every core there is."""
    return find.names(PACKAGE, ".toml")


def load(name: str) -> Core:
    """Read a core.

    Raises:
        InvalidInput: there is no such core, or its file has a missing, unknown or wrong field.
    """
    path = find.folder(PACKAGE) / f"{find.choose('core', name, names())}.toml"
    return parse(name, path.read_text("utf-8"))


def parse(name: str, text: str) -> Core:
    """Build a core from the text of its file: a title, perhaps ``mpy``, a table an engine: ``label``, ``source``, ``code_bytes``, prices.

    A price is a number, which has the table's label and source, or a table ``{ cycles, label, source }`` of its own.

    Raises:
        InvalidInput: the text is no TOML, or a field is missing, unknown or wrong.
    """
    where = f"the core file {name}.toml"
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{where} is no TOML: {error}") from None
    title, mpy = table.pop("title", None), table.pop("mpy", "")
    if (
        not isinstance(title, str)
        or not isinstance(mpy, str)
        or not table
        or not set(table) <= set(ENGINES)
        or not all(isinstance(part, dict) for part in table.values())
    ):
        raise InvalidInput(f"{where} holds a title and a table for some of {', '.join(ENGINES)}, not {', '.join(table) or 'nothing'}")
    sizes = {engine: part.pop("code_bytes") for engine, part in table.items() if "code_bytes" in part}
    if not all(isinstance(size, int) and size > 0 for size in sizes.values()):
        raise InvalidInput(f"{where}: code_bytes is a positive number of bytes")
    return Core(name, title, {engine: _prices(part, f"[{engine}] of {where}") for engine, part in table.items()}, sizes, mpy)


def _prices(part: dict[str, Any], where: str) -> dict[str, Price]:
    label, source = part.pop("label", None), part.pop("source", None)
    found = {}
    for kind, value in part.items():
        row = value if isinstance(value, dict) else {"cycles": value, "label": label, "source": source}
        if kind not in KINDS or set(row) != {"cycles", "label", "source"}:
            raise InvalidInput(f"{where}: {kind} is no kind of work, or its price is neither a number nor {{ cycles, label, source }}")
        cycles = row["cycles"]
        if not isinstance(cycles, (int, float)) or not 0 <= cycles < 1e6 or row["label"] not in LABELS or not isinstance(row["source"], str):
            raise InvalidInput(f"{where}: {kind} costs {cycles!r} cycles, {row['label']!r}; a price is 0 … 1,000,000 and {', '.join(LABELS)}")
        found[kind] = Price(float(cycles), row["label"], row["source"])
    missing = [kind for kind in ("tick", "observation", "action", "operation", "mac_int8", "requantise", "shield") if kind not in found]
    if missing:
        raise InvalidInput(f"{where} lacks the price of {', '.join(missing)}")
    return found


def predict(target: Target, done: Work, engine: str, program_bytes: int) -> Prediction | None:
    """Price a tick.

    Args:
        target: the board.
        done: the work.
        engine: "c" or "micropython".
        program_bytes: weights and tables, which a tick reads once.

    Returns:
        None where the target has no core, or the core no price for a kind of work that is done.
    """
    if not target.core or not target.clock_mhz:
        return None
    core = load(target.core)
    prices = core.prices.get(engine)
    if engine == "c" and target.firmware != "c":  # the bundle's C sources come with the shield printed, what a link installs is bytecode
        done = replace(done, shield=0, printed=done.shield)
    used = {kind: count for kind in KINDS if (count := getattr(done, kind))}
    if prices is None or not set(used) <= set(prices):
        return None
    parts = {kind: count * prices[kind].cycles for kind, count in used.items()}
    label = max((prices[kind].label for kind in used), key=LABELS.index)
    cycles = cold = sum(parts.values())
    if target.flash_cache and engine == "c" and target.firmware != "c":  # our own firmware runs from RAM
        lines = -(-(program_bytes + core.code_bytes.get(engine, 0)) // target.flash_cache.line_bytes)
        cold = cycles + lines * target.flash_cache.miss_cycles
        cycles = cycles if program_bytes <= 1024 * target.flash_cache.kib else cold
        label = LABELS[-1]
    return Prediction(engine, target.clock_mhz, cycles, cold, label, parts)


def engines(target: Target) -> tuple[str, ...]:
    """Engines that a target may run, the one of its firmware first."""
    own = "micropython" if target.firmware == "micropython" else "c"
    return (own, *(name for name in ENGINES if name != own and name in target.formats))
