"""The files of a bundle that the runner uses, each compared with its digest in the manifest."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FACTS = "linux/runner.json"
MAX_BYTES = 256 << 20


class BadBundle(Exception):
    """The argument says what is wrong, and the way out."""


@dataclass(frozen=True)
class Bounds:
    """How far a float engine may be from the program in the self-test.

    Attributes:
        action: largest difference of each action, in its fixed-point units; empty for policies that choose.
        flips: share of the steps in which another choice may be made, for policies that choose.
    """

    action: tuple[int, ...]
    flips: float

    @property
    def discrete(self) -> bool:
        """The policy chooses."""
        return not self.action


class Bundle:
    """A bundle's folder; without a manifest there is none, and ``target`` alone has a meaning.

    Args:
        folder: where ``manifest.json`` lies.

    Raises:
        BadBundle: the manifest or ``runner.json`` cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.target, self.program = "linux", b""
        self.models: dict[str, str] = {}
        self.bounds = Bounds((), 0.0)
        self._entries: Any = {}
        self.there = (folder / "manifest.json").is_file()
        if not self.there:
            return
        try:
            self._entries = json.loads((folder / "manifest.json").read_text("utf-8"))["files"]
            facts = json.loads(self.read(FACTS))
            self.target, self.program = str(facts["target"]), bytes.fromhex(facts["program"])
            self.models = {str(k): str(v) for k, v in facts["models"].items()}
            self.bounds = Bounds(tuple(int(v) for v in facts["bounds"]["action"]), float(facts["bounds"]["flips"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadBundle(f"the bundle at {folder} cannot be used ({type(error).__name__}: {error}): export it again") from None

    def model(self, kind: str) -> str:
        """The name of a model's file, or nothing where the bundle was exported without it."""
        name = self.models.get(kind, "")
        return name if name in self._entries else ""

    def read(self, name: str) -> bytes:
        """A file of the bundle.

        Raises:
            BadBundle: it is not listed, missing, or not the one that was exported.
        """
        entry = self._entries.get(name)
        if not isinstance(entry, dict):
            raise BadBundle(f"the bundle at {self.folder} has no {name}: export it with a target that has the Linux runner")
        path = self.folder / name
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            raise BadBundle(f"{path} is missing or too large: copy the whole bundle again")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != entry.get("sha256"):
            raise BadBundle(f"{path} is not the file that was exported (its SHA-256 differs): copy the bundle again")
        return data
