"""compare: two policies side by side before one replaces the other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table

from puffer_edge.commands.console import OUT, WIDE, Flag, Folder, show_result
from puffer_edge.commands.sources import EVALUATION_SEED, check_episodes, plant_of, task_of

Second = Annotated[Path, tyro.conf.Positional]


def compare(
    a: Folder,
    b: Second,
    profile: str | None = None,
    episodes: int = 64,
    seed: int = EVALUATION_SEED,
    observations: Path | None = None,
    json: Flag = False,
) -> None:
    """Compare two policies: how far their actions are apart, how often a choice flips, and their returns from the same starts.

    Each is a run folder, a policy.safetensors or a bundle; a bundle is taken as the integers it holds, a run is put into integers
    first. Actions are compared on what the first one sees in its own rollouts, and on what the second sees in its.

    Args:
        a: the policy that is there.
        b: the policy that shall replace it.
        profile: of the integers that a run becomes: int8, int16x8, int4 or shift; not given, that which it was made for, or int8.
        episodes: episodes of each for the returns, and for the observations.
        seed: of the start states.
        observations: .npy or .npz of physical observations to compare on, in place of rollouts.
        json: print the result as JSON.
    """
    from puffer_edge.envs import closed_loop
    from puffer_edge.integer.compare import comparable, diverge

    check_episodes(episodes, seed)
    first, second = (_loaded(path, profile) for path in (a, b))
    comparable(first.program.contract, second.program.contract)
    result: dict[str, Any] = {"a": str(a), "b": str(b), "divergence": {}}
    env = first.environment or second.environment
    if observations is not None:
        from puffer_edge.intake.observations import read_observations

        seen, starts = read_observations(observations, first.program.contract.n_observations).values()
        places = {observations.name: (first.program.contract.observe(seen)[0], starts)}
    elif env is not None:
        runs = {name: closed_loop.play(env, one.program, one.shield, episodes, seed) for name, one in (("a", first), ("b", second))}
        places = {f"rollouts of {name}": found.calibration() for name, found in runs.items()}
        result["returns"] = {name: found.summary(one.shield.stages) for (name, found), one in zip(runs.items(), (first, second))}
        result["return_difference"] = closed_loop.difference(runs["a"], runs["b"])
    else:
        found = task_of(a)
        places = {found.calibrated: (first.program.contract.observe(found.observations)[0], found.starts)}
    for place, (ints, starts) in places.items():
        result["divergence"][place] = diverge(first.program, second.program, ints, starts).summary()
    show_result(json, result, lambda: _show(result))


class _Loaded:
    """A policy in integers, from a run or a bundle."""

    def __init__(self, program: Any, shield: Any, environment: Any) -> None:
        self.program, self.shield, self.environment = program, shield, environment


def _loaded(path: Path, profile: str | None) -> _Loaded:
    from puffer_edge.device.bundle import MANIFEST, Bundle
    from puffer_edge.integer.quantize import quantize

    if (path / MANIFEST).is_file():
        bundle = Bundle.load(path)
        return _Loaded(bundle.image.program, bundle.image.shield, plant_of(bundle))
    task = task_of(path)
    program = quantize(task.policy, task.observations, task.starts, profile or task.profile)
    return _Loaded(program, task.shield, task.environment)


def _show(result: dict[str, Any]) -> None:
    for place, found in result["divergence"].items():
        OUT.print(f"{place}: {found['observations']:,} observations, {found['flips']:.2%} flips")
        table = Table("  action", "identical", "median", "99 % below", "most", "(shares of its range)", box=None, pad_edge=False)
        for name, row in found["actions"].items():
            table.add_row(f"  {name}", f"{row['identical']:.1%}", f"{row['median']:.3%}", f"{row['p99']:.2%}", f"{row['max']:.2%}", "")
        WIDE.print(table)
    for name, row in result.get("returns", {}).items():
        OUT.print(
            f"return of {name}: {row['return']:.2f} (95 % interval {row['interval'][0]:.2f} … {row['interval'][1]:.2f}), cost {row['cost']:.2f}"
        )
    if "return_difference" in result:
        d = result["return_difference"]
        OUT.print(f"b − a from the same starts: {d['mean']:+.3f} (95 % interval {d['low']:+.3f} … {d['high']:+.3f})")
