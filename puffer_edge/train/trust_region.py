"""Steps that stay where the policy is known: natural gradient, line search, and the step of CPO.

With g = ∇E[r(θ)·A], b = ∇ of the same of the cost, and H the Hessian of the mean KL(π_old ‖ π_θ) at θ_old, which is Fisher's matrix:

    max gᵀx                       subject to ½ xᵀHx ≤ δ    TRPO (Schulman et al., 2015, arXiv 1502.05477, appendix C)
    max gᵀx, c + bᵀx ≤ 0,         subject to ½ xᵀHx ≤ δ    CPO (Achiam et al., 2017, arXiv 1705.10528, eq. 10 and 11)

H is never written down: H·v is the gradient of (∇KL)ᵀv, and H⁻¹·v what conjugate gradients come to in a few products. All vectors are
(n,) float64, n being the number of the policy's parameters, whatever the type of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Product = Callable[[torch.Tensor], torch.Tensor]
"""H·v of (n,) v."""
NO_GRADIENT = 1e-12
"""Squared norm of b up to which there is no telling what changes the cost."""
LEAST = 1e-8
"""λ*, at least: where it is less, what it divides is nothing."""
UNREACHABLE, RECOVERABLE, CUT, INSIDE, FREE = range(5)
"""CPO's cases, numbered as in OmniSafe."""


def gradient(value: torch.Tensor, parameters: Sequence[torch.Tensor], keep: bool = False) -> torch.Tensor:
    """(n,) gradient of a number by all parameters; ``keep`` lets it be differentiated again."""
    found = torch.autograd.grad(value, parameters, create_graph=keep, retain_graph=True)
    return torch.cat([part.reshape(-1) for part in found]).double()


def hessian_product(value: torch.Tensor, parameters: Sequence[torch.Tensor], damping: float) -> Product:
    """v → (H + damping·I)·v, H being the Hessian of a number by the parameters (Pearlmutter, 1994)."""
    slope = gradient(value, parameters, keep=True)
    return lambda v: gradient(slope @ v, parameters) + damping * v


def conjugate_gradient(product: Product, b: torch.Tensor, steps: int, tolerance: float = 1e-10) -> torch.Tensor:
    """x with H·x ≈ b (Hestenes and Stiefel, 1952).

    Args:
        product: v → H·v, H symmetric and positive.
        b: (n,).
        steps: products, at most.
        tolerance: of the residual's squared norm, relative to that of b.
    """
    x, residual, direction = torch.zeros_like(b), b.clone(), b.clone()
    left = goal = float(residual @ residual)
    for _ in range(steps):
        if left <= tolerance * goal:
            break
        turned = product(direction)
        share = left / float(direction @ turned)
        x += share * direction
        residual -= share * turned
        before, left = left, float(residual @ residual)
        direction = residual + left / before * direction
    return x


@dataclass(frozen=True, eq=False)
class Step:
    """A step within the region.

    Attributes:
        case: FREE, INSIDE, CUT, RECOVERABLE or UNREACHABLE.
        region: λ*, the multiplier of the region's bound; 0 where the step is not of the dual.
        cost: ν*, that of the constraint; in UNREACHABLE the length of the way back.
        direction: (n,) x.
    """

    case: int
    region: float
    cost: float
    direction: torch.Tensor


def trpo_step(g: torch.Tensor, product: Product, delta: float, steps: int, case: int = FREE) -> Step:
    """The step without a constraint: √(2δ / gᵀH⁻¹g)·H⁻¹g.

    Args:
        g: (n,) gradient of what is to grow.
        product: v → H·v.
        delta: δ.
        steps: of the conjugate gradients.
        case: what the step is called.
    """
    x = conjugate_gradient(product, g, steps)
    return _within(x, float(g @ x), delta, case)


def cpo_step(g: torch.Tensor, b: torch.Tensor, c: float, product: Product, delta: float, steps: int, recovery: float = 1.0) -> Step:
    """The step that obeys the constraint, or, where none in the region can, one that comes nearer to it.

    With q = gᵀH⁻¹g, r = gᵀH⁻¹b, s = bᵀH⁻¹b, A = q − r²/s and B = 2δ − c²/s (the paper's appendix 10.2, there with −g for g), the cases are

    - FREE: c ≤ 0 and b = 0, TRPO's step;
    - INSIDE: c ≤ 0 and B < 0, the whole region obeys: TRPO's step;
    - CUT and RECOVERABLE: B ≥ 0 with c ≤ 0 or c > 0, x* = H⁻¹(g − ν*b)/λ* with λ* of the dual and ν* = max(λ*c + r, 0)/s;
    - UNREACHABLE: c > 0 and B < 0, −√(2δ/s)·H⁻¹b, the step that lowers the cost most. So, too, where c > 0 and b = 0: no step at all.

    With ``recovery`` ρ < 1 a step is asked to lower the cost by ρ·√(2δs) at most, that share of the most it can: c, where it is more, is taken
    for that much, and what RECOVERABLE says is the step. The reward has the rest, √(1 − ρ²) of the region's radius.

    Args:
        g: (n,) gradient of what is to grow.
        b: (n,) that of the cost.
        c: by how much the cost is above its limit, in the units of b.
        product: v → H·v.
        delta: δ.
        steps: of the conjugate gradients.
        recovery: ρ, above 0 and at most 1, which is the paper's.
    """
    if float(b @ b) <= NO_GRADIENT:
        return trpo_step(g, product, delta, steps) if c <= 0 else Step(UNREACHABLE, 0.0, 0.0, torch.zeros_like(g))
    to_b = conjugate_gradient(product, b, steps)
    s = float(b @ to_b)
    reach = math.sqrt(2 * delta * s)
    if c < -reach:
        return trpo_step(g, product, delta, steps, INSIDE)
    case = UNREACHABLE if c > reach else RECOVERABLE if c > 0 else CUT
    if case == UNREACHABLE and recovery == 1:
        return Step(case, 0.0, reach / s, -reach / s * to_b)
    c = min(c, recovery * reach)
    to_g = conjugate_gradient(product, g, steps)
    q, r = float(g @ to_g), float(g @ to_b)
    region, binding = _dual(q, r, s, c, delta)
    if not binding:
        return Step(case, region, 0.0, to_g / region)
    return Step(case, region, (region * c + r) / s, (to_g - r / s * to_b) / region - c / s * to_b)


def _dual(q: float, r: float, s: float, c: float, delta: float) -> tuple[float, bool]:
    """λ* and whether the constraint binds there: the dual's least value, where ν* > 0 or where ν* = 0.

    D(λ) = (A/λ + B·λ)/2 − r·c/s where λ·c + r > 0, and (q/λ + 2δ·λ)/2 elsewhere.
    """
    a, reach = max(q - r * r / s, 0.0), 2 * delta - c * c / s
    edge = -r / c if c else 0.0  # where λ·c + r changes its sign
    never = (math.inf, 0.0)
    binds, idles = never, never
    if c < 0:
        binds, idles = (0.0, edge) if r > 0 else never, (max(edge, 0.0), math.inf)
    elif c > 0:
        binds, idles = (max(edge, 0.0), math.inf), (0.0, edge) if r < 0 else never
    elif r > 0:
        binds = (0.0, math.inf)
    else:
        idles = (0.0, math.inf)
    found = []
    for (low, high), (over, under), rest, binding in ((binds, (a, reach), r * c / s, True), (idles, (q, 2 * delta), 0.0, False)):
        if low <= high:
            best = math.sqrt(over / under) if under > 0 else math.inf
            region = max(min(max(best, low), high), LEAST)
            found.append(((over / region + under * region) / 2 - rest, region, binding))
    _, region, binding = min(found)
    return region, binding


def _within(x: torch.Tensor, square: float, delta: float, case: int) -> Step:
    """The longest step along x, whose xᵀHx is known."""
    region = max(math.sqrt(max(square, 0.0) / (2 * delta)), LEAST)
    return Step(case, region, 0.0, x / region)


def line_search(parameters: Sequence[torch.Tensor], direction: torch.Tensor, accept: Callable[[], bool], steps: int, decay: float) -> float:
    """Go along a direction as far as is accepted: the whole way, or ``decay`` of it, or of that again.

    Args:
        parameters: they are moved; where nothing is accepted they are put back as they were, to the bit.
        direction: (n,).
        accept: whether the parameters may stay as they are now.
        steps: shares that are tried.
        decay: from one to the next.

    Returns:
        The share that was gone, 0 for none.
    """
    start = torch.cat([p.detach().reshape(-1) for p in parameters])
    for k in range(steps):
        share = decay**k
        _put(parameters, start.double() + share * direction)
        if accept():
            return share
    _put(parameters, start)
    return 0.0


def _put(parameters: Sequence[torch.Tensor], values: torch.Tensor) -> None:
    """Write (n,) values into the parameters."""
    with torch.no_grad():
        for p, part in zip(parameters, torch.split(values, [p.numel() for p in parameters])):
            p.copy_(part.view(p.shape))
