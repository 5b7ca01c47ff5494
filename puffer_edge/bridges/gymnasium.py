"""Environments as Gymnasium's: importing this module registers every one, ``gymnasium.make("puffer_edge/CartPole-v1")``.

``gymnasium.make_vec`` of the same names gives ``Vector``, which steps all rows at once. Gymnasium 1.x finds no plug-ins by itself, so that
the import is needed; ``gymnasium.make("puffer_edge.bridges.gymnasium:puffer_edge/CartPole-v1")`` does it on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge import envs
from puffer_edge.bridges.running import Running, action_space, observation_space
from puffer_edge.contract import Contract
from puffer_edge.envs.environment import Environment
from puffer_edge.errors import InvalidInput, MissingExtra, Unsupported
from puffer_edge.spaces import Bools

try:
    import gymnasium
    from gymnasium.vector import AutoresetMode
    from gymnasium.vector.utils import batch_space
except ImportError:
    raise MissingExtra("train", "an environment for Gymnasium") from None

NAMESPACE = "puffer_edge"
_SPELT = {"cartpole": "CartPole"}
"""File names in which a word begins without an underscore."""
_ALL = np.zeros(1, np.int64)
_Info = dict[str, Any]


def identity(name: str) -> str:
    """Gymnasium's ID of an environment: ``puffer_edge/MountainCar-v1`` of ``mountain_car``."""
    return f"{NAMESPACE}/{_SPELT.get(name) or ''.join(word.capitalize() for word in name.split('_'))}-v1"


def register() -> None:
    """Register every environment of one agent that is found, once; nothing is compiled."""
    for name in (*envs.names(), *envs.sanity_names()):
        if identity(name) not in gymnasium.registry and envs.load(name).agents == 1:
            here = f"{__name__}:"
            gymnasium.register(identity(name), f"{here}Single", vector_entry_point=f"{here}Vector", kwargs={"environment": name})


def _running(environment: Environment | str, n: int, shield: bool) -> Running:
    running = Running(environment, n, shield)
    if running.agents > 1:
        raise Unsupported(f"{running.environment.name} has {running.agents} agents: use puffer_edge.bridges.pettingzoo.Parallel")
    return running


def _metadata(running: Running, render_mode: str | None) -> dict[str, Any]:
    c, drawn = running.contract, running.environment.draw is not None
    if render_mode not in (None, "rgb_array"):
        raise InvalidInput(f"render_mode is None or 'rgb_array', not {render_mode!r}")
    if render_mode is not None and not drawn:
        raise Unsupported(f"{c.name} has no picture: give its Environment a draw(state, canvas)")
    return {"render_modes": ["rgb_array"] if drawn else [], "render_fps": c.rate_hz}


class Single(gymnasium.Env[npt.NDArray[np.float32], Any]):
    """One environment. Its observations are float32, its episodes are truncated by its own clock, ``info["cost"]`` is the step's cost.

    Args:
        environment: the task, or its name.
        shield: step a plant as on a board, with fixed point and the default shield; ``info["stages"]`` then holds the bits of the shield's
            stages that acted. Without, the dynamics are plain.
        render_mode: "rgb_array": ``render`` gives pictures, without a display (extra 'report').

    Attributes:
        contract: names and units of what the spaces hold.

    Raises:
        InvalidInput: there is no such render mode.
        Unsupported: it has several agents, goes forward only, has no form with a shield, or is to render and has no ``draw``.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - gymnasium.make looks at the class

    def __init__(self, environment: Environment | str, shield: bool = False, render_mode: str | None = None) -> None:
        self._running = _running(environment, 1, shield)
        self.contract: Contract = self._running.contract
        self.metadata, self.render_mode = _metadata(self._running, render_mode), render_mode
        self.observation_space, self.action_space = observation_space(self.contract), action_space(self.contract)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[npt.NDArray[np.float32], _Info]:
        """Start the first episode of a seed, or the next one."""
        super().reset(seed=seed)
        if seed is not None or not self._running.seeded(_ALL):
            self._running.seed(_ALL, [self.np_random.integers(2**32) if seed is None else seed])
        self._running.begin(_ALL)
        return self._running.observe()[0, 0], self._mask()

    def step(self, action: Any) -> tuple[npt.NDArray[np.float32], float, bool, bool, _Info]:
        """One step.

        Raises:
            InvalidInput: the action is none of its space, or no episode runs.
        """
        r = self._running
        if r.over[0]:
            raise InvalidInput(f"no episode of {self.contract.name} runs: call reset")
        reward, cost, terminated, truncated = r.step(r.physical(np.asarray(action)[None])[:, None], np.zeros(1, bool))
        info: _Info = {"cost": float(cost[0, 0])}
        if (stages := r.stages()) is not None:
            info["stages"] = stages[0]
        info |= self._mask()
        return r.observe()[0, 0], float(reward[0, 0]), bool(terminated[0, 0]), bool(truncated[0, 0]), info

    def render(self) -> Any:
        """(320, 480, 3) uint8 picture of the state, in the mode "rgb_array"; None without a mode.

        Raises:
            InvalidInput: no episode has begun.
            MissingExtra: Pillow is not installed.
        """
        return None if self.render_mode is None else self._running.picture(0)

    def _mask(self) -> _Info:
        return {} if (allowed := self._running.allowed()) is None else {"action_mask": allowed[0, 0]}


class Vector(gymnasium.vector.VectorEnv[npt.NDArray[np.float32], Any, npt.NDArray[Any]]):
    """N rows stepped at once; row k with seed s gives what ``Single`` with seed s + k does, and all what ``SyncVectorEnv`` of them does.

    Where numba is installed the dynamics are compiled at once, which takes a second or two the first time on a machine.

    Args:
        environment: the task, or its name.
        num_envs: N.
        shield: as in ``Single``.
        autoreset_mode: what happens where an episode ends: "NextStep" (the next step starts another, its action and reward count for
            nothing), "SameStep" (``info["final_obs"]`` and ``info["final_info"]`` hold the end) or "Disabled" (you call
            ``reset(options={"reset_mask": mask})``).
        render_mode: as in ``Single``.

    Attributes:
        contract: names and units of what the spaces hold.

    Raises:
        InvalidInput: N is below 1, or there is no such mode of either kind.
        Unsupported: as ``Single``.
    """

    def __init__(
        self,
        environment: Environment | str,
        num_envs: int = 1,
        shield: bool = False,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
    ) -> None:
        try:
            self._mode = AutoresetMode(autoreset_mode)
        except ValueError:
            raise InvalidInput(f"autoreset_mode is one of {', '.join(m.value for m in AutoresetMode)}, not {autoreset_mode!r}") from None
        self._running = _running(environment, num_envs, shield)
        self.contract: Contract = self._running.contract
        self.num_envs = self._running.n
        self.metadata, self.render_mode = {**_metadata(self._running, render_mode), "autoreset_mode": self._mode}, render_mode
        self.single_observation_space, self.single_action_space = observation_space(self.contract), action_space(self.contract)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._running.compile()

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], _Info]:
        """Start episodes in all rows, or in those of ``options["reset_mask"]``; row k of seed s gets s + k.

        Raises:
            InvalidInput: the seeds are not one a row, or the mask is not one bool a row with a True among them.
        """
        super().reset(seed=seed if isinstance(seed, int) else None)
        rows = self._chosen((options or {}).get("reset_mask"))
        seeds = [None] * self.num_envs if seed is None else [seed + k for k in range(self.num_envs)] if isinstance(seed, int) else list(seed)
        if len(seeds) != self.num_envs:
            raise InvalidInput(f"{len(seeds)} seeds were given for {self.num_envs} environments")
        given = [k for k in rows.tolist() if seeds[k] is not None]
        bare = [k for k in rows.tolist() if seeds[k] is None and not self._running.seeded(np.array([k]))]
        self._running.seed(np.array(given, np.int64), [seeds[k] for k in given])
        self._running.seed(np.array(bare, np.int64), self.np_random.integers(2**32, size=len(bare)))
        self._running.begin(rows)
        begun = np.zeros(self.num_envs, bool)
        begun[rows] = True
        return self._running.observe()[:, 0], self._mask(begun)

    def step(self, actions: Any) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], Bools, Bools, _Info]:
        """One step of every row.

        Raises:
            InvalidInput: the actions are none of their space, or a row has no episode that runs and the mode starts none.
        """
        r, resting = self._running, self._running.over.copy()
        if resting.any() and (self._mode is not AutoresetMode.NEXT_STEP or not r.seeded(np.flatnonzero(resting))):
            raise InvalidInput(f"no episode of {self.contract.name} runs in the rows {np.flatnonzero(resting).tolist()[:8]}: call reset")
        if resting.any():
            r.begin(np.flatnonzero(resting))
        reward, cost, terminated, truncated = r.step(r.physical(actions)[:, None], resting)
        observation, ended = r.observe()[:, 0], np.flatnonzero(r.over)
        info = self._about(cost[:, 0], ~resting) | self._mask(np.ones(self.num_envs, bool))
        if self._mode is AutoresetMode.SAME_STEP and len(ended):
            over = r.over.copy()
            last = np.full(self.num_envs, None, object)
            for k in ended:
                last[k] = observation[k].copy()
            info = self._about(cost[:, 0], ~over) | {"final_obs": last, "_final_obs": over.copy()}
            info |= {"final_info": self._about(cost[:, 0], over) | self._mask(over), "_final_info": over.copy()}
            r.begin(ended)
            info |= self._mask(np.ones(self.num_envs, bool))
            observation = r.observe()[:, 0]
        return observation, reward[:, 0], terminated[:, 0], truncated[:, 0], info

    def render(self) -> tuple[Any, ...] | None:
        """A picture of every row, as ``Single`` gives it."""
        return None if self.render_mode is None else tuple(self._running.picture(k) for k in range(self.num_envs))

    def _about(self, cost: npt.NDArray[np.float64], rows: Bools) -> _Info:
        """What these rows say of a step, as Gymnasium gathers it."""
        if not rows.any():
            return {}
        info = {"cost": np.where(rows, cost, 0.0), "_cost": rows.copy()}
        if (stages := self._running.stages()) is not None:
            info |= {"stages": np.where(rows, stages, np.int32(0)), "_stages": rows.copy()}
        return info

    def _mask(self, rows: Bools) -> _Info:
        """The choices that these rows may take next."""
        allowed = self._running.allowed()
        return {} if allowed is None else {"action_mask": np.where(rows[:, None], allowed[:, 0], np.int8(0)), "_action_mask": rows.copy()}

    def _chosen(self, mask: Any) -> npt.NDArray[np.int64]:
        if mask is None:
            return np.arange(self.num_envs)
        if not isinstance(mask, np.ndarray) or mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise InvalidInput(f"reset_mask is a numpy array of {self.num_envs} bool, at least one of them True, not {mask!r}")
        return np.flatnonzero(mask)


register()
