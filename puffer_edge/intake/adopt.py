"""A policy from elsewhere becomes a run: which reader a file needs, which contract its numbers get, and the folder that is written."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from shlex import quote

from puffer_edge import envs
from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.files import write_atomic
from puffer_edge.intake import contract_toml, layout, onnx, sb3, tensors
from puffer_edge.intake.archives import Archive, read_bounded, sha256
from puffer_edge.intake.draft import Draft, assemble
from puffer_edge.intake.normalizers import read_normalizer
from puffer_edge.intake.observations import read_observations, write_observations
from puffer_edge.intake.sources import Sources
from puffer_edge.policy import Policy

NONE = "none"
"""What is given in place of a normaliser's file to say that there was none."""
RLTOOLS = (
    "RLtools documents no format of its checkpoints; their layout is what its C++ source writes. Export the actor as ONNX, or write its "
    "weights as safetensors and import these with --layout"
)


def adopt(sources: Sources, out: str | os.PathLike[str]) -> tuple[Policy, tuple[str, ...]]:
    """Read a policy from elsewhere and write it as a run.

    Args:
        sources: its files.
        out: the run's folder: ``policy.safetensors``, and ``observations.npz`` where some were given.

    Returns:
        The policy, and what whoever imports it has to hear.

    Raises:
        InvalidInput: a file is missing, damaged or contradicts another; or something only its owner knows is missing, and then a
            template for that is in ``out`` and the message says how to go on.
        Unsupported: the network has a part that no device here can run.
    """
    folder = Path(out)
    if any((folder / name).exists() for name in ("settings.toml", "settings.json")):
        raise InvalidInput(f"{folder} holds a training of this package: import into another folder")
    if sources.environment is not None and sources.contract is not None:
        raise InvalidInput("give --env or --contract, not both: each says what the numbers mean")
    draft = read_draft(sources, folder)
    draft.check_size()
    if sources.environment is not None:
        contract = envs.load(sources.environment).contract
    elif sources.contract is not None:
        contract = contract_toml.read_contract(sources.contract)
    else:
        raise InvalidInput(_ask_for_contract(draft, sources, folder))
    policy, notes = assemble(draft, contract, sources.environment)
    seen = read_observations(sources.observations, policy.contract.n_observations) if sources.observations else None
    policy.save(folder / "policy.safetensors")
    if seen is not None:
        write_observations(folder, **seen)
    return policy, notes


def read_draft(sources: Sources, folder: Path) -> Draft:
    """The network of a file, with the normaliser that belongs to it.

    Args:
        sources: the files; environment, contract and observations are not looked at.
        folder: where a template goes if the file needs a layout.
    """
    data = read_bounded(sources.model)
    draft = _read(data, sources, folder)
    origin = dict(draft.origin) | {"file": Path(sources.model).name, "sha256": sha256(data)}
    return _with_normalizer(replace(draft, origin=origin), sources)


def _read(data: bytes, sources: Sources, folder: Path) -> Draft:
    """By content, not by ending: an ending is what people change."""
    what = os.fspath(sources.model)
    if data[:8] == b"\x89HDF\r\n\x1a\n":
        raise Unsupported(f"{what} is an HDF5 file (RLtools, Keras): {RLTOOLS}")
    if data[:4] == b"PK\x03\x04":
        archive = Archive(data, what)
        if sb3.is_sb3(archive):
            return sb3.read(archive)
        return layout.read(tensors.read_torch(data, what), sources, folder)
    if tensors.is_tensors(data):
        return layout.read(tensors.read_tensors(data, what), sources, folder)
    return onnx.read(data, what, sources.output)


def _with_normalizer(draft: Draft, sources: Sources) -> Draft:
    """The draft with the normaliser that was given for it, or a question where one is missing."""
    given, before = sources.normalizer, draft.origin.get("vec_normalize")
    if given is None:
        if before:
            raise InvalidInput(
                f"{sources.model} was trained behind a VecNormalize, whose statistics are in a file of their own: give it with --normalizer FILE "
                f"(VecNormalize.save wrote it), or say --normalizer {NONE} if it left observations alone (norm_obs=False)"
            )
        if before is None and draft.normalizer is None:
            note = "no normaliser: if the training normalised observations (VecNormalize, NormalizeObservation), give it with --normalizer"
            return replace(draft, notes=(*draft.notes, note))
        return draft
    if given == NONE:
        return draft
    found = read_normalizer(given, draft.parts)
    if found is None:
        return replace(draft, notes=(*draft.notes, f"{given} says norm_obs=False: observations go in as they are"))
    if draft.normalizer is not None:
        raise InvalidInput(f"the model has a normaliser of its own: leave out --normalizer {given}, or say --normalizer {NONE}")
    if len(found.mean) != draft.n_observations:
        raise InvalidInput(f"{given} normalises {len(found.mean)} observations, the model takes {draft.n_observations}: it belongs to another model")
    notes = draft.notes if before is not False else (*draft.notes, "the model says that no VecNormalize was there when it was trained; one was given")
    about = {"file": Path(given).name, "sha256": sha256(read_bounded(given))}
    return replace(draft, normalizer=found, notes=notes, origin={**draft.origin, "normalizer": about})


def _ask_for_contract(draft: Draft, sources: Sources, folder: Path) -> str:
    """Write a template, unless one is there that somebody may be filling in, and say how to go on."""
    path = folder / "contract.toml"
    there = path.exists()
    if not there:
        write_atomic(path, contract_toml.template(draft))
    return (
        f"what do the {draft.n_observations} observations and the outputs of this {draft.source} mean? "
        f"{'There is a contract at' if there else 'A template is in'} {path}: fill in units, ranges, rate and safe outputs, "
        f"then: {sources.command(contract=path)} --out {quote(str(folder))} (or --env NAME for an environment of ours)"
    )
