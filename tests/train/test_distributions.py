"""The two distributions against torch's own, and their samples against their probabilities."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from puffer_edge.train.distributions import Categorical, Gaussian  # noqa: E402


def test_categorical_equals_torch() -> None:
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    ours, theirs = Categorical(logits), torch.distributions.Categorical(logits=logits)
    action = ours.sample(np.random.default_rng(0))
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())


def test_gaussian_equals_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_std = torch.randn(50, 3, generator=generator), torch.randn(3, generator=generator)
    ours = Gaussian(mean, log_std)
    theirs = torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), 1)
    action = ours.sample(np.random.default_rng(0))
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())


def test_samples_come_as_often_as_they_should() -> None:
    rng, n = np.random.default_rng(0), 20_000
    logits = torch.tensor([[0.0, 1.0, -1.0]]).expand(n, 3)
    found = np.bincount(Categorical(logits).sample(rng).numpy(), minlength=3) / n
    np.testing.assert_allclose(found, torch.softmax(logits[0], -1).numpy(), atol=0.02)
    drawn = Gaussian(torch.full((n, 1), 2.0), torch.tensor([-1.0])).sample(rng).numpy()
    assert drawn.mean() == pytest.approx(2.0, abs=0.02) and drawn.std() == pytest.approx(np.exp(-1), abs=0.02)
