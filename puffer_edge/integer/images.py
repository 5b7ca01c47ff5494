"""Convolutions and pools in integers: images with channels last, one scale an image."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import Unsupported
from puffer_edge.integer.ops import conv, pool
from puffer_edge.integer.ops.dense import Scales
from puffer_edge.integer.scales import Profile, Seen, bias_limit, channels_last, weight_scales, whole_bias
from puffer_edge.layers import Conv, Pool
from puffer_edge.spaces import Floats


def filter_scales(layer: Conv, scale_in: float, profile: Profile) -> Floats:
    """(filters,) scale of the weights of each filter."""
    rows = layer.weight.reshape(len(layer.bias), -1)
    return weight_scales(rows, layer.bias, scale_in, profile, bias_limit(rows.shape[1], profile))


def check_order(seen: Seen, shape: tuple[int, int, int]) -> None:
    """Raise unless the integers so far lie as an image of this shape with channels last."""
    wanted = channels_last(shape)
    if len(wanted) != len(seen.order) or (wanted != seen.order).any():
        raise Unsupported(f"an image of {shape} is made of values in another order: let a dense layer, or an image of the same shape, come before it")


def convolution(layer: Conv, y: Floats, seen: Seen, scales: Scales, zero: int, profile: Profile) -> conv.Conv:
    """A convolution whose bias makes the mean error on the calibration zero.

    Args:
        layer: the float layer.
        y: (N, outputs) float outputs before the activation.
        seen: what it receives.
        scales: of input, weights of each filter, and output.
        zero: zero point of the output.
        profile: the integers.
    """
    check_order(seen, layer.shape)
    top = 7 if profile.bits == 4 else 127
    whole = np.clip(np.rint(layer.weight / scales.weight[:, None, None, None]), -top, top).astype(np.int8)
    rounded = dataclasses.replace(layer, weight=whole * scales.weight[:, None, None, None], bias=np.zeros_like(layer.bias))
    filters, height, width = layer.out_shape
    error = (y - rounded.linear(seen.values))[seen.held].reshape(-1, filters, height * width).mean((0, 2))
    weight = whole.transpose(0, 2, 3, 1)
    folded = whole_bias(error, scales.input * scales.weight, seen.zero * weight.astype(np.int64).reshape(filters, -1).sum(1))
    (channels, rows, columns), (above, left, _, _) = layer.shape, layer.padding
    kernel = int(layer.weight.shape[2]), int(layer.weight.shape[3])
    geometry = conv.Geometry(rows, columns, channels, filters, height, width, kernel, layer.stride, (above, left))
    limit = 32768 if profile.x16 else 128
    low = zero if layer.activation == "relu" else -limit
    multiplier, shift = scales.multipliers(False) if not profile.powers else scales.shifts(False)
    arrays = weight, folded, multiplier, shift
    return conv.Conv(*arrays, geometry, zero, low, limit - 1, seen.zero, profile.x16, profile.bits, layer.depthwise, scales)


def pooling(layer: Pool, y: Floats, seen: Seen, profile: Profile) -> tuple[pool.Pool, Seen]:
    """A global pool, and what it makes of the calibration; scale and zero point stay."""
    check_order(seen, layer.shape)
    op = pool.Pool(layer.shape[1] * layer.shape[2], layer.shape[0], layer.kind == "max", profile.x16)
    none: npt.NDArray[np.int64] = np.zeros(0, np.int64)
    return op, Seen(y, op.run(seen.codes), seen.scale, seen.zero, none, seen.starts, seen.held)
