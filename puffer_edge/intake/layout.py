"""Files that hold tensors and nothing else: a layout says which are the actor, in which order, and what comes between.

CleanRL's own names are known; for anything else a TOML is asked for, and a template with every tensor of the file is written.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from puffer_edge.contract import HEADS
from puffer_edge.errors import InvalidInput, PufferEdgeError
from puffer_edge.files import write_atomic
from puffer_edge.intake.activations import check
from puffer_edge.intake.archives import short
from puffer_edge.intake.contract_toml import load_toml
from puffer_edge.intake.draft import Draft
from puffer_edge.intake.sources import Sources
from puffer_edge.intake.tensors import Tensors
from puffer_edge.policy import AnyLayer, Conv, Layer, Normalizer, Pool, Recurrent
from puffer_edge.spaces import Floats

EPSILON = 1e-8
_FIELDS = {
    "dense": {"weight", "bias", "activation"},
    "conv": {"weight", "bias", "activation", "shape", "stride", "padding", "depthwise"},
    "pool": {"pool", "shape"},
    "gru": {"weight_ih", "weight_hh", "bias_ih", "bias_hh"},
    "lstm": {"weight_ih", "weight_hh", "bias_ih", "bias_hh"},
}
_TOP = {"head", "layers", "normalizer", "action", "choices"}


def read(tensors: Tensors, sources: Sources, folder: Path) -> Draft:
    """A draft of the actor in a file of tensors.

    Args:
        tensors: the file.
        sources: has the layout, if one was given.
        folder: where a template goes where none was given and the names are unknown.

    Raises:
        InvalidInput: the layout is missing, or does not fit the tensors.
    """
    if sources.layout is not None:
        data, _ = load_toml(sources.layout)
        return _Layout(tensors, data, os.fspath(sources.layout)).draft({"format": "state-dict", "layout": Path(sources.layout).name})
    guess = _cleanrl(tensors)
    if guess is not None:
        script, data, notes = guess
        draft = _Layout(tensors, data, "the layout of " + script).draft({"format": "state-dict", "algorithm": script})
        return Draft(**{**vars(draft), "source": script, "notes": (*draft.notes, *notes)})
    path = folder / "layout.toml"
    there = path.exists()
    if not there:
        write_atomic(path, template(tensors))
    raise InvalidInput(
        f"{tensors.what} holds {len(tensors)} tensors and does not say what they do: "
        f"{'there is a layout at' if there else 'a template is in'} {path}. Complete it, then: {sources.command(layout=path)} --out {folder}"
    )


class _Layout:
    """A layout and the tensors that it speaks of."""

    def __init__(self, tensors: Tensors, data: dict[str, Any], what: str) -> None:
        self.tensors, self.data, self.what = tensors, data, what
        self._known(data, _TOP, f"the layout {what}")

    def draft(self, origin: dict[str, Any]) -> Draft:
        rows = self.data.get("layers")
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise InvalidInput(f"{self.what}: it needs [[layers]] tables, one a layer, in order")
        layers: list[AnyLayer] = []
        for k, row in enumerate(rows):
            try:
                layers.append(self._layer(row))
            except PufferEdgeError as error:
                raise type(error)(f"{self.what}, layers[{k}]: {error}") from None
        head = self.data.get("head")
        if head is not None and head not in HEADS:
            raise InvalidInput(f"{self.what}: head is {short(repr(head))}, one of {', '.join(HEADS)} (or left out: the contract says it)")
        last = layers[-1]
        if isinstance(last, Layer) and last.activation == "tanh" and head == "tanh":
            layers[-1] = Layer(last.weight, last.bias, "none")
        scale, offset = self._action()
        choices = self._whole(self.data.get("choices", []), "choices")
        draft = Draft("state dict", tuple(layers), head, self._normalizer(), scale=scale, offset=offset, choices=choices, origin=origin)
        if head == "discrete" and not choices:
            choices = (draft.n_outputs,)
        elif head == "multi_discrete" and sum(choices) != draft.n_outputs:
            raise InvalidInput(f"{self.what}: choices = [number an action, …] must add up to the {draft.n_outputs} outputs, not {sum(choices)}")
        bounds = {} if scale is None or offset is None else {"action_low": offset - np.abs(scale), "action_high": offset + np.abs(scale)}
        return Draft(**{**vars(draft), "choices": choices, **(bounds if head == "tanh" else {})})

    def _layer(self, row: dict[str, Any]) -> AnyLayer:
        kind = row.get("kind", "dense")
        if kind not in _FIELDS:
            raise InvalidInput(f"kind is {short(repr(kind))}, one of {', '.join(_FIELDS)}")
        self._known(row, {"kind", *_FIELDS[kind]}, f"a {kind} layer")
        if kind == "pool":
            return Pool(row.get("pool", "average"), self._three(row.get("shape"), "shape"))
        if kind in ("gru", "lstm"):
            weights = [self._tensor(row, name) for name in ("weight_ih", "weight_hh")]
            biases = [self._tensor(row, name, zeros=len(weights[0])) for name in ("bias_ih", "bias_hh")]
            return Recurrent(kind, *weights, *biases)
        weight, activation = self._tensor(row, "weight"), check(row.get("activation", "none"), "activation")
        bias = self._tensor(row, "bias", zeros=len(weight) if weight.ndim else 0)
        if kind == "dense":
            return Layer(weight, bias, activation)
        weight = weight[:, :, None] if weight.ndim == 3 else weight  # a signal over time: an image of height 1
        stride = self._whole(row.get("stride", [1, 1]), "stride")
        padding = self._whole(row.get("padding", [0, 0, 0, 0]), "padding")
        shape = self._three(row.get("shape"), "shape")
        if len(stride) != 2 or len(padding) != 4:
            raise InvalidInput("stride = [down, right] and padding = [top, left, bottom, right]")
        return Conv(weight, bias, activation, shape, (stride[0], stride[1]), padding[:4], bool(row.get("depthwise", False)))

    def _tensor(self, row: dict[str, Any], field: str, zeros: int | None = None) -> Floats:
        name = row.get(field)
        if name is None and zeros is not None:
            return np.zeros(zeros)
        if not isinstance(name, str):
            raise InvalidInput(f"{field} must be the name of a tensor, not {short(repr(name))}")
        return self.tensors[name]

    def _normalizer(self) -> Normalizer | None:
        about = self.data.get("normalizer")
        if about is None:
            return None
        if not isinstance(about, dict):
            raise InvalidInput(f"{self.what}: normalizer must be a table")
        self._known(about, {"mean", "var", "std", "epsilon", "clip"}, f"normalizer in {self.what}")
        mean = self._tensor(about, "mean").reshape(-1)
        std = self._tensor(about, "std") if "std" in about else np.sqrt(self._tensor(about, "var") + self._number(about, "epsilon", EPSILON))
        return Normalizer(mean, std.reshape(-1), self._number(about, "clip", 10.0))

    def _action(self) -> tuple[Floats | None, Floats | None]:
        about = self.data.get("action")
        if about is None:
            return None, None
        if not isinstance(about, dict):
            raise InvalidInput(f"{self.what}: action must be a table")
        self._known(about, {"scale", "offset"}, f"action in {self.what}")
        values: list[Floats | None] = []
        for field in ("scale", "offset"):
            given = about.get(field)
            if isinstance(given, list) and all(isinstance(v, (int, float)) for v in given):
                values.append(np.asarray(given, np.float64))
            else:
                values.append(None if given is None else self._tensor(about, field).reshape(-1))
        return values[0], values[1]

    def _number(self, about: dict[str, Any], field: str, default: float) -> float:
        value = about.get(field, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
            raise InvalidInput(f"{self.what}: {field} must be a positive number, not {short(repr(value))}")
        return float(value)

    def _whole(self, value: Any, field: str) -> tuple[int, ...]:
        if not isinstance(value, list) or any(type(v) is not int or not 0 <= v <= 4096 for v in value):
            raise InvalidInput(f"{field} must be a list of whole numbers up to 4096, not {short(repr(value))}")
        return tuple(value)

    def _three(self, value: Any, field: str) -> tuple[int, int, int]:
        numbers = self._whole(value, field)
        if len(numbers) != 3:
            raise InvalidInput(f"{field} must be [channels, height, width], not {short(repr(value))}")
        return numbers[0], numbers[1], numbers[2]

    def _known(self, table: dict[str, Any], known: set[str], place: str) -> None:
        unknown = sorted(set(table) - known)
        if unknown:
            raise InvalidInput(f"{place} has the unknown field {short(unknown[0])}; known are {', '.join(sorted(known))}")


def _sequence(tensors: Tensors, prefix: str) -> list[str]:
    """Names of the linear layers of a torch ``Sequential``; empty where it is none of linear layers and activations alone."""
    found = {int(m.group(1)) for name in tensors if (m := re.fullmatch(re.escape(prefix) + r"\.(\d{1,4})\.(?:weight|bias)", name))}
    order = sorted(found)
    plain = order == [2 * k for k in range(len(order))] and all(f"{prefix}.{k}.weight" in tensors for k in order)
    return [f"{prefix}.{k}" for k in order] if plain and all(len(tensors.shape(f"{prefix}.{k}.weight")) == 2 for k in order) else []


def _rows(names: Sequence[str], activation: str) -> list[dict[str, Any]]:
    last = len(names) - 1
    return [{"weight": f"{n}.weight", "bias": f"{n}.bias", "activation": activation if k < last else "none"} for k, n in enumerate(names)]


def _cleanrl(tensors: Tensors) -> tuple[str, dict[str, Any], tuple[str, ...]] | None:
    """What CleanRL's scripts name their tensors: the script, a layout, and what it takes for granted."""
    normal = "CleanRL does not save the statistics of NormalizeObservation: without --normalizer a policy that was trained behind it is another one"
    if names := _sequence(tensors, "actor_mean"):
        said = f"activations are not in the file: tanh, as ppo_continuous_action.py has them. {normal}"
        return "CleanRL ppo_continuous_action", {"head": "clip", "layers": _rows(names, "tanh")}, (said,)
    if (names := _sequence(tensors, "actor")) and any(name.startswith("critic.") for name in tensors):
        said = "activations are not in the file: tanh, as ppo.py has them"
        return "CleanRL ppo", {"head": "discrete", "layers": _rows(names, "tanh")}, (said,)
    if "action_scale" in tensors and "action_bias" in tensors:
        for last, script in (("fc_mean", "sac_continuous_action"), ("fc_mu", "td3_continuous_action")):
            hidden = [name for name in ("fc1", "fc2", "fc3", "fc4") if f"{name}.weight" in tensors]
            if f"{last}.weight" in tensors and hidden:
                said = f"activations are not in the file: relu, as {script}.py has them"
                action = {"scale": "action_scale", "offset": "action_bias"}
                return f"CleanRL {script}", {"head": "tanh", "layers": _rows([*hidden, last], "relu"), "action": action}, (said,)
    for prefix in ("network", "q_network"):
        if (names := _sequence(tensors, prefix)) and "atoms" not in tensors and all(name.startswith(prefix + ".") for name in tensors):
            said = "activations are not in the file: relu, as dqn.py has them"
            return "CleanRL dqn", {"head": "discrete", "layers": _rows(names, "relu")}, (said,)
    return None


def template(tensors: Tensors) -> str:
    """A layout that names every tensor of a file, for somebody to complete."""
    lines = [
        "# Which tensors of the file are the actor, in order from observation to output. Delete what is not (critics, log_std, optimisers).",
        'head = "?"   # "clip" (a number an output, clamped), "tanh" (squashed), "discrete" (the largest output chooses), "multi_discrete"',
        '# choices = [3, 2]   # for "multi_discrete": how many choices each action has',
        '# [action]            # for "clip" and "tanh": physical action = offset + scale · output',
        "# scale = [1.0]        # or the name of a tensor",
        "# offset = [0.0]",
        "# [normalizer]         # names of tensors; x becomes clip((x − mean) / sqrt(var + epsilon), ±clip)",
        '# mean = "…"',
        '# var = "…"           # or std',
        "# epsilon = 1e-8",
        "# clip = 10.0",
    ]
    weights = [name for name in list(tensors)[:200] if len(tensors.shape(name)) >= 2]
    for name in weights:
        shape = tensors.shape(name)
        if "weight_hh" in name:
            continue
        if "weight_ih" in name:
            square = tensors.shape(name.replace("weight_ih", "weight_hh")) if name.replace("weight_ih", "weight_hh") in tensors else (0, 1)
            lines += ["", "[[layers]]", f'kind = "{"gru" if square[0] == 3 * square[1] else "lstm"}"   # {" × ".join(map(str, shape))}']
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                lines.append(f"{part} = {_quoted(name.replace('weight_ih', part))}")
            continue
        bias, kind = name.removesuffix("weight") + "bias", "dense" if len(shape) == 2 else "conv"
        lines += [
            "",
            "[[layers]]",
            f'kind = "{kind}"   # {" × ".join(map(str, shape))}',
            f"weight = {_quoted(name)}",
        ]
        lines += [f"bias = {_quoted(bias)}"] if bias in tensors else []
        lines += [] if len(shape) == 2 else ["shape = [0, 0, 0]   # channels, height, width of what goes in", "stride = [1, 1]"]
        lines.append('activation = "?"   # of this layer: none, relu, tanh, sigmoid, elu, silu, leaky_relu, gelu; the last has none')
    others = [name for name in list(tensors)[:200] if name not in weights and not name.endswith("bias")]
    lines += ["", "# other tensors: " + ", ".join(_quoted(name) for name in others)] if others else []
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A TOML string of any text."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in plain) + '"'
