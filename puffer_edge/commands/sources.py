"""What commands begin with: a policy with its environment, shield and calibration; a bundle; bounds of numbers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from puffer_edge.commands.console import SIDE
from puffer_edge.envs.closed_loop import CALIBRATION_EPISODES, CALIBRATION_SEED, calibration
from puffer_edge.envs.imperfect import imperfect
from puffer_edge.envs.imperfections import Imperfections
from puffer_edge.errors import InvalidInput
from puffer_edge.files import OBSERVATIONS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EVALUATION_SEED = 8_000_000
MAX_EPISODES = 100_000
DRAWS = 8192
POLICY = "policy.safetensors"


def check_episodes(episodes: int, seed: int) -> None:
    if not 1 <= episodes <= MAX_EPISODES or seed < 0:
        raise InvalidInput(f"episodes must lie in 1 … {MAX_EPISODES:,} and seed not be negative, not {episodes} and {seed}")


def open_bundle(path: Path) -> Any:
    """A bundle, with a word about files in it that nothing reads."""
    from puffer_edge.device.bundle import Bundle

    held = Bundle.load(path)
    if held.unlisted:
        SIDE.print(f"{path} holds files that no export wrote, and nothing reads: {', '.join(held.unlisted[:5])}", style="yellow")
    return held


@dataclass(frozen=True, eq=False)
class Task:
    """A policy and what surrounds it on the way to a board.

    Attributes:
        policy: the float policy.
        environment: the environment it was trained in; None for a policy from elsewhere without one.
        shield: its shield.
        observations: (N, n_observations) physical observations for calibration and vectors, in order of time.
        starts: (N,) whether a row begins an episode.
        calibrated: where the observations are from, in words.
    """

    policy: Any
    environment: Any
    shield: Any
    observations: Any
    starts: Any
    calibrated: str

    @property
    def about(self) -> dict[str, Any]:
        """Fields of the manifest."""
        return {"calibrated": self.calibrated} | ({"environment": self.environment.name} if self.environment else {})

    @property
    def trained_in(self) -> str | None:
        """The profile in whose integers the policy was trained; None for one that was trained in float."""
        found = self.policy.origin.get("integers")
        return found.get("profile") if isinstance(found, dict) else None

    @property
    def profile(self) -> str:
        """The profile that the policy is put into integers with, unless another is asked for: it was trained in it, or distilled for it."""
        distilled_for = self.policy.origin.get("profile")
        return self.trained_in or (distilled_for if isinstance(distilled_for, str) else "int8")

    def check_trained(self, digest: str) -> None:
        """Say so where the policy was trained as another program than the one of this digest."""
        if self.trained_in and digest != self.policy.origin["integers"].get("digest"):
            SIDE.print(
                f"not the program that was trained: {self.policy.name} was trained in {self.trained_in}, calibrated on {OBSERVATIONS} of its run",
                style="yellow",
            )

    def returns(self, proposer: Any, episodes: int, seed: int, masked: bool = False) -> Any:
        """Episodes of a program, or of ``InFloat``, behind the shield; ``masked``: among what the environment allows.

        Raises:
            InvalidInput: there is no environment.
        """
        from puffer_edge.envs import closed_loop

        if self.environment is None:
            raise InvalidInput(f"{self.policy.name} has no environment here, so no return: import it with --env, or compare without returns")
        return closed_loop.play(self.environment, proposer, self.shield, episodes, seed, masked)


def policy_of(run: Path, plant: Any = None) -> tuple[Any, Any]:
    """The policy of a run folder or file, and its environment, None for a policy from elsewhere without one.

    Args:
        run: the folder or file.
        plant: ``Imperfections`` in the place of those that it was trained with.
    """
    from puffer_edge import envs
    from puffer_edge.policy import Policy

    policy = Policy.load(run / POLICY if run.is_dir() else run)
    name = policy.origin.get("environment")
    if not isinstance(name, str):
        return policy, None
    trained = trained_with(policy)
    given = trained if plant is None else plant
    return policy, imperfect(envs.load(name), given, None if given == trained else policy.contract)


def trained_with(policy: Any) -> Imperfections:
    """The imperfections of the plant that a policy was trained on."""
    return Imperfections.from_dict(policy.origin.get("plant", {}))


def plant_of(bundle: Any) -> Any:
    """The environment that a bundle's policy was trained in, with the imperfections of its plant; None where it names none."""
    from puffer_edge import envs

    return imperfect(envs.load(bundle.environment), trained_with(bundle.policy)) if bundle.environment else None


def environment_of(run: Path) -> tuple[Any, Any]:
    """The policy of a run, and its environment.

    Raises:
        InvalidInput: it has none.
    """
    policy, env = policy_of(run)
    if env is None:
        raise InvalidInput(f"{run} does not say which environment it belongs to: import it with --env to have returns")
    return policy, env


def task_of(run: Path, shield: bool = True, observations: Path | None = None, shield_file: Path | None = None, plant: Any = None) -> Task:
    """A run as export and verify need it.

    Calibration observations are, in this order: the file; those in the run; rollouts in the run's environment; and for want of
    all of them draws from the normaliser's mean and deviation, with a warning.

    Args:
        run: a run folder, or a policy.safetensors.
        shield: the file's stages, else the environment's, else the contract's limits; False: none.
        observations: .npy or .npz with (N, n_observations) physical observations, and in the .npz ``starts``.
        shield_file: TOML with one [[stage]] table a stage.
        plant: as in ``policy_of``.
    """
    from puffer_edge.intake.observations import read_observations

    policy, env = policy_of(run, plant)
    guard = shield_of(policy, env, shield, shield_file)
    n = policy.contract.n_observations
    kept = run / OBSERVATIONS if run.is_dir() else None
    if observations is not None:
        seen, starts, words = *read_observations(observations, n).values(), f"the file {observations.name}"
    elif kept is not None and kept.is_file():
        seen, starts, words = *read_observations(kept, n).values(), f"{OBSERVATIONS} of the run"
    elif env is not None:
        seen, starts, words = *calibration(env, policy, guard), f"{CALIBRATION_EPISODES} episodes in {env.name}"
    else:
        seen, starts, words = *_drawn(policy), "draws from the normaliser's mean and deviation, not from the task"
        SIDE.print(
            f"{policy.name} has no observations to calibrate on: ranges are guessed from its normaliser, and agreement says little. "
            "Record some (--observations FILE.npy, rows of physical observations) or import with --env",
            style="yellow",
        )
    return Task(policy, env, guard, seen, starts, words)


def shield_of(policy: Any, env: Any, wanted: bool = True, file: Path | None = None) -> Any:
    """The shield of a policy: a file's stages, the environment's default, or for a policy from elsewhere the contract's limits."""
    from puffer_edge.integer.shield import Shield

    if not wanted and file is not None:
        raise InvalidInput("--no-shield and --shield-file exclude each other")
    if not wanted:
        SIDE.print("without a shield: nothing but the contract's range stands between the policy and the actuator", style="yellow")
        return Shield.none(policy.contract)
    return Shield.build(policy.contract, _stages(file) if file else env.shield if env else ({"stage": "limit"},))


def _stages(file: Path) -> list[Any]:
    from puffer_edge.intake.archives import MAX_TEXT, read_bounded

    try:
        stages = tomllib.loads(read_bounded(file, MAX_TEXT).decode()).get("stage")
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, or nested without end
        raise InvalidInput(f"{file} is no TOML: {error}") from None
    if not isinstance(stages, list):
        raise InvalidInput(f'{file} lists no stage: write a table [[stage]] with stage = "limit" and its fields for each')
    return stages


def _drawn(policy: Any) -> tuple[Any, Any]:
    """Normal draws by the normaliser, inside the contract."""
    import numpy as np

    c, norm = policy.contract, policy.normalizer
    low, high = np.array([ch.low for ch in c.observations]), np.array([ch.high for ch in c.observations])
    rng = np.random.default_rng(CALIBRATION_SEED)
    seen = rng.normal(norm.mean, norm.std, (DRAWS, c.n_observations))
    return np.clip(seen, low, high), np.arange(DRAWS) % 64 == 0
