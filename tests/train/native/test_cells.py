"""The native recurrence against torch's loop: in double to its last digits, in float within 1e-5, forwards and back, with memory cleared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from puffer_edge.train import native  # noqa: E402
from puffer_edge.train.algorithms.ppo import PPO  # noqa: E402
from puffer_edge.train.nets.recurrent import GATES, STATES, Cell, unroll  # noqa: E402
from puffer_edge.train.settings import PPOSettings  # noqa: E402

SIZES = ((1, 1, 1, 1), (5, 2, 3, 7), (16, 2, 4, 32), (3, 1, 2, 19))
"""Steps, cells, rows, units."""


def found(kind: str, sizes: tuple[int, int, int, int], dtype: Any, library: Any) -> list[Any]:
    """Memory after each step, and the gradient of a sum of it by every parameter and input, in float64."""
    (steps, count, rows, units), generator = sizes, torch.Generator().manual_seed(sum(sizes))
    cells = [Cell(kind, 4, units, generator) for _ in range(count)]
    x = torch.randn(rows, steps, 4, generator=generator)
    memory = torch.randn(rows, count * STATES[kind] * units, generator=generator)
    kept = (torch.rand(rows, steps, generator=generator) > 0.3).float()
    pushed = torch.randn(steps, STATES[kind], count, rows, units, generator=generator)
    with torch.no_grad():
        for cell in cells:
            cell.bias_ih.normal_(generator=generator)
            cell.bias_hh.normal_(generator=generator)
    x, memory, kept, pushed = (value.to(dtype) for value in (x, memory, kept, pushed))
    x.requires_grad_()
    cells = [cell.to(dtype) for cell in cells]
    after = unroll(cells, [x] * count, memory, kept, library)
    (after * pushed).sum().backward()
    return [value.detach().double().numpy() for value in (after, x.grad, *(p.grad for cell in cells for p in cell.parameters()))]


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_it_is_torchs_loop(kind: str, sizes: tuple[int, int, int, int], double: Path, folder: Path, runs: list[str]) -> None:
    exact = found(kind, sizes, torch.float64, None)
    for one, other in zip(exact, found(kind, sizes, torch.float64, native.load("portable", double))):
        np.testing.assert_allclose(other, one, rtol=1e-10, atol=1e-12)
    for variant in runs:
        for one, other in zip(exact, found(kind, sizes, torch.float32, native.load(variant, folder))):
            assert np.linalg.norm(other - one) <= 1e-5 * max(np.linalg.norm(one), 1e-3)


def test_kernels_says_what_computes() -> None:
    settings = PPOSettings(memory="gru", memory_size=8, hidden=(8,), rows=2, horizon=16, minibatch=16, epochs=1, steps=64)
    if native.why_not():
        pytest.skip(f"{native.why_not()} (toolchain)")
    ours, torchs = (PPO("memory", PPOSettings(**{**settings.to_dict(), "kernels": name})).learn() for name in ("native", "torch"))
    assert (ours.kernels, torchs.kernels) == (native.load().variant, "torch")
    for p, q in zip(ours.net.parameters(), torchs.net.parameters()):
        np.testing.assert_allclose(p.detach(), q.detach(), rtol=1e-3, atol=1e-4)
