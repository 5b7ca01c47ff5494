"""Environments of Gymnasium's kind that show themselves, and some that cannot."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces


class Painted(gymnasium.Env[Any, Any]):
    """It shows how far its episode of 10 steps is, in grey, if it is asked for pictures when it is made."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["human", "rgb_array"], "render_fps": 10}
    observation_space, action_space = spaces.Box(-1.0, 1.0, (2,), np.float32), spaces.Box(-1.0, 1.0, (1,), np.float32)
    shape: tuple[int, ...] = (40, 20, 3)
    open = 0

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        Painted.open += render_mode is not None

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.k = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.k += 1
        return np.zeros(2, np.float32), 1.0, self.k >= 10, False, {}

    def render(self) -> Any:
        assert self.render_mode == "rgb_array"
        return np.full(self.shape, 25 * self.k, np.uint8)

    def close(self) -> None:
        Painted.open -= self.render_mode is not None


class PaintedAlways(Painted):
    """Asked or not."""

    def __init__(self) -> None:
        super().__init__("rgb_array")


class PaintedNever(Painted):
    """Its metadata promises what its constructor does not take."""

    def __init__(self) -> None:
        pass


class PaintedOnScreen(Painted):
    """In a window alone."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["human"]}


class PaintedFlat(Painted):
    """In grey levels without channels."""

    shape = (40, 20)


class PaintedWrongly(Painted):
    """Without a display."""

    def render(self) -> Any:
        raise RuntimeError("no display")
