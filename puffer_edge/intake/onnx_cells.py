"""ONNX operators over space and time: convolution, pooling, batch normalisation, GRU and LSTM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import Unsupported
from puffer_edge.intake import onnx_constants as constants
from puffer_edge.intake.elements import Scale, Whole
from puffer_edge.intake.onnx_values import Flow, Node, State, Value, flow, known, spread, then
from puffer_edge.policy import Conv, Pool, Recurrent

Floats = npt.NDArray[np.float64]


def image(x: Flow) -> tuple[int, int, int]:
    """(channels, height, width): a signal over time is an image of height 1."""
    if len(x.dims) == 3:
        return x.dims[1], 1, x.dims[2]
    if len(x.dims) == 4:
        return x.dims[1], x.dims[2], x.dims[3]
    raise Unsupported(f"a convolution or pooling over {x.dims}: 1-D and 2-D are known")


def pool(kind: str) -> Callable[[Node, Sequence[Any], int], Flow]:
    def run(node: Node, inputs: Sequence[Value | None], opset: int) -> Flow:
        x = flow(inputs[0])
        return then(x, (1, x.dims[1], *[1] * (len(x.dims) - 2)), Whole(Pool(kind, image(x))))

    return run


def reduce(kind: str) -> Callable[[Node, Sequence[Any], int], Flow]:
    def run(node: Node, inputs: Sequence[Value | None], opset: int) -> Flow:
        x = flow(inputs[0])
        places = constants.axes(node, inputs)
        spatial = set(range(2, len(x.dims)))
        if len(x.dims) not in (3, 4) or places is None or {p % len(x.dims) for p in places} != spatial:
            raise Unsupported("a mean or maximum over other axes than all of an image's, or of a signal's time")
        keep = int(node.attributes.get("keepdims", 1))
        return then(x, (1, x.dims[1], *([1] * len(spatial) if keep else [])), Whole(Pool(kind, image(x))))

    return run


def batch_norm(node: Node, inputs: Sequence[Value | None], opset: int) -> Flow:
    x = flow(inputs[0])
    if node.attributes.get("training_mode", 0):
        raise Unsupported("a BatchNormalization that still trains: export in evaluation mode")
    gamma, beta, mean, var = (np.asarray(known(inputs, k), np.float64) for k in range(1, 5))
    factor = gamma / np.sqrt(var + float(node.attributes.get("epsilon", 1e-5)))
    shape = (-1, *[1] * (len(x.dims) - 2))
    return then(x, x.dims, Scale(spread(factor.reshape(shape), x), spread((beta - mean * factor).reshape(shape), x)))


def conv(node: Node, inputs: Sequence[Value | None], opset: int) -> Flow:
    """Conv: 1-D or 2-D, all channels at once or each by itself, without dilation."""
    x = flow(inputs[0])
    weight = np.asarray(known(inputs, 1), np.float64)
    bias = np.asarray(known(inputs, 2, np.zeros(len(weight))), np.float64)
    return _convolved(node, x, weight, bias, int(node.attributes.get("group", 1)))


def max_pool(node: Node, inputs: Sequence[Value | None], opset: int) -> list[Value]:
    """MaxPool, where its kernel covers everything: then it is the global one."""
    x = flow(inputs[0])
    if tuple(node.attributes["kernel_shape"]) != x.dims[2:] or _padded(node):
        raise Unsupported(f"a MaxPool that leaves more than one place of {x.dims[2:]}: the nearest is GlobalMaxPool, or a Conv with a stride")
    return [pool("max")(node, inputs, opset)]


def average_pool(node: Node, inputs: Sequence[Value | None], opset: int) -> Flow:
    """AveragePool is a depthwise convolution with equal weights, as long as no padding is averaged."""
    x = flow(inputs[0])
    kernel = [int(k) for k in node.attributes["kernel_shape"]]
    if _padded(node) or node.attributes.get("ceil_mode", 0) or not 0 < np.prod(kernel) <= 4096:
        raise Unsupported("an AveragePool with padding or ceil_mode")
    channels = x.dims[1]
    return _convolved(node, x, np.full((channels, 1, *kernel), 1 / np.prod(kernel)), np.zeros(channels), channels)


def _padded(node: Node) -> bool:
    """Whether a pool looks beyond the edge: SAME says so without any numbers, and then leaves out of its average what is not there."""
    return any(node.attributes.get("pads", [])) or node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")


def _convolved(node: Node, x: Flow, weight: Floats, bias: Floats, group: int) -> Flow:
    channels, height, width = image(x)
    spatial = len(x.dims) - 2
    if weight.ndim != len(x.dims) or any(d != 1 for d in node.attributes.get("dilations", [])):
        raise Unsupported(f"a convolution with weights {weight.shape} over {x.dims}, or with dilation")
    if group not in (1, channels):
        raise Unsupported(f"a convolution of {channels} channels in {group} groups: one group, or one a channel")
    stride = [int(s) for s in node.attributes.get("strides", [1] * spatial)]
    pads = _pads(node, x.dims[2:], weight.shape[2:], stride)
    if spatial == 1:
        weight, stride, pads = weight[:, :, None, :], [1, *stride], [0, pads[0], 0, pads[1]]
    depthwise = group == channels and channels > 1
    down, across = stride
    layer = Conv(weight, bias, "none", (channels, height, width), (down, across), (pads[0], pads[1], pads[2], pads[3]), depthwise)
    filters, *size = layer.out_shape
    return then(x, (1, filters, *size[2 - spatial :]), Whole(layer))


def _pads(node: Node, size: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> list[int]:
    """Zeros before each axis, then after each: as given, or as SAME asks for (output = ⌈input / stride⌉)."""
    auto = node.attributes.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        return [int(p) for p in node.attributes.get("pads", [0] * 2 * len(size))]
    if auto == "VALID":
        return [0] * 2 * len(size)
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise Unsupported(f"auto_pad {auto!r}")
    total = [max(0, (-(-n // s) - 1) * s + k - n) for n, k, s in zip(size, kernel, stride)]
    less, more = [t // 2 for t in total], [t - t // 2 for t in total]
    return less + more if auto == "SAME_UPPER" else more + less


def recurrent(node: Node, inputs: Sequence[Value | None], opset: int) -> list[Value]:
    """GRU and LSTM over one step, with the memory from outside or cleared.

    ONNX orders the gates z, r, h (GRU) and i, o, f, c (LSTM); torch r, z, n and i, f, g, o.
    """
    x, a, kind = flow(inputs[0]), node.attributes, node.op.lower()
    hidden, gates = int(a["hidden_size"]), 3 if kind == "gru" else 4
    _check_cell(node, inputs, x)
    if kind == "gru" and not a.get("linear_before_reset", 0):
        raise Unsupported("a GRU whose reset gate acts before the product: torch's acts after it (linear_before_reset = 1)")
    weight, kept = (np.asarray(known(inputs, k), np.float64) for k in (1, 2))
    if weight.shape[0] != 1 or kept.shape[0] != 1:
        raise Unsupported("a cell with two directions: a device cannot look ahead")
    bias = np.asarray(known(inputs, 3, np.zeros((1, 2 * gates * hidden))), np.float64)[0]
    order = (1, 0, 2) if kind == "gru" else (0, 2, 3, 1)

    def sorted_rows(rows: Floats) -> Floats:
        blocks = rows.reshape(gates, hidden, *rows.shape[1:])
        return np.concatenate([blocks[k] for k in order])

    half = gates * hidden
    cell = Recurrent(kind, sorted_rows(weight[0]), sorted_rows(kept[0]), sorted_rows(bias[:half]), sorted_rows(bias[half:]))
    if cell.n_in != x.dims[-1]:
        raise Unsupported(f"a cell that takes {cell.n_in} of {x.dims[-1]} values")
    whole = Whole(cell)  # one element for both outputs: they are one value
    return [then(x, (1, 1, 1, hidden), whole), then(x, (1, 1, hidden), whole), State("", np.zeros((1, 1, hidden), np.int64))]


def _check_cell(node: Node, inputs: Sequence[Value | None], x: Flow) -> None:
    a = node.attributes
    standard = ["Sigmoid", "Tanh"] if node.op == "GRU" else ["Sigmoid", "Tanh", "Tanh"]
    if a.get("activations", standard) != standard or "clip" in a or a.get("input_forget", 0):
        raise Unsupported("a cell with activations, a clip or coupled gates of its own: torch's cell is known")
    if a.get("direction", "forward") != "forward":
        raise Unsupported(f"a {a['direction']} cell: a device cannot look ahead")
    if len(x.dims) != 3 or x.size != x.dims[-1]:
        raise Unsupported(f"a cell over {x.dims}: export one step (time 1, batch 1), with the memory as input and output")
    if len(inputs) > 7 and inputs[7] is not None and np.any(known(inputs, 7)):
        raise Unsupported("an LSTM with peepholes")
    if len(inputs) > 4 and inputs[4] is not None and np.any(known(inputs, 4) != 1):
        raise Unsupported("a cell with sequence lengths: export one step")
    for start in inputs[5:7]:
        if isinstance(start, Flow) or (isinstance(start, np.ndarray) and start.any()):
            raise Unsupported("a cell that starts from something else than zeros or the memory of the step before")
