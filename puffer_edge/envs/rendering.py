"""Pictures of environments that draw themselves: Gymnasium's and PettingZoo's render mode "rgb_array"."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from puffer_edge.envs.world import raised, shown
from puffer_edge.errors import Unsupported

PICTURES = "rgb_array"
"""The render mode in which an environment gives pictures, without a window."""


def with_pictures(name: str, made: Callable[..., Any], *about: int) -> Callable[..., Any]:
    """What makes an environment, for it to be filmed.

    Args:
        name: of the environment, for messages.
        made: makes it, and takes ``render_mode``.
        about: what it takes before.

    Raises:
        Unsupported: its metadata has no mode that gives pictures.
    """
    env = made(*about)
    modes = (env.metadata or {}).get("render_modes") or ()
    env.close()
    if PICTURES not in modes:
        raise Unsupported(f'{name} has no picture: metadata["render_modes"] names {", ".join(map(str, modes)) or "none"}, a film needs {PICTURES!r}')
    if sys.platform == "linux" and not os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"}:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame's own choice works too, after a word about the missing display
    return partial(made, render_mode=PICTURES)


def rendered(env: Any, name: str) -> Any:
    """(height, width, 3) uint8 picture of an environment that was made with the render mode ``PICTURES``.

    Raises:
        Unsupported: it has none: a package or a driver is missing, or it takes no notice of its mode.
    """
    try:
        gave = env.render()
    except (Exception, SystemExit) as error:  # what a missing display, driver or package raises is anybody's own
        hint = " (without a display MuJoCo needs MUJOCO_GL=egl or osmesa, and that library)" if "mujoco" in raised(error).lower() else ""
        raise Unsupported(f"{name} cannot be filmed{hint}: render raised {raised(error)}") from error
    picture = np.asarray(gave if not isinstance(gave, (tuple, list)) or not gave else gave[0])  # many rows give one each
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        what = f"{picture.dtype} of shape {picture.shape}" if isinstance(gave, np.ndarray) else shown(gave)
        raise Unsupported(f"{name} cannot be filmed: render gave {what}, in the mode {PICTURES!r} it must give (height, width, 3) uint8")
    return picture
