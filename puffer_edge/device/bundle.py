"""The bundle: everything that goes on one board, as a folder with a manifest whose digests cover every file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from puffer_edge.errors import BundleError, InvalidInput, PufferEdgeError
from puffer_edge.files import write_atomic
from puffer_edge.integer import image
from puffer_edge.integer.image import Image
from puffer_edge.integer.vectors import Vectors
from puffer_edge.policy import Policy

FORMAT = 1
MANIFEST = "manifest.json"
IMAGE = "policy.bin"
VECTORS = "vectors.bin"
POLICY = "policy.safetensors"
REQUIRED = (IMAGE, VECTORS, POLICY)
MAX_FILES = 1000
MAX_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle on disk, whole and verified.

    Attributes:
        path: its folder.
        manifest: the parsed manifest.
    """

    path: Path
    manifest: Mapping[str, Any]

    @property
    def target(self) -> str:
        """Name of the target it was made for."""
        return str(self.manifest["target"])

    @property
    def environment(self) -> str:
        """Name of the environment the policy was trained in; empty for a policy from elsewhere."""
        return str(self.manifest.get("environment", ""))

    @cached_property
    def image(self) -> Image:
        """The policy image, its bounds proved anew."""
        return image.unpack((self.path / IMAGE).read_bytes(), self.manifest["shield"]["stages"])

    @cached_property
    def vectors(self) -> Vectors:
        """All test vectors."""
        return Vectors.unpack(self.image.contract, (self.path / VECTORS).read_bytes())

    @cached_property
    def policy(self) -> Policy:
        """The float policy that the image was made from."""
        return Policy.load(self.path / POLICY)

    @property
    def unlisted(self) -> list[str]:
        """Files in the folder that the manifest does not list: nothing reads them."""
        return sorted(_content(self.path) - set(self.manifest["files"]) - {MANIFEST})

    @staticmethod
    def write(path: str | os.PathLike[str], about: Mapping[str, Any], files: Mapping[str, bytes]) -> Bundle:
        """Write a bundle: all of it, or nothing.

        Args:
            path: the folder; an earlier bundle there is replaced, but only if nothing was added to it; anything else is refused.
            about: manifest fields beside ``format`` and ``files``.
            files: content by relative path with forward slashes.

        Raises:
            InvalidInput: the path is something else than an empty folder or a bundle, or somebody's files lie in the bundle.
            OSError: disk full or no permission; what was there stays.
        """
        folder = Path(path).absolute()
        _check_replaceable(folder)
        entries = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in sorted(files.items())}
        manifest = {"format": FORMAT, **about, "files": entries}
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            for name, data in files.items():
                write_atomic(staging / name, data)
            write_atomic(staging / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")
            staging.chmod(0o755)
            _swap(staging, folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return Bundle.load(folder)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Bundle:
        """Open a bundle and verify every file.

        Raises:
            InvalidInput: there is no bundle at the path.
            BundleError: a listed file is missing or changed, or the bundle is from a newer version.
        """
        folder = Path(path)
        if not (folder / MANIFEST).is_file():
            raise InvalidInput(f"there is no bundle at {folder} (no {MANIFEST}): make one with 'puffer-edge export'")
        try:
            manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
            version = manifest["format"]
        except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
            raise BundleError(f"the manifest of {folder} cannot be read: {error}") from None
        if not isinstance(version, int) or version > FORMAT:
            raise BundleError(f"the bundle has format {version}, this version reads up to {FORMAT}: upgrade puffer-edge")
        _verify(folder, manifest)
        bundle = Bundle(folder, manifest)
        _cross_check(bundle)
        return bundle


def _check_replaceable(folder: Path) -> None:
    """Raise unless writing a bundle to the path can lose nothing but an earlier bundle."""
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise InvalidInput(f"{folder} exists and is no folder: choose another --out")
    if not any(folder.iterdir()):
        return
    try:
        listed = set(json.loads((folder / MANIFEST).read_text("utf-8"))["files"]) | {MANIFEST}
        if not listed >= set(REQUIRED):
            raise KeyError(REQUIRED)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InvalidInput(f"{folder} exists and is no bundle: choose another --out, or remove it") from None
    added = sorted(_content(folder) - listed)
    if added:
        raise InvalidInput(f"{folder} holds files that no export wrote ({', '.join(added[:5])}): move them away, or choose another --out")


def _content(folder: Path) -> set[str]:
    """Every file and link below a folder, by relative path."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir() or p.is_symlink()}


def _swap(staging: Path, folder: Path) -> None:
    """Put a finished folder in place; the old one goes only after the new one is there."""
    if not folder.exists():
        os.replace(staging, folder)
        return
    old = folder.parent / f".{folder.name}.old.{os.getpid()}"
    os.replace(folder, old)
    try:
        os.replace(staging, folder)
    except OSError:
        os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _verify(folder: Path, manifest: Any) -> None:
    entries = manifest.get("files")
    if not isinstance(entries, dict) or len(entries) > MAX_FILES:
        raise BundleError(f"the manifest of {folder} lists no files")
    missing = [name for name in REQUIRED if name not in entries]
    if missing:
        raise BundleError(f"the manifest of {folder} does not list {', '.join(missing)}")
    for name, entry in entries.items():
        parts = PurePosixPath(name).parts
        if name.startswith("/") or not parts or ".." in parts or "\\" in name or ":" in name:
            raise BundleError(f"the manifest of {folder} names a file outside the bundle: {name!r}")
        _verify_file(folder / name, name, entry)


def _verify_file(path: Path, name: str, entry: Any) -> None:
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"the bundle lacks {name}: export it again")
    size = path.stat().st_size
    if not isinstance(entry, dict) or size != entry.get("bytes") or size > MAX_BYTES:
        expected = entry.get("bytes") if isinstance(entry, dict) else "?"
        raise BundleError(f"{name} has {size} bytes, the manifest says {expected}: it was changed or cut; export it again")
    if hashlib.sha256(path.read_bytes()).hexdigest() != entry.get("sha256"):
        raise BundleError(f"{name} is not the file that was exported (its SHA-256 differs): export it again")


def _cross_check(bundle: Bundle) -> None:
    """The manifest's digests belong to the image, and the float policy has the same contract."""
    try:
        named = dict(bundle.manifest["digests"])
        stages = bundle.manifest["shield"]["stages"]
        if not isinstance(stages, list) or not all(isinstance(stage, str) for stage in stages) or not isinstance(bundle.manifest["target"], str):
            raise TypeError("shield stages or target")
        wrong = [key for key in ("calibration", "cost", "left_out") if not isinstance(bundle.manifest.get(key, {}), dict)]
        if wrong:
            raise TypeError(", ".join(wrong))
        held = bundle.image
        found = {"image": held.digest, "contract": held.contract.digest, "program": held.program.digest, "shield": held.shield.digest}
        differing = [key for key, digest in found.items() if named[key] != digest.hex()]
        if differing:
            raise BundleError(f"the manifest's digest of {', '.join(differing)} is not that of {IMAGE}")
        if bundle.policy.contract.digest != held.contract.digest:
            raise BundleError(f"{POLICY} and {IMAGE} have different contracts")
        _ = bundle.vectors
    except BundleError:
        raise
    except PufferEdgeError as error:
        raise BundleError(f"the bundle is inconsistent: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"the manifest of {bundle.path} is incomplete: {error}") from None
