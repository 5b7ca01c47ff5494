"""train and eval: an environment becomes a policy, and its returns are looked at."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, get_type_hints

import tyro
from rich.table import Table

from puffer_edge.commands.console import OUT, SIDE, WIDE, Flag, Folder, Name, progress_bar, show_result
from puffer_edge.commands.dashboard import Dashboard
from puffer_edge.commands.sources import EVALUATION_SEED, check_episodes, environment_of, task_of, trained_with
from puffer_edge.envs.imperfections import Imperfections
from puffer_edge.errors import InvalidInput
from puffer_edge.find import choose
from puffer_edge.intake.plant_toml import read_plant
from puffer_edge.train import PPOSettings, Run, settings_for
from puffer_edge.train.run import trained_by
from puffer_edge.train.settings import Settings
from puffer_edge.train.settings_file import ALGORITHMS, read_settings
from puffer_edge.train.writer import Writer

MASKED = "among what the environment allows, which no device is told"


def train(
    environment: Name = "",
    *,
    algo: str = "ppo",
    values: Annotated[Settings, tyro.conf.arg(name="")] = PPOSettings(),  # noqa: B008  frozen; ``train_for`` puts the right one here
    settings: Path | None = None,
    seed: int = 0,
    seeds: int = 1,
    out: Path | None = None,
    shield: bool = True,
    plant: Path | None = None,
    resume: Path | None = None,
    fine_tune: Path | None = None,
    tensorboard: Flag = False,
    wandb: Annotated[tuple[()] | tuple[str] | None, tyro.conf.arg(metavar="[PROJECT]")] = None,
    plain: Flag = False,
    json: Flag = False,
) -> None:
    """Train a policy and write a run folder.

    The policy learns behind the environment's default shield, so that it meets the actuator that it will have.
    Ctrl-C stops early and keeps the best policy so far; --resume goes on with a run that was stopped, interrupted or killed.
    Settings come from the environment's preset, over it the file, over that the flags; RUN/settings.toml keeps them, and is such a file.

    Args:
        environment: name of an environment; 'puffer-edge envs' lists them. Not needed with --resume and --fine-tune.
        algo: ppo, trpo, sac, discrete-sac, ppo-lagrangian, pid-lagrangian, trpo-lagrangian or cpo; the other flags are those of its settings,
            so look at --help with it.
        values: settings of the algorithm.
        settings: TOML file with a table for the algorithm, such as [ppo].
        seed: of everything random; with --seeds the first one.
        seeds: train so many times, side by side on the cores there are, and print the interquartile mean of the returns.
        out: folder of the run; runs/ENVIRONMENT-SEED where not given, ENVIRONMENT-ALGO-SEED with another algorithm than PPO, RUN-fine-tuned
            with --fine-tune. A run that is there already is kept as FOLDER.1, FOLDER.2 …
        shield: train behind the default shield (--no-shield: without any).
        plant: TOML file of what lies between a board and an ideal plant: delay and jitter, sensors, actuators, parameters that vary.
        resume: run folder to go on with, from its latest checkpoint; of the settings only --steps may change.
        fine_tune: run folder whose policy kept is trained on, into a run of its own; other flags change its settings: --qat int4 --steps 50000
        tensorboard: write event files too (needs the extra 'tensorboard').
        wandb: log to Weights & Biases too, in this project or 'puffer-edge' (needs the extra 'wandb'); WANDB_MODE=offline sends nothing.
        plain: one line of progress in place of the dashboard; so it is, too, where the output is no terminal.
        json: print the result as JSON.
    """
    if resume is not None and fine_tune is not None:
        raise InvalidInput("--resume goes on with a run as it was meant, --fine-tune begins another with its policy: give one of them")
    if resume is not None:
        asked = {"--seed": seed, "--seeds": seeds != 1, "--out": out, "--no-shield": not shield, "--plant": plant}
        given = [name for name, is_given in asked.items() if is_given]
        with _watched(plain, tensorboard, wandb) as watching:
            run = _go_on(resume, environment, values, [*given, *(["--settings"] if settings else [])], watching)
        _show_run(run, json)
    elif not environment and fine_tune is None:
        raise InvalidInput("which environment? 'puffer-edge envs' lists them; a run is gone on with by --resume RUN")
    elif seeds != 1:
        if fine_tune is not None:
            raise InvalidInput("--fine-tune trains one run on: leave out --seeds")
        if tensorboard or wandb is not None:
            raise InvalidInput("--tensorboard and --wandb write one run: leave out --seeds")
        _train_seeds(environment, algo, values, seed, seeds, out, {"shield": shield, "plant": _plant(plant)}, json)
    else:
        from puffer_edge import train as verbs

        environment = environment or (Run.load(fine_tune).settings["environment"] if fine_tune else "")
        folder = out or Path("runs") / (f"{fine_tune.resolve().name}-fine-tuned" if fine_tune else f"{_titled(environment, algo)}-{seed}")
        with _watched(plain, tensorboard, wandb) as watching:
            about: dict[str, Any] = {"shield": shield, "plant": _plant(plant), "settings": values, "fine_tune": fine_tune}
            run = verbs.train(environment, algo, seed=seed, out=folder, **about, **watching)
        _show_run(run, json)


def _plant(file: Path | None) -> Imperfections | None:
    return None if file is None else read_plant(file)


def _titled(environment: str, algorithm: str) -> str:
    """How a run's folder begins."""
    return (environment if algorithm == "ppo" else f"{environment}-{algorithm}").replace(":", "-")


def train_for(args: Sequence[str]) -> Callable[..., None]:
    """``train``, its flags being those of the algorithm, their defaults the settings that these arguments lead to: of the run, or of preset and
    file.

    The arguments are parsed twice, first for the environment and the files alone.

    Raises:
        InvalidInput, BundleError: no such algorithm, environment, file or run, or one that is damaged.
    """
    words = [word for word in args if word not in ("--help", "-h")]
    named, run = _value_of("--algo", words), _value_of("--resume", words) or _value_of("--fine-tune", words)
    algorithm = named or (trained_by(Run.load(run)) if run else "ppo")
    kind = ALGORITHMS[choose("algorithm", algorithm, ALGORITHMS)]
    _check_flags(words, algorithm)

    def asked(**options: Any) -> tuple[str, Path | None, Path | None]:
        return options["environment"], options["settings"], options["resume"] or options["fine_tune"]

    hints = get_type_hints(kind)
    plain = [(f.name, hints[f.name], dataclasses.field(default=f.default, default_factory=f.default_factory)) for f in dataclasses.fields(kind)]
    unchecked = dataclasses.make_dataclass("Unchecked", plain)
    try:
        first = _with_values(asked, unchecked, unchecked())
        environment, file, folder = tyro.cli(first, args=words, prog="puffer-edge train", console_outputs=len(words) == len(args))
    except SystemExit:
        if len(words) == len(args):
            raise
        return _with_values(train, kind, kind())  # whose help is asked for, and that alone
    if folder is None:
        return _with_values(train, kind, settings_for(environment, file, algorithm), algo=algorithm)
    theirs = Run.load(folder).settings
    if theirs["algorithm"] != algorithm:
        way = "to have its behaviour in another network, distil it" if _value_of("--fine-tune", words) else "it goes on with what it began with"
        raise InvalidInput(f"{folder} is a run of {theirs['algorithm']}: leave out --algo {algorithm}; {way}")
    over = read_settings(file, algorithm) if file is not None else {}
    return _with_values(train, kind, kind.from_dict(theirs["settings"] | over), algo=algorithm)


def _check_flags(words: Sequence[str], algorithm: str) -> None:
    """Name the algorithms that have a setting which this one lacks.

    Raises:
        InvalidInput: a flag is a setting of others alone.
    """
    fields = {name: {field.name for field in dataclasses.fields(kind)} for name, kind in ALGORITHMS.items()}
    for word in words:
        flag = word.partition("=")[0]
        name = flag.removeprefix("--").removeprefix("no-").replace("-", "_")
        others = [other for other, names in fields.items() if name in names]
        if flag.startswith("--") and others and algorithm not in others:
            raise InvalidInput(f"{flag} is no setting of {algorithm}; --algo {', '.join(others)} {'has' if len(others) == 1 else 'have'} it")


def _value_of(flag: str, words: Sequence[str]) -> str:
    """What a flag is given, or ""."""
    for word, following in zip(words, [*words[1:], ""]):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.removeprefix(f"{flag}=")
    return ""


def _with_values(function: Callable[..., Any], kind: Any, values: Any, **defaults: Any) -> Callable[..., Any]:
    """A function with the flags of ``train``, but with ``values`` of another kind and default, and other defaults besides."""

    def found(*arguments: Any, **options: Any) -> Any:
        return function(*arguments, **options)

    of_values: Any = Annotated[kind, tyro.conf.arg(name="")]
    parameters = [
        p.replace(annotation=of_values, default=values) if p.name == "values" else p.replace(default=defaults.get(p.name, p.default))
        for p in inspect.signature(train, eval_str=True).parameters.values()
    ]
    found.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    found.__annotations__ = {p.name: p.annotation for p in parameters}
    found.__name__, found.__doc__ = train.__name__, train.__doc__
    return found


def _go_on(path: Path, environment: str, values: Settings, given: Sequence[str], watching: Mapping[str, Any]) -> Run:
    """Go on with a run, having seen that nothing was asked for that it cannot do."""
    from puffer_edge import train as verbs

    run = Run.load(path)
    theirs = type(values).from_dict(run.settings["settings"])
    given = [
        *given,
        *(f"--{name.replace('_', '-')}" for name, value in values.to_dict().items() if value != theirs.to_dict()[name] and name != "steps"),
    ]
    if given:
        raise InvalidInput(f"{path} goes on with what it was started with: leave out {', '.join(given)} (--steps may change)")
    if environment not in ("", run.settings["environment"]):
        raise InvalidInput(f"{path} is a run of {run.settings['environment']}, not of {environment}")
    run = verbs.resume(path, steps=values.steps if values.steps != theirs.steps else None, **watching)
    for reason in run.result["resumed"][-1]["because"]:
        SIDE.print(f"not the bits of a run that never stopped: {reason}", style="yellow")
    return run


@contextmanager
def _watched(plain: bool, tensorboard: bool, wandb: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    """What ``train`` and ``resume`` are told of who watches: the dashboard or a progress bar, and what is written elsewhere."""
    writers: list[Writer] = []
    if tensorboard:
        from puffer_edge.train.tensorboard import TensorBoard

        writers.append(TensorBoard())
    if wandb is not None:
        from puffer_edge.train.wandb import WandB

        writers.append(WandB(*wandb))
    if SIDE.is_terminal and not plain:
        yield {"writers": [*writers, Dashboard(SIDE)]}
        return
    with progress_bar("training") as advance:

        def progress(report: Any) -> None:
            advance(report.steps, report.total, f"return {report.ep_rew_mean:8.1f}  {report.steps_per_second:9,.0f} steps/s")

        yield {"writers": writers, "progress": progress}


def _train_seeds(
    environment: str, algorithm: str, values: Settings, first: int, seeds: int, out: Path | None, options: Mapping[str, Any], json: bool
) -> None:
    from puffer_edge.train.seeds import train_seeds

    folder = out or Path("runs") / f"{_titled(environment, algorithm)}-seeds"
    with progress_bar("seeds") as advance:
        advance(0, seeds, "")
        found = train_seeds(
            environment,
            seeds,
            first,
            algorithm,
            out=folder,
            settings=values,
            **options,
            watch=lambda done, total, run: advance(done, total, run.path.name),
        )
    summary = found.summary()

    def show() -> None:
        table = Table("seed", "return", "cost", "status", box=None, pad_edge=False)
        for row in summary["seeds"]:
            table.add_row(str(row["seed"]), *("–" if row[name] is None else f"{row[name]:.1f}" for name in ("return", "cost")), row["status"])
        WIDE.print(table)
        if summary["iqm"] is not None:
            low, high = summary["interval"]
            OUT.print(f"interquartile mean {summary['iqm']:.1f} (95 % interval {low:.1f} … {high:.1f}) of {len(found.returns)} trainings")
        if found.failed:
            OUT.print(f"failed, and in no mean: seed {', '.join(map(str, found.failed))}", style="yellow")
        OUT.print(f"  saved in {found.path}, with a picture")

    show_result(json, summary, show)
    if not found.returns:
        raise SystemExit(10)


def _show_run(run: Run, json: bool) -> None:
    from puffer_edge import envs

    solved = envs.load(run.settings["environment"]).solved
    result = {"run": str(run.path), "environment": run.settings["environment"], "seed": run.settings["seed"], **run.result}
    show_result(json, result, lambda: _show_training(result, solved))
    if run.result["status"] == "interrupted":
        raise SystemExit(130)


def _show_training(result: dict[str, Any], solved: float) -> None:
    OUT.print(f"trained {result['environment']} for {result['steps']:,} steps in {result['seconds']:.1f} s: {result['status']}")
    OUT.print(f"  saved in {result['run']}; engine: {result['engine']}")
    if in_integers := result.get("integers"):
        OUT.print(f"  trained in the integers of {in_integers}, which are what the returns are of")
    if result["engine_note"]:
        OUT.print(f"  {result['engine_note']}", style="yellow")
    kinds = ("evaluation", "behind the training's shield"), ("evaluation_unshielded", "without a shield"), ("evaluation_masked", MASKED)
    for key, words in kinds:
        if found := result.get(key):
            low, high = found["interval"]
            shielded = f", the shield acted at {found['intervention_rate']:.1%} of the steps" if key == "evaluation" else ""
            line = f"  return {found['return']:.1f} (95 % interval {low:.1f} … {high:.1f}), cost {found['cost']:.2f} {words}"
            OUT.print(f"{line}, {found['episodes']} fresh episodes{shielded}")
            _warn_of_forbidden(found)
    if "constraint" in result:
        _show_constraint(result["constraint"])
    if result["evaluation"] and result["evaluation"]["return"] < solved < float("inf"):  # where anybody says when it is
        OUT.print(f"  not solved: {result['environment']} counts as solved at {solved:g}; more --steps or a larger --hidden may help", style="yellow")
    name = f"{result['environment']}-rp2040".replace(":", "-")
    OUT.print(f"next: puffer-edge export {quote(result['run'])} --target rp2040 --out build/{name}")


def _show_constraint(about: dict[str, Any]) -> None:
    """Say what an episode costs, what it may cost, and what is wrong with that."""
    sampled = about["chosen"]["sampled"]
    OUT.print(
        f"  cost {about['cost']:.4g} an episode, allowed are {about['cost_limit']:g}; sampled from, when it was chosen, it had return "
        f"{sampled['return']:.1f} at cost {sampled['cost']:.4g}"
    )
    for words in about["words"]:
        OUT.print(f"  {words}", style="yellow")


def _warn_of_forbidden(found: dict[str, Any]) -> None:
    """Say how often a policy chose what its environment did not allow."""
    if share := found.get("forbidden_share"):
        OUT.print(f"  at {share:.1%} of the steps it chose what was not allowed: it is deployed, and evaluated, without masks", style="yellow")


def evaluate(
    run: Folder,
    integer: Flag = False,
    profile: str | None = None,
    shield: bool = True,
    plant: Path | None = None,
    ideal: Flag = False,
    episodes: int = 100,
    seed: int = EVALUATION_SEED,
    video: Path | None = None,
    json: Flag = False,
) -> None:
    """Returns of a trained policy, in float and, with --integer, in integers beside it.

    Float and integers start from the same states, so their difference is the quantisation's.

    Args:
        run: a run folder, or a policy.safetensors.
        integer: put the policy into integers and run what a device would compute; of a policy that was trained in integers that is always shown.
        profile: of the integers: int8, int16x8, int4 or shift; not given, that which the policy was trained in or distilled for, or int8.
        shield: behind the environment's default shield (--no-shield: without any).
        plant: TOML file of a plant's imperfections, in the place of those that it was trained with.
        ideal: on an ideal plant: with what the policy was made for, hold and pending actions, and without what disturbs it.
        episodes: how many.
        seed: of the start states.
        video: write the first episode there too, as .gif, or some of its frames as .png (needs the extra 'report').
        json: print the result as JSON.
    """
    from puffer_edge.integer.quantize import quantize
    from puffer_edge.integer.reference import InFloat
    from puffer_edge.integer.search import kept

    check_episodes(episodes, seed)
    policy, _ = environment_of(run)
    if plant is not None and ideal:
        raise InvalidInput("--plant and --ideal exclude each other")
    task = task_of(run, shield, plant=trained_with(policy).ideal if ideal else _plant(plant))
    kinds: dict[str, Any] = {"float": InFloat(task.policy)}
    integer, profile = integer or task.trained_in is not None, profile or task.profile
    if integer:
        kinds["integer"] = quantize(task.policy, task.observations, task.starts, profile)
        task.check_trained(kinds["integer"].digest.hex())
    if video is not None:
        from puffer_edge.envs import picture

        picture.film(task.environment, kinds["integer" if integer else "float"], task.shield, seed, video)
    found = {name: task.returns(proposer, episodes, seed) for name, proposer in kinds.items()}
    if task.environment.allowed is not None:
        found["float_masked"] = task.returns(kinds["float"], episodes, seed, masked=True)
    stages, name = task.shield.stages, task.environment.name
    result: dict[str, Any] = {"environment": name, "shield": list(stages), "episodes": episodes, "seed": seed}
    result |= {"plant": about} if (about := task.environment.imperfections.to_dict()) else {}
    result |= {"video": str(video)} if video is not None else {}
    result |= {kind: episodes_of.summary(stages) for kind, episodes_of in found.items()}
    if integer:
        result |= {"profile": profile or task.profile, "return_kept": kept(result["float"]["return"], result["integer"]["return"])}

    def show() -> None:
        table = Table("", "return", "95 % interval", "lowest", "cost", "steps the shield acted", box=None, pad_edge=False)
        for kind in found:
            row = result[kind]
            acted = ", ".join(f"{k} {v}" for k, v in row["interventions"].items() if v) or "0"
            low, high = row["interval"]
            interval, rest = f"{low:.2f} … {high:.2f}", (f"{row['lowest']:.2f}", f"{row['cost']:.2f}", acted)
            table.add_row(kind.replace("_", ", "), f"{row['return']:.2f}", interval, *rest)
        around = f", a plant with {', '.join(result['plant'])}" if "plant" in result else ""
        OUT.print(f"{name}, {episodes} episodes, {'shield ' + ' → '.join(stages) if stages else 'no shield'}{around}")
        WIDE.print(table)
        if video is not None:
            OUT.print(f"the first episode is in {video}")
        if integer:
            words = "trained in these integers, not in float" if task.trained_in == profile else "keeps {:.2%} of the float return"
            OUT.print(f"{profile}: {words.format(result['return_kept'])}")
        if "float_masked" in found:
            OUT.print(f"masked: {MASKED}")
        _warn_of_forbidden(result["float"])

    show_result(json, result, show)
