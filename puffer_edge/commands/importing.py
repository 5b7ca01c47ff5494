"""import: a policy from elsewhere becomes a run."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import tyro

from puffer_edge.commands.console import OUT, SIDE, Flag, show_result


def import_policy(
    file: Annotated[Path, tyro.conf.Positional],
    out: Path,
    normalizer: str | None = None,
    env: str | None = None,
    contract: Path | None = None,
    layout: Path | None = None,
    observations: Path | None = None,
    output: str | None = None,
    json: Flag = False,
) -> None:
    """Make a run of a policy that was trained elsewhere.

    Reads models of Stable-Baselines3 and sb3-contrib (.zip), state dicts of torch and CleanRL, safetensors, and float ONNX graphs, by
    their content. Nothing in a file is run. What only you know (units, ranges, rate, safe outputs) is asked for in a template.

    Args:
        file: the model.
        out: folder of the run; export takes it from there.
        normalizer: VecNormalize's file, or a .npz with mean and var; 'none' says that there was no normaliser.
        env: an environment of ours that it was trained for: its contract and shield; 'puffer-edge envs' lists them.
        contract: what the observations and actions mean, as TOML; a template is written where it is missing.
        layout: which tensors are the actor, as TOML, for files that hold tensors alone; a template is written where it is missing.
        observations: .npy or .npz of physical observations to calibrate on; kept in the run.
        output: for ONNX: the output that drives, where a graph has several.
        json: print the result as JSON.
    """
    from puffer_edge.intake.adopt import adopt
    from puffer_edge.intake.sources import Sources

    policy, notes = adopt(Sources(file, normalizer, env, contract, layout, observations, output), out)
    c = policy.contract
    result = {
        "run": str(out),
        "name": c.name,
        "observations": c.n_observations,
        "actions": c.n_actions,
        "head": c.head,
        "memory": policy.memory,
        "layers": [type(layer).__name__ for layer in policy.layers],
        "origin": policy.origin,
        "notes": list(notes),
    }

    def show() -> None:
        what = policy.origin.get("algorithm", policy.origin["format"])
        OUT.print(f"imported {what}: {c.n_observations} observations, {c.n_actions} actions ({c.head}), {len(policy.layers)} layers")
        OUT.print(f"  saved in {out}")
        OUT.print(f"next: puffer-edge export {quote(str(out))} --target esp32 --out build/{c.name}-esp32")

    for note in notes:
        SIDE.print(note, style="yellow")
    show_result(json, result, show)
