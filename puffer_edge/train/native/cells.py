"""The native recurrence of GRU and LSTM cells under torch's autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from puffer_edge.train.native import structs


class CellsFunction(torch.autograd.Function):
    """(L, states, K, S, H) memory after each step, with the derivative by what the cells are given and by their recurrent weights."""

    @staticmethod
    def forward(
        ctx: Any, library: Any, given: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, kept: torch.Tensor, start: torch.Tensor
    ) -> torch.Tensor:
        """L steps of K cells over S rows.

        Args:
            library: of ``native.load``.
            given: (L, K, S, gates · H) of this step's inputs to each gate.
            weight: (K, gates · H, H).
            bias: (K, gates · H).
            kept: (L, S) what memory is multiplied by after each step.
            start: (states, K, S, H) before the first; no gradient goes through it.
        """
        given, weight, bias, kept, start = (x.detach().contiguous() for x in (given, weight, bias, kept, start))
        (steps, cells, rows, wide), (states, _, _, size) = given.shape, start.shape
        after, gates = given.new_empty(steps, *start.shape), torch.empty_like(given)
        inner, work = given.new_empty(steps, cells, rows, size), given.new_empty(wide + 2 * size)
        ctx.library, ctx.lstm, turned = library, int(states == 2), weight.transpose(1, 2).contiguous()
        library.pe_cells_forward(ctx.lstm, _sequence(after, kept, start), *(x.data_ptr() for x in (given, turned, bias, after, gates, inner, work)))
        ctx.save_for_backward(weight, kept, start, after, gates, inner)
        return after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_after: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The recurrence in C; what the weights had to do with it in two products."""
        weight, kept, start, after, gates, inner = ctx.saved_tensors
        d_given, work = torch.empty_like(gates), gates.new_empty(2 * inner.shape[-1])
        d_kept, d_after = d_given if ctx.lstm else torch.empty_like(gates), d_after.contiguous()
        arrays = weight, after, gates, inner, d_after, d_given, d_kept, work
        ctx.library.pe_cells_backward(ctx.lstm, _sequence(after, kept, start), *(x.data_ptr() for x in arrays))
        before = torch.cat([start[:1], after[:-1, 0] * kept[:-1, None, :, None]])
        d, h = (x.transpose(0, 1).flatten(1, 2) for x in (d_kept, before))
        return None, d_given, d.transpose(1, 2) @ h, d.sum(1), None, None


def _sequence(after: torch.Tensor, kept: torch.Tensor, start: torch.Tensor) -> Any:
    steps, _, cells, rows, size = after.shape
    return structs.Sequence(steps, cells, rows, size, kept.data_ptr(), start.data_ptr())
