"""train and eval: an environment becomes a policy, and its returns are looked at."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Any

from rich.table import Table

from puffer_edge.commands.console import OUT, Flag, Folder, Name, progress_bar, show_result
from puffer_edge.commands.sources import EVALUATION_SEED, check_episodes, environment_of, task_of


def train(
    environment: Name,
    steps: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    hidden: tuple[int, ...] | None = None,
    shield: bool = True,
    json: Flag = False,
) -> None:
    """Train a policy with PPO and write a run folder.

    The policy learns behind the environment's default shield, so that it meets the actuator that it will have.
    Ctrl-C stops early and keeps the best policy so far.

    Args:
        environment: name of an environment; 'puffer-edge envs' lists them.
        steps: environment steps, rounded up to whole rollouts; the preset of the environment where not given.
        seed: of everything random.
        out: folder of the run; runs/ENVIRONMENT-SEED where not given. A run that is there already is kept as FOLDER.1, FOLDER.2 …
        hidden: widths of the hidden layers, for example --hidden 32 32.
        shield: train behind the default shield (--no-shield: without any).
        json: print the result as JSON.
    """
    from puffer_edge import envs
    from puffer_edge.train import preset
    from puffer_edge.train import train as run_training

    env = envs.load(environment)
    settings = preset(environment)
    changes = {k: v for k, v in (("steps", steps), ("hidden", hidden)) if v is not None}
    settings = settings.from_dict({**settings.to_dict(), **changes})
    folder = out or Path("runs") / f"{environment}-{seed}"
    with progress_bar("training") as advance:

        def progress(report: Any) -> bool:
            advance(report.steps, report.total, f"return {report.ep_rew_mean:8.1f}  {report.steps_per_second:9,.0f} steps/s")
            return True

        run = run_training(env, seed=seed, out=folder, shield=shield, progress=progress, settings=settings)
    result = {"run": str(folder), "environment": env.name, "seed": seed, **run.result}
    show_result(json, result, lambda: _show_training(result, env.solved))
    if run.result["status"] == "interrupted":
        raise SystemExit(130)


def _show_training(result: dict[str, Any], solved: float) -> None:
    OUT.print(f"trained {result['environment']} for {result['steps']:,} steps in {result['seconds']:.1f} s: {result['status']}")
    OUT.print(f"  saved in {result['run']}")
    for key, words in (("evaluation", "behind the training's shield"), ("evaluation_unshielded", "without a shield")):
        found = result[key]
        if found:
            low, high = found["interval"]
            OUT.print(f"  return {found['return']:.1f} (95 % interval {low:.1f} … {high:.1f}) {words}, {found['episodes']} fresh episodes")
    if result["evaluation"] and result["evaluation"]["return"] < solved:
        OUT.print(f"  not solved: {result['environment']} counts as solved at {solved:g}; more --steps or a larger --hidden may help", style="yellow")
    name = f"{result['environment']}-rp2040"
    OUT.print(f"next: puffer-edge export {quote(result['run'])} --target rp2040 --out build/{name}")


def evaluate(
    run: Folder,
    integer: Flag = False,
    profile: str = "int8",
    shield: bool = True,
    episodes: int = 100,
    seed: int = EVALUATION_SEED,
    json: Flag = False,
) -> None:
    """Returns of a trained policy, in float and, with --integer, in integers beside it.

    Float and integers start from the same states, so their difference is the quantisation's.

    Args:
        run: a run folder, or a policy.safetensors.
        integer: put the policy into integers and run what a device would compute.
        profile: of the integers: int8, int16x8, int4 or shift.
        shield: behind the environment's default shield (--no-shield: without any).
        episodes: how many.
        seed: of the start states.
        json: print the result as JSON.
    """
    from puffer_edge.integer.quantize import quantize
    from puffer_edge.integer.reference import InFloat
    from puffer_edge.integer.search import kept

    check_episodes(episodes, seed)
    environment_of(run)
    task = task_of(run, shield)
    kinds: dict[str, Any] = {"float": InFloat(task.policy)}
    if integer:
        kinds["integer"] = quantize(task.policy, task.observations, task.starts, profile)
    found = {name: task.returns(proposer, episodes, seed) for name, proposer in kinds.items()}
    stages, name = task.shield.stages, task.environment.name
    result: dict[str, Any] = {"environment": name, "shield": list(stages), "episodes": episodes, "seed": seed}
    result |= {kind: episodes_of.summary(stages) for kind, episodes_of in found.items()}
    if integer:
        result |= {"profile": profile, "return_kept": kept(result["float"]["return"], result["integer"]["return"])}

    def show() -> None:
        table = Table("", "return", "95 % interval", "lowest", "cost", "steps the shield acted", box=None, pad_edge=False)
        for kind in found:
            row = result[kind]
            acted = ", ".join(f"{k} {v}" for k, v in row["interventions"].items() if v) or "0"
            low, high = row["interval"]
            table.add_row(kind, f"{row['return']:.2f}", f"{low:.2f} … {high:.2f}", f"{row['lowest']:.2f}", f"{row['cost']:.2f}", acted)
        OUT.print(f"{name}, {episodes} episodes, {'shield ' + ' → '.join(stages) if stages else 'no shield'}")
        OUT.print(table)
        if integer:
            OUT.print(f"{profile} keeps {result['return_kept']:.2%} of the float return")

    show_result(json, result, show)
