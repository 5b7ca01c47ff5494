"""The work in a tick, counted by kind: what a core has a price for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from puffer_edge.integer.ops import Op
from puffer_edge.integer.ops.affine import Affine
from puffer_edge.integer.ops.conv import Conv, Geometry
from puffer_edge.integer.ops.dense import Dense
from puffer_edge.integer.ops.gru import Gru
from puffer_edge.integer.ops.lstm import Lstm
from puffer_edge.integer.ops.pool import Pool
from puffer_edge.integer.ops.tanh16 import Tanh16
from puffer_edge.integer.program import Program
from puffer_edge.integer.shield import Shield


@dataclass(frozen=True)
class Work:
    """What is done in a tick in which the network runs. Every field is a kind of work with a price; all are counts.

    Attributes:
        tick: 1.
        observation: channels: clamped, scaled for the network, scaled for the shield.
        action: channels: carried to the shield and back, clamped.
        operation: operations of the program.
        mac_int8: products of int8 with int8, in dense layers and gates.
        mac_int16: products of int16 with int8, likewise.
        mac_int4: products of int8 with four-bit weights, likewise.
        requantise: roundings by multiplier and shift, but those of ``observation``, ``gate`` and ``state``.
        shift: roundings by a shift alone.
        lookup: entries read from a table of int8.
        interpolate: entries read from a table of int16, with what lies between two of them.
        squash: logistic functions and tanh on int16, which share one table.
        gate: sums of a recurrent layer's rows, each rounded and clamped.
        state: roundings by multiplier and shift of what an LSTM keeps, three for a number; a GRU has none.
        tap: products of a convolution's weights with values of the image, of any width.
        alone: products of a depthwise convolution, likewise.
        beyond: weights of a convolution that lie outside the image, where the zero point is not 0.
        blank: the same where it is 0, so that an engine may leave them out.
        window: places of a convolution, each for two filters at once.
        stretch: rows of taps in the image, of a window; of each filter where they are depthwise.
        pool: values that a pool looks at.
        choice: logits that a discrete head compares.
        shield: instructions of the shield, as bytecode.
        printed: instructions of the shield, where it is printed as C and compiled.
    """

    tick: int = 1
    observation: int = 0
    action: int = 0
    operation: int = 0
    mac_int8: int = 0
    mac_int16: int = 0
    mac_int4: int = 0
    requantise: int = 0
    shift: int = 0
    lookup: int = 0
    interpolate: int = 0
    squash: int = 0
    gate: int = 0
    state: int = 0
    tap: int = 0
    alone: int = 0
    beyond: int = 0
    blank: int = 0
    window: int = 0
    stretch: int = 0
    pool: int = 0
    choice: int = 0
    shield: int = 0
    printed: int = 0

    @property
    def macs(self) -> int:
        """Products of any width."""
        return self.mac_int8 + self.mac_int16 + self.mac_int4 + self.tap + self.alone + self.beyond + self.blank

    def four_bits(self) -> Work:
        """The same with weights of four bits in dense layers; gates keep eight, so this is no answer where there are any."""
        return replace(self, mac_int8=0, mac_int4=self.mac_int4 + self.mac_int8)

    def shifts(self) -> Work:
        """The same with scales that are powers of two."""
        return replace(self, requantise=0, shift=self.shift + self.requantise)


KINDS = tuple(Work.__dataclass_fields__)


def count(program: Program, shield: Shield) -> Work:
    """Count the work of a tick in which the network runs."""
    totals = dict.fromkeys(KINDS, 0) | {"tick": 1, "operation": len(program.ops), "shield": shield.instructions}
    totals["observation"], totals["action"] = program.contract.n_observations, program.contract.n_actions
    for op in program.ops[1:]:  # the rounding of the input step is part of an observation's price
        for kind, times in _of(op).items():
            totals[kind] += times
    last = program.ops[-1]
    totals["choice"] = 0 if isinstance(last, Affine) else last.n_in
    return Work(**totals)


def _of(op: Op) -> dict[str, int]:
    """What an operation does in a tick, by kind."""
    narrow = "mac_int16" if op.in_bytes == 2 else "mac_int8"
    if isinstance(op, (Gru, Lstm)):
        gates = len(op.given.bias) + len(op.kept.bias)
        found = {"gate": gates, "state": op.requantises - gates, "squash": op.lookups, narrow: int(op.given.weight.size)}
        return found | {"mac_int16": found.get("mac_int16", 0) + int(op.kept.weight.size)}  # the hidden state is int16 in every profile
    rounding = {"shift" if len(getattr(op, "multiplier", "any")) == 0 else "requantise": op.requantises}
    if isinstance(op, Conv):
        return rounding | _taps(op)
    if isinstance(op, Dense):
        padded = op.n_out * -(-op.n_in // 4) * 4  # rows have a multiple of four columns
        return rounding | {"mac_int4" if op.bits == 4 else narrow: padded}
    if isinstance(op, Pool):
        return {"pool": op.n_in, "requantise": 0 if op.largest else op.n_out}  # an average divides, which costs as much
    return rounding | {"squash" if isinstance(op, Tanh16) else "interpolate" if op.in_bytes == 2 else "lookup": op.lookups}


def _taps(op: Conv) -> dict[str, int]:
    """The products of a convolution, those with values of the image and those beyond it, and the rows that they lie in."""
    g = op.geometry
    rows, columns = _inside(g, 0), _inside(g, 1)
    each = g.filters * (1 if op.depthwise else g.channels)
    inside = sum(rows) * sum(columns) * each
    outside = "beyond" if op.zero_in else "blank"
    pairs = -(-g.filters // 2)
    stretches = sum(rows) * len(columns) * (g.filters if op.depthwise else pairs)
    return {"alone" if op.depthwise else "tap": inside, outside: op.macs - inside, "window": len(rows) * len(columns) * pairs, "stretch": stretches}


def _inside(g: Geometry, axis: int) -> list[int]:
    """Of the taps along an axis those that lie in the image, at each position."""
    size, positions = ((g.height, g.out_height), (g.width, g.out_width))[axis]
    begins = [k * g.stride[axis] - g.padding[axis] for k in range(positions)]
    return [min(size, at + g.kernel[axis]) - max(0, at) for at in begins]
