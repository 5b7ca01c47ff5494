"""The numbers that a training is set by: documented, checked, and the same object from Python, file and command line."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, TypeVar

from puffer_edge.envs.interventions import Interventions
from puffer_edge.errors import InvalidInput
from puffer_edge.integer.scales import PROFILES

RECENT = 100
"""Episodes over which ``ep_rew_mean`` and ``ep_cost_mean`` are means."""
MAX_SAMPLES = 2**26
"""Of one update: some GiB of memory already."""
CHOICES = {
    "engine": ("auto", "native", "torch"),
    "kernels": ("auto", "native", "torch"),
    "vector": ("auto", "serial", "processes", "asynchronous"),
    "activation": ("relu", "tanh"),
    "schedule": ("constant", "linear", "cosine"),
    "kl_schedule": ("constant", "linear", "cosine"),
    "value_loss": ("plain", "clipped", "clamped"),
    "exploration": ("independent", "state"),
    "memory": ("none", "gru", "lstm"),
    "kl_control": ("stop", "penalty", "learning_rate"),
    "qat": ("none", *PROFILES),
}
"""What a setting that is a word may be."""


Own = TypeVar("Own", bound="Settings")


@dataclass(frozen=True)
class Settings:
    """What all algorithms are set by.

    Raises:
        InvalidInput: a value out of its range.
    """

    ALGORITHM: ClassVar[str] = "a training"
    WHOLE: ClassVar[tuple[str, ...]] = ("steps", "rows", "horizon", "hold", "memory_size", "evaluations", "evaluation_episodes", "checkpoints")
    """Whole numbers of at least 1."""
    RANGES: ClassVar[tuple[tuple[str, float, float], ...]] = (
        ("learning_rate", 0.0, 1.0),
        ("discount", 0.0, 1.0),
        ("log_std", -5.0, 2.0),
        ("step_timeout_s", 0.01, 1e6),
        ("shield_penalty", 0.0, math.inf),
        ("shield_change_penalty", 0.0, math.inf),
        ("qat_from", 0.0, 1.0),
    )
    FLAGS: ClassVar[tuple[str, ...]] = ("normalize_observation", "shield_mask")

    engine: str = "auto"
    """"native" (C; scalar environments, networks that fit it), "torch" (everything), or "auto": native where it can."""
    threads: int = 0
    """Of the native engine and kernels; 0: all cores, or one for small minibatches. The bits do not depend on them."""
    vector: str = "auto"
    """Where environments live that are not made of functions, as Gymnasium's: "serial" in this process, "processes" with shared memory, or
    "auto": processes where a step of all rows takes longer than a millisecond. The bits are the same. "asynchronous": processes that do
    not wait for each other; no two runs are alike then."""
    workers: int = 0
    """Processes of them; 0: one for each core, two for each where they do not wait for each other."""
    step_timeout_s: float = 60.0
    """A worker that does not answer for so long ends the training."""
    steps: int = 200_000
    """Environment steps of a whole training."""
    rows: int = 16
    """Environments stepped side by side."""
    horizon: int = 64
    """Steps of every environment between two rows of the log; the normaliser stays as it is meanwhile."""
    learning_rate: float = 1e-3
    """Adam's learning rate at the start."""
    schedule: str = "linear"
    """How the learning rate goes over the steps: "constant", "linear" or "cosine", the last two to zero."""
    discount: float = 0.99
    """γ."""
    normalize_observation: bool = True
    """Whiten observations by their running moments."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the actor's hidden layers."""
    activation: str = "relu"
    """"relu" or "tanh"; relu is the cheaper one on a microcontroller."""
    memory: str = "none"
    """What a policy remembers by: "none", or a cell after its hidden layers, "gru" or "lstm"; of the torch engine, and of the algorithms
    that say so."""
    memory_size: int = 32
    """Units of that cell; an LSTM keeps two numbers for each from step to step, a GRU one."""
    exploration: str = "independent"
    """Noise of a continuous head: "independent" at every step, or "state": a function of the state that is held for a while (gSDE)."""
    hold: int = 4
    """Steps for which "state" holds its function."""
    log_std: float = 0.0
    """Start of the Gaussian's log standard deviation, in units of half the action range; unused for discrete heads."""
    shield_penalty: float = 0.0
    """Taken from the reward of each step that the shield changes. Training episodes' returns are less by it, evaluations are not."""
    shield_change_penalty: float = 0.0
    """Taken from it for a change of an action over its whole range, and in proportion for a smaller one."""
    shield_mask: bool = False
    """Do not choose what the shield would change, while there is something else to choose; of heads of choices."""
    qat: str = "none"
    """Quantisation-aware training: the profile ("int8", "int16x8", "int4", "shift") in whose integers the actor acts and learns (torch)."""
    qat_from: float = 0.5
    """Share of the steps that are trained in float before that; a fine-tuning begins with the integers."""
    evaluations: int = 10
    """Evaluations spread over a training; the policy that did best in them is the one that is kept."""
    evaluation_episodes: int = 50
    """Episodes of each of them."""
    checkpoint_every: int | None = None
    """Steps between two checkpoints, beside the one after every evaluation; None writes those alone."""
    checkpoints: int = 3
    """Checkpoints kept: so many of the latest, and the one of the best evaluation."""

    def __post_init__(self) -> None:
        _check(self)
        for name, value in vars(self).items():
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))

    @property
    def features(self) -> int:
        """Numbers that the actor's last layer is given."""
        return self.hidden[-1] if self.memory == "none" else self.memory_size

    @property
    def remembered(self) -> int:
        """Numbers that the actor keeps from step to step."""
        return {"none": 0, "gru": 1, "lstm": 2}[self.memory] * self.memory_size

    def learning_rate_at(self, steps: int) -> float:
        """The schedule's learning rate after so many steps."""
        return self.learning_rate * self._left(self.schedule, steps)

    def _left(self, schedule: str, steps: int) -> float:
        """What a schedule leaves of a number after so many steps."""
        done = min(steps / self.steps, 1.0)
        return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[schedule]

    @property
    def interventions(self) -> Interventions:
        """What the training makes of what its shield changes."""
        return Interventions(self.shield_penalty, self.shield_change_penalty, self.shield_mask)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls: type[Own], values: Mapping[str, Any]) -> Own:
        """Settings from a mapping; what is absent keeps its default.

        Raises:
            InvalidInput: an unknown key, or a value out of range.
        """
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise InvalidInput(f"{cls.ALGORITHM} has no setting {', '.join(unknown)}: it has {', '.join(known)}")
        return cls(**values)


@dataclass(frozen=True)
class OnPolicySettings(Settings):
    """What algorithms are set by that learn from a rollout and forget it.

    Raises:
        InvalidInput: a value out of its range.
    """

    WHOLE: ClassVar[tuple[str, ...]] = (*Settings.WHOLE, "epochs", "minibatch")
    RANGES: ClassVar[tuple[tuple[str, float, float], ...]] = (*Settings.RANGES, ("trace_decay", 0.0, 1.0), ("max_grad_norm", 0.0, math.inf))
    FLAGS: ClassVar[tuple[str, ...]] = (*Settings.FLAGS, "scale_reward", "normalize_advantage")

    batch: int = 0
    """Of "asynchronous": workers to wait for before the policy acts for them; 0: half of them."""
    horizon: int = 64
    """Steps of every environment between two updates."""
    epochs: int = 10
    """Passes over the rows × horizon samples of an update."""
    minibatch: int = 256
    """Samples of one gradient step."""
    trace_decay: float = 0.95
    """λ of generalised advantage estimation."""
    normalize_advantage: bool = True
    """Bring the advantages of a minibatch to mean 0 and standard deviation 1."""
    max_grad_norm: float = 0.5
    """The gradient is scaled down to this L2 norm."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of the actor, and of the critic."""
    scale_reward: bool = False
    """Divide rewards by the running standard deviation of the discounted return."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_on_policy(self)

    @property
    def stretch(self) -> int:
        """Steps of a sequence that a gradient goes back through; 1 without memory."""
        return 1


@dataclass(frozen=True)
class PPOSettings(OnPolicySettings):
    """Settings of PPO; the defaults suit small control tasks of 10⁵ steps or so.

    Raises:
        InvalidInput: a value out of its range.
    """

    ALGORITHM: ClassVar[str] = "PPO"
    WHOLE: ClassVar[tuple[str, ...]] = (*OnPolicySettings.WHOLE, "accumulate")
    RANGES: ClassVar[tuple[tuple[str, float, float], ...]] = (
        *OnPolicySettings.RANGES,
        ("clip", 0.0, 1.0),
        ("value_weight", 0.0, math.inf),
        ("value_clip", 0.0, math.inf),
        ("entropy_weight", 0.0, math.inf),
        ("kl_weight", 0.0, math.inf),
    )
    FLAGS: ClassVar[tuple[str, ...]] = (*OnPolicySettings.FLAGS, "amp", "shared")

    kernels: str = "auto"
    """Of the torch engine: forward and backward passes in C under autograd ("native"), by torch's modules, or "auto": in C where they can."""
    accumulate: int = 1
    """Parts that a minibatch's gradient is added up from; the result is that of the whole, in less memory."""
    clip: float = 0.2
    """ε: the probability ratio is clipped to 1 ± ε."""
    dual_clip: float | None = None
    """c > 1: where the advantage is negative the objective is at least c·A (Ye et al., 2020); None leaves it unbounded."""
    value_weight: float = 0.5
    """Weight of the value loss."""
    value_loss: str = "plain"
    """"plain": the squared error; "clipped": the larger of it and that of the value kept within ``value_clip`` of the old one;
    "clamped": the squared error, at most ``value_clip``."""
    value_clip: float = 0.2
    """Bound of the value losses "clipped" (in units of the return) and "clamped" (of its square)."""
    entropy_weight: float = 0.0
    """Weight of the entropy bonus at the start."""
    entropy_final: float | None = None
    """Its weight at the end, to which it goes linearly over the steps; None keeps it."""
    kl_control: str = "stop"
    """What ``target_kl`` does. "stop": an update's epochs end once a minibatch's approximate KL exceeds 1.5 times the target.
    "penalty": the loss grows by β·KL, β doubled after an update beyond 1.5 times the target and halved below 1/1.5 of it (Schulman et al.,
    2017, section 4). "learning_rate": the rate is divided by 1.5 after an epoch beyond twice the target and multiplied by it below half."""
    target_kl: float | None = None
    """The target; None: none of the three."""
    kl_weight: float = 1.0
    """β at the start, for "penalty"."""
    shared: bool = False
    """Let the critic use the actor's hidden layers, and its memory: half the arithmetic."""
    sequence: int = 0
    """Of a policy with memory: steps through which a gradient goes back. Each such stretch of the horizon, which must be a multiple of it,
    starts from the memory that the policy had there; a minibatch has whole ones. 0: the horizon."""
    image: tuple[int, ...] = ()
    """Channels, height and width of an observation that is a picture, flattened in this order; empty: it is none."""
    filters: tuple[int, ...] = ()
    """Of a picture: filters of each convolution before the hidden layers. They are 3×3, and each halves height and width."""
    amp: bool = False
    """Run the torch engine's networks in bfloat16 during an update; weights and optimiser stay float32."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_ppo(self)

    @property
    def stretch(self) -> int:
        """Steps of a sequence; 1 where there is no memory."""
        return 1 if self.memory == "none" else self.sequence or self.horizon

    def entropy_weight_at(self, steps: int) -> float:
        """The entropy bonus's weight after so many steps."""
        final = self.entropy_weight if self.entropy_final is None else self.entropy_final
        return self.entropy_weight + (final - self.entropy_weight) * min(steps / self.steps, 1.0)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check(s: Settings) -> None:
    for name in s.WHOLE:
        value = getattr(s, name)
        if not _is_whole(value) or value < 1:
            raise InvalidInput(f"{name} must be a whole number of at least 1, not {value!r}")
    if s.checkpoint_every is not None and not (_is_whole(s.checkpoint_every) and s.checkpoint_every >= 1):
        raise InvalidInput(f"checkpoint_every must be a whole number of at least 1 or None, not {s.checkpoint_every!r}")
    for name, low, high in s.RANGES:
        value = getattr(s, name)
        if not _is_number(value) or not low <= value <= high:
            raise InvalidInput(f"{name} must lie in {low:g} … {high:g}, not {value!r}")
    check_widths("hidden", s.hidden)
    if not _is_whole(s.threads) or not 0 <= s.threads <= 256:
        raise InvalidInput(f"threads must lie in 1 … 256, or be 0 for all cores, not {s.threads!r}")
    if not _is_whole(s.workers) or not 0 <= s.workers <= s.rows:
        raise InvalidInput(f"workers must lie in 1 … {s.rows}, the rows, or be 0 for one on each core, not {s.workers!r}")
    for name in s.FLAGS:
        if not isinstance(getattr(s, name), bool):
            raise InvalidInput(f"{name} must be true or false, not {getattr(s, name)!r}")
    for name, choices in CHOICES.items():
        value = getattr(s, name, choices[0])
        if value not in choices:
            raise InvalidInput(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    _check_qat(s)


def _check_qat(s: Settings) -> None:
    if s.qat == "none":
        return
    if "native" in (s.engine, getattr(s, "kernels", "auto")) or (isinstance(s, PPOSettings) and s.amp) or s.exploration == "state":
        raise InvalidInput(
            "quantisation-aware training (qat) is the torch engine's, on its own modules in float32: leave out engine and kernels 'native', amp, "
            "and exploration 'state', whose noise is a function of float features"
        )
    if s.memory != "none" or (isinstance(s, PPOSettings) and s.image):
        raise InvalidInput(
            "quantisation-aware training (qat) is of dense actors: leave out memory and image, or train in float and see with "
            "'eval --integer --profile int16x8' what the integers keep"
        )


def check_widths(name: str, widths: Any) -> None:
    """See that these are widths of hidden layers.

    Raises:
        InvalidInput: they are not.
    """
    if not isinstance(widths, (tuple, list)) or not widths or not all(_is_whole(width) and 1 <= width <= 4096 for width in widths):
        raise InvalidInput(f"{name} must name at least one width, each 1 … 4096, not {widths!r}")


def check_above(s: Settings, name: str, above: float) -> None:
    """See that a setting is None or a finite number above another.

    Raises:
        InvalidInput: it is not.
    """
    value = getattr(s, name)
    if value is not None and not (_is_number(value) and above < value < math.inf):
        raise InvalidInput(f"{name} must be a number above {above:g} or None, not {value!r}")


def _check_on_policy(s: OnPolicySettings) -> None:
    if s.rows * s.horizon < 2:
        raise InvalidInput("an update needs at least 2 samples: raise rows or horizon")
    if s.rows * s.horizon > MAX_SAMPLES:
        raise InvalidInput(f"an update of {s.rows:,} rows × {s.horizon:,} steps has more than {MAX_SAMPLES:,} samples: lower rows or horizon")
    if not _is_whole(s.batch) or s.batch < 0:
        raise InvalidInput(f"batch must be a whole number that is not negative, not {s.batch!r}")
    if s.vector == "asynchronous" and s.exploration == "state":
        raise InvalidInput("exploration 'state' holds its noise over steps that all rows make together: take vector = 'processes'")


def _check_ppo(s: PPOSettings) -> None:
    check_above(s, "target_kl", 0.0)
    check_above(s, "dual_clip", 1.0)
    if s.entropy_final is not None and not (_is_number(s.entropy_final) and 0 <= s.entropy_final < math.inf):
        raise InvalidInput(f"entropy_final must be a number of at least 0 or None, not {s.entropy_final!r}")
    _check_memory(s)
    _check_picture(s)
    if s.minibatch == 1 and s.normalize_advantage:
        raise InvalidInput("a minibatch of 1 sample has no standard deviation: take at least 2, or normalize_advantage = false")
    if s.accumulate > s.minibatch:
        raise InvalidInput(f"a minibatch of {s.minibatch} samples cannot be added up from {s.accumulate} parts")


def _check_memory(s: PPOSettings) -> None:
    if not _is_whole(s.sequence) or s.sequence < 0 or (s.sequence and s.horizon % s.sequence):
        raise InvalidInput(f"sequence must be a divisor of the horizon, {s.horizon}, or 0 for all of it, not {s.sequence!r}")
    if s.memory == "none":
        return
    if s.memory_size > 4096:
        raise InvalidInput(f"memory_size must lie in 1 … 4096, not {s.memory_size}")
    if s.minibatch < s.stretch:
        raise InvalidInput(f"a minibatch of {s.minibatch} samples holds no sequence of {s.stretch} steps: raise minibatch, or lower sequence")
    if s.vector == "asynchronous":
        raise InvalidInput("a policy with memory needs rows that make their steps together: take vector = 'processes'")


def _check_picture(s: PPOSettings) -> None:
    whole = all(isinstance(x, (tuple, list)) and all(_is_whole(n) and 1 <= n <= 4096 for n in x) for x in (s.image, s.filters))
    if not whole or len(s.image) not in (0, 3) or bool(s.image) != bool(s.filters):
        raise InvalidInput(
            "image is (channels, height, width) and filters names at least one convolution, each number 1 … 4096; both or neither, "
            f"not {s.image!r} and {s.filters!r}"
        )
