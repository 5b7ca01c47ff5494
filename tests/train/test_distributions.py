"""The two distributions against torch's own, and their samples against their probabilities."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from puffer_edge.train.distributions import Categorical, Gaussian, HeldNoise, StateDependent  # noqa: E402


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


def test_noise_of_the_state_has_the_deviation_that_it_names() -> None:
    generator, rng, n = torch.Generator().manual_seed(0), np.random.default_rng(0), 40_000
    features, log_std = torch.randn(1, 5, generator=generator).expand(n, 5), torch.randn(5, 2, generator=generator) - 1
    policy = StateDependent(torch.tensor([[1.0, -2.0]]).expand(n, 2), features, log_std)
    drawn = policy.sample(rng)
    np.testing.assert_allclose(drawn.mean(0), [1.0, -2.0], atol=0.03)
    np.testing.assert_allclose(drawn.std(0), policy.std[0], rtol=0.02)
    theirs = torch.distributions.Independent(torch.distributions.Normal(policy.mean, policy.std), 1)
    torch.testing.assert_close(policy.log_prob(drawn), theirs.log_prob(drawn))
    torch.testing.assert_close(policy.entropy(), theirs.entropy())


def test_a_matrix_is_held_until_its_time_or_its_episode_ends() -> None:
    rng, noise = np.random.default_rng(0), HeldNoise(2, (3, 1), 3)
    seen = [noise.step(rng).copy()]
    for ended in ([False, True], [False, False], [False, False]):
        noise.end(np.array(ended))
        seen.append(noise.step(rng).copy())
    changed = [(a != b).any((1, 2)).tolist() for a, b in zip(seen, seen[1:])]
    assert changed == [[False, True], [False, False], [True, False]]


def test_held_noise_moves_with_the_state_and_not_by_itself() -> None:
    features, log_std = torch.ones(1, 4), torch.zeros(4, 2)
    held = np.random.default_rng(0).standard_normal((1, 4, 2)).astype(np.float32)
    a, b = (StateDependent(torch.zeros(1, 2), features, log_std).sample(held) for _ in range(2))
    assert torch.equal(a, b)
    torch.testing.assert_close(a[0], torch.from_numpy(held[0].sum(0)))
