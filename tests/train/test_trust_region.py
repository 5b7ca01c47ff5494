"""Trust regions: conjugate gradients, Fisher's matrix, the line search, and CPO's step beside the best that a search finds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from puffer_edge.train import trust_region  # noqa: E402
from puffer_edge.train.distributions import Categorical, Choices, Gaussian, StateDependent, forbid  # noqa: E402
from puffer_edge.train.trust_region import CUT, FREE, INSIDE, RECOVERABLE, UNREACHABLE, conjugate_gradient, cpo_step, line_search  # noqa: E402

DELTA = 0.02


def positive(n: int, seed: int) -> Any:
    """(n, n) symmetric, eigenvalues of at least ½."""
    m = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, n)))
    return m @ m.T / n + 0.5 * torch.eye(n, dtype=torch.float64)


def vector(n: int, seed: int) -> Any:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=n))


@pytest.mark.parametrize("n", [1, 3, 12])
def test_conjugate_gradients_solve_a_system_in_as_many_steps_as_it_has_numbers(n: int) -> None:
    matrix, wanted = positive(n, 0), vector(n, 1)
    seen: list[int] = []

    def product(v: Any) -> Any:
        seen.append(1)
        return matrix @ v

    torch.testing.assert_close(conjugate_gradient(product, matrix @ wanted, n, 0.0), wanted, rtol=1e-6, atol=1e-9)
    assert len(seen) <= n
    assert not conjugate_gradient(product, torch.zeros(n, dtype=torch.float64), 10).any()


def test_conjugate_gradients_stop_when_they_are_there() -> None:
    seen: list[int] = []
    conjugate_gradient(lambda v: seen.append(1) or 2 * v, vector(8, 0), 15)
    assert len(seen) == 1, "one eigenvalue, one step"


HEADS: dict[str, Any] = {
    "categorical": lambda out: Categorical(out),
    "masked": lambda out: Categorical(forbid(out, torch.tensor([[True, False, True, True], [True, True, False, True], [True] * 4]))),
    "choices": lambda out: Choices(out, (2, 2)),
    "gaussian": lambda out: Gaussian(out[:, :2], out[0, 2:]),
    "state": lambda out: StateDependent(out[:, :2], torch.tensor([[0.3, 1.0], [2.0, 0.1], [0.5, 0.5]], dtype=out.dtype), out[:2, 2:]),
}


@pytest.mark.parametrize("head", HEADS)
def test_the_kl_is_the_mean_of_the_log_ratio(head: str) -> None:
    """Over samples; 0 of a distribution to itself, and what is forbidden leaves it finite."""
    make = HEADS[head]
    generator = torch.Generator().manual_seed(0)
    old, new = (make(torch.randn(3, 4, generator=generator, dtype=torch.float64)) for _ in range(2))
    np.testing.assert_allclose(old.kl(old), 0, atol=1e-12)
    rng, n, total = np.random.default_rng(0), 5_000, torch.zeros(3, dtype=torch.float64)
    for _ in range(n):
        action = old.sample(rng)
        total += old.log_prob(action) - new.log_prob(action)
    np.testing.assert_allclose(old.kl(new), total / n, rtol=0.1, atol=0.05)


@pytest.mark.parametrize("head", HEADS)
def test_the_fisher_vector_product_is_the_hessian_of_the_kl(head: str) -> None:
    """By torch's own Hessian of a small network, and by Fisher's definition where the actions can be enumerated."""
    make = HEADS[head]
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    weights = torch.randn(4 * 2, generator=generator, dtype=torch.float64).requires_grad_()

    def mean_kl(w: Any) -> Any:
        return old.kl(make(torch.tanh(inputs @ w.view(2, 4)))).mean()

    with torch.no_grad():
        old = make(torch.tanh(inputs @ weights.view(2, 4)))
    product = trust_region.hessian_product(mean_kl(weights), [weights], 0.1)
    explicit = torch.autograd.functional.hessian(mean_kl, weights.detach()) + 0.1 * torch.eye(8, dtype=torch.float64)
    for k in range(8):
        torch.testing.assert_close(product(torch.eye(8, dtype=torch.float64)[k]), explicit[k])
    if head in ("categorical", "masked"):
        new = make(torch.tanh(inputs @ weights.view(2, 4)))
        fisher = torch.zeros(8, 8, dtype=torch.float64)
        for action in range(4):
            log_p = new.log_prob(torch.full((3,), action))
            for row in range(3):
                if log_p[row] > -1e6:
                    (score,) = torch.autograd.grad(log_p[row], weights, retain_graph=True)
                    fisher += log_p[row].detach().exp() * torch.outer(score, score) / 3
        torch.testing.assert_close(explicit - 0.1 * torch.eye(8, dtype=torch.float64), fisher)


def test_trpos_step_reaches_the_bound_and_no_other_gains_more() -> None:
    matrix, g = positive(6, 2), vector(6, 3)
    step = trust_region.trpo_step(g, lambda v: matrix @ v, DELTA, 20)
    assert 0.5 * float(step.direction @ matrix @ step.direction) == pytest.approx(DELTA, rel=1e-6)
    others = on_the_bound(matrix, 20_000)
    assert float((others @ g).max()) <= float(step.direction @ g) * (1 + 1e-6)


def on_the_bound(matrix: Any, n: int) -> Any:
    """(n, k) random steps with ½ xᵀHx = δ."""
    x = torch.from_numpy(np.random.default_rng(9).normal(size=(n, len(matrix))))
    return x * (2 * DELTA / torch.einsum("bi,ij,bj->b", x, matrix, x)).sqrt()[:, None]


def best_by_search(g: Any, b: Any, c: float, matrix: Any) -> float:
    """The most that gᵀx can be with c + bᵀx ≤ 0 and ½ xᵀHx ≤ δ, x having two numbers: a fine grid of lengths and angles, −inf if there is none."""
    angle, share = np.meshgrid(np.linspace(0, 2 * np.pi, 4001), np.linspace(0, 1, 1001))
    root = torch.linalg.cholesky(matrix)  # x = L⁻ᵀy makes xᵀHx = yᵀy
    y = math.sqrt(2 * DELTA) * np.stack([share * np.cos(angle), share * np.sin(angle)]).reshape(2, -1)
    x = torch.linalg.solve_triangular(root.T, torch.from_numpy(y), upper=True)
    gained = torch.where(c + b @ x <= 0, g @ x, -math.inf)
    return float(gained.max())


H = torch.tensor([[2.0, 0.6], [0.6, 1.0]], dtype=torch.float64)


def two(*numbers: float) -> Any:
    return torch.tensor(numbers, dtype=torch.float64)


REACH = math.sqrt(2 * DELTA * float(two(1.0, 0.5) @ torch.linalg.solve(H, two(1.0, 0.5))))
"""By how much the best step of the region changes a cost of gradient (1, ½)."""


@pytest.mark.parametrize(
    ("case", "g", "b", "c"),
    [
        (FREE, two(1.0, -2.0), two(0.0, 0.0), -1.0),
        (FREE, two(1.0, -2.0), two(0.0, 0.0), 0.0),
        (INSIDE, two(1.0, 2.0), two(1.0, 0.5), -1.01 * REACH),
        (CUT, two(1.0, 2.0), two(1.0, 0.5), -0.3 * REACH),  # reward and cost pull together: it binds
        (CUT, two(-1.0, 2.0), two(1.0, 0.5), -0.3 * REACH),
        (CUT, two(-1.0, -2.0), two(1.0, 0.5), -0.3 * REACH),  # and apart: TRPO's step
        (CUT, two(2.0, 1.0), two(1.0, 0.5), -0.3 * REACH),  # parallel: A = 0
        (CUT, two(1.0, 2.0), two(1.0, 0.5), 0.0),
        (CUT, two(-1.0, -2.0), two(1.0, 0.5), 0.0),
        (RECOVERABLE, two(1.0, 2.0), two(1.0, 0.5), 0.3 * REACH),
        (RECOVERABLE, two(-1.0, -0.9), two(1.0, 0.5), 0.3 * REACH),  # TRPO's step is far enough back
        (RECOVERABLE, two(2.0, 1.0), two(1.0, 0.5), 0.3 * REACH),
        (RECOVERABLE, two(1.0, 2.0), two(1.0, 0.5), 0.99 * REACH),
    ],
    ids=str,
)
def test_cpos_step_is_the_best_that_a_search_finds(case: int, g: Any, b: Any, c: float) -> None:
    step = cpo_step(g, b, c, lambda v: H @ v, DELTA, 10)
    x = step.direction
    assert step.case == case
    assert 0.5 * float(x @ H @ x) <= DELTA * (1 + 1e-6)
    assert c + float(b @ x) <= 1e-9
    assert float(g @ x) == pytest.approx(best_by_search(g, b, c, H), rel=4e-3, abs=1e-5)
    if case in (CUT, RECOVERABLE) and step.region > 1e-6:  # stationary: H·x·λ = g − ν·b, and a constraint that does not bind costs nothing
        torch.testing.assert_close(step.region * (H @ x), g - step.cost * b)
        assert step.cost == 0 or c + float(b @ x) == pytest.approx(0, abs=1e-9)


def test_where_nothing_obeys_the_cost_falls_as_far_as_it_can() -> None:
    g, b, c = two(1.0, 2.0), two(1.0, 0.5), 1.5 * REACH
    step = cpo_step(g, b, c, lambda v: H @ v, DELTA, 10)
    assert step.case == UNREACHABLE and math.isinf(best_by_search(g, b, c, H))
    assert float(b @ step.direction) == pytest.approx(-REACH, rel=1e-6)
    assert float((on_the_bound(H, 50_000) @ b).min()) >= -REACH * (1 + 1e-6)
    for share in (0.3, 0.7, 0.95):
        some = cpo_step(g, b, c, lambda v: H @ v, DELTA, 10, recovery=share)
        asked = share * REACH
        assert some.case == UNREACHABLE and float(b @ some.direction) <= -asked * (1 - 1e-9)
        assert float(some.direction @ H @ some.direction) / 2 <= DELTA * (1 + 1e-9)
        assert float(g @ some.direction) == pytest.approx(best_by_search(g, b, asked, H), abs=1e-3)
        assert float(g @ some.direction) > float(g @ step.direction), "the reward has the rest"
    stays = cpo_step(g, two(0.0, 0.0), 0.1, lambda v: H @ v, DELTA, 10)
    assert stays.case == UNREACHABLE and not stays.direction.any(), "nothing is known to lower the cost"


@pytest.mark.parametrize("seed", range(60))
def test_cpos_step_obeys_and_is_stationary_in_many_numbers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 9))
    matrix, g, b = positive(n, seed), vector(n, seed + 1000), vector(n, seed + 2000)
    reach = math.sqrt(2 * DELTA * float(b @ torch.linalg.solve(matrix, b)))
    c = float(rng.uniform(-1.3, 1.3)) * reach
    step = cpo_step(g, b, c, lambda v: matrix @ v, DELTA, 50)
    x = step.direction
    assert step.case == (INSIDE if c < -reach else UNREACHABLE if c > reach else RECOVERABLE if c > 0 else CUT)
    assert 0.5 * float(x @ matrix @ x) == pytest.approx(DELTA, rel=1e-5), "what is linear has its best on the bound"
    if step.case != UNREACHABLE:
        assert c + float(b @ x) <= 1e-4 * reach
        torch.testing.assert_close(step.region * (matrix @ x), g - step.cost * b, rtol=1e-3, atol=1e-4)
        assert step.cost >= 0 and (step.cost == 0 or c + float(b @ x) == pytest.approx(0, abs=1e-4 * reach))


def test_the_line_search_shortens_rejects_and_restores() -> None:
    parameters = [torch.tensor([0.1, 0.2]), torch.tensor([[0.3]])]
    before = [p.clone() for p in parameters]
    direction = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)
    tried: list[float] = []

    def reject() -> bool:
        tried.append(parameters[1].item())
        return False

    assert line_search(parameters, direction, reject, 4, 0.5) == 0.0
    assert tried == pytest.approx([2.3, 1.3, 0.8, 0.55])
    assert all(torch.equal(p, old) for p, old in zip(parameters, before))
    assert line_search(parameters, direction, lambda: parameters[0][0].item() < 0.5, 10, 0.5) == 0.25
    assert parameters[0].tolist() == pytest.approx([0.35, -0.05]) and parameters[1].item() == pytest.approx(0.8)
