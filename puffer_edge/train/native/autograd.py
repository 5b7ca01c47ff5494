"""The native networks under torch's autograd: any loss that is written in torch gains their forward and backward passes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.train.native.engine import Engine


class MLPFunction(torch.autograd.Function):
    """(rows, outputs and values) of (rows, inputs), with the derivative by each parameter; call it through ``outputs``."""

    @staticmethod
    def forward(ctx: Any, engine: Engine, flat: torch.Tensor, x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        """Parameters are views on ``flat``, in its order: they are named so that autograd brings their gradients to them."""
        ctx.engine, ctx.shapes = engine, [p.shape for p in parameters]
        ctx.save_for_backward(flat, x, *parameters)  # autograd then sees it if one is changed before backward
        return torch.from_numpy(engine.forward(flat.detach().numpy(), x.detach().numpy()))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d: torch.Tensor) -> tuple[Any, ...]:
        """Views on one flat gradient."""
        flat, x, *_ = ctx.saved_tensors
        gradient = torch.from_numpy(ctx.engine.backward(flat.detach().numpy(), x.detach().numpy(), d.contiguous().numpy()))
        sizes = [shape.numel() for shape in ctx.shapes]
        parts = torch.split_with_sizes(gradient[: sum(sizes)], sizes)
        return (None, None, None, *(part.view(shape) for part, shape in zip(parts, ctx.shapes)))


def outputs(engine: Engine, flat: torch.Tensor, parameters: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The outputs of the policy, and right of them the value.

    Args:
        engine: for networks of this shape.
        flat: (size,) all parameters.
        parameters: views on ``flat`` that receive gradients, in its order and without a gap; log_std, at its end, may be left out. Where
            torch records none they are not looked at.
        x: (rows, inputs), through which no gradient flows.

    Returns:
        (rows, outputs + 1).

    Raises:
        InvalidInput: sizes do not fit the engine, or the parameters are not those views.
        Unsupported: a gradient by x is wanted.
    """
    if x.requires_grad:
        raise Unsupported("the native networks give no gradient by their inputs: detach them, or use the torch modules")
    if not torch.is_grad_enabled():  # a rollout, where it is half of what a pass of two rows costs
        return torch.from_numpy(engine.forward(flat.detach().numpy(), x.numpy()))
    at = flat.data_ptr()
    for p in parameters:
        if p.data_ptr() != at or not p.is_contiguous():
            raise InvalidInput("parameters must be views on the flat buffer, in its order")
        at += p.numel() * p.element_size()
    given, needed = sum(p.numel() for p in parameters), engine.shape.size - engine.shape.spread
    if not needed <= given <= engine.shape.size:
        raise InvalidInput(f"the parameters are {given} numbers, the networks have {needed}")
    found: torch.Tensor = MLPFunction.apply(engine, flat, x, *parameters)  # type: ignore[no-untyped-call]
    return found


def segments(engine: Engine) -> list[tuple[int, ...]]:
    """Shapes of the parameters in the flat buffer, in its order: weight and bias of each layer, then log_std."""
    found: list[tuple[int, ...]] = []
    for widths in engine.shape.networks:
        for inputs, out in itertools.pairwise(widths):
            found += [(out, inputs), (out,)]
    return found + ([(engine.shape.spread,)] if engine.shape.spread else [])
