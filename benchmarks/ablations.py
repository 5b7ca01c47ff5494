"""What PufferLib has and we do not: Muon in the place of Adam, and prioritised segments; would either serve small control tasks?

    python benchmarks/ablations.py [--seeds 8] [--tasks cartpole:20000 servo:50000]

Each is a subclass of PPO in this file alone, on the torch engine, with the preset's settings and as many gradient steps as the baseline.

Muon (Jordan et al., 2024; ``torch.optim.Muon``) takes the matrices between hidden layers; Adam takes biases, input and output layers, as its
authors advise. Its rate is a multiple of Adam's, the best on each task of those tried, on seeds that are not in the table. The baseline
keeps the preset's rate, so the comparison favours Muon.

Segments are ``SEGMENT`` steps of a row. Each minibatch draws them anew from the whole rollout, without replacement, with probability
∝ (Σ|A|)^α; their normalised advantages are multiplied by (N·p)^−β, N segments in the rollout, β from 0.2 to 1 over the training
(as PufferLib 3.0, but that its β ends at 0.84 and that it computes advantages anew for each minibatch). With α = 0 all are as probable and
weigh 1: that tells what the priorities do from what minibatches of whole segments do.

Returns are of the deterministic policy at the end of the training, over 50 fresh episodes. "better" and "worse" are intervals that do not meet
the baseline's.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from record import Row, save, show

from puffer_edge.envs import closed_loop, load
from puffer_edge.train import iqm, preset
from puffer_edge.train.algorithms.ppo import PPO, STATISTICS, Batch
from puffer_edge.train.nets.actor_critic import ActorCritic
from puffer_edge.train.rollout import Rollout

TASKS = ("cartpole:20000", "cartpole:50000", "pendulum:50000", "servo:50000", "acrobot:100000")
FACTORS = (1.0, 3.0, 10.0, 30.0)
"""Of Adam's learning rate, for Muon's. A step of an orthogonal 64×64 matrix is as long as one of Adam's at 8."""
CHOOSING, EPISODES, EVALUATION_SEED = range(100, 104), 50, 10_000
SEGMENT = 32
BETA = 0.2


class Both:
    """Muon for the matrices between hidden layers and Adam for the rest, as one optimiser whose learning rate is Adam's."""

    def __init__(self, net: ActorCritic, adam: torch.optim.Optimizer, factor: float) -> None:
        matrices = [[p for p in part.parameters() if p.dim() == 2] for part in (net.actor, net.critic)]
        self.hidden = [p for part in matrices for p in part[1:-1]]
        held = {id(p) for p in self.hidden}
        self.adam = type(adam)([p for p in net.parameters() if id(p) not in held], **adam.defaults)
        self.muon = torch.optim.Muon(self.hidden, weight_decay=0.0)
        self.factor, self.param_groups = factor, self.adam.param_groups

    def zero_grad(self) -> None:
        """Of both."""
        self.muon.zero_grad()
        self.adam.zero_grad()

    def step(self) -> None:
        """Of both."""
        self.muon.param_groups[0]["lr"] = self.factor * self.param_groups[0]["lr"]
        self.muon.step()  # type: ignore[no-untyped-call]
        self.adam.step()


class Muon(PPO):
    """PPO with ``Both``."""

    def use(self, factor: float) -> None:
        """Take Muon with so many times Adam's rate."""
        assert isinstance(self.net, ActorCritic)
        self.optimizer = Both(self.net, self.optimizer, factor)  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class Weighted(Batch):
    """Samples whose advantages, once normalised, are multiplied by (B,) weights."""

    weight: torch.Tensor = field(kw_only=True)

    def normalized(self) -> Batch:
        """The same with advantages of mean 0 and standard deviation 1, multiplied."""
        return replace(self, advantage=super().normalized().advantage * self.weight)


class Prioritised(PPO):
    """PPO on prioritised segments."""

    alpha = 0.8

    def _update_in_torch(self, rollout: Rollout) -> dict[str, float]:
        settings, (batch, explained) = self.settings, self._batch(rollout)
        horizon, rows = rollout.reward.shape
        # (segments, SEGMENT) indices of samples, which are (horizon, rows)
        segments = np.arange(horizon * rows).reshape(horizon, rows).T.reshape(-1, SEGMENT)
        priority = batch.advantage.double().abs().numpy()[segments].sum(1) ** self.alpha + 1e-6
        p = priority / priority.sum()
        beta = BETA + (1 - BETA) * min(self.steps / settings.steps, 1.0)
        weight = torch.from_numpy(((len(p) * p) ** -beta).astype(np.float32)).repeat_interleave(SEGMENT)
        seen = []
        for _ in range(settings.epochs * (horizon * rows // settings.minibatch)):
            chosen = self.shuffle_rng.choice(len(segments), settings.minibatch // SEGMENT, replace=False, p=p)
            part = batch[torch.from_numpy(segments[chosen].ravel())]
            seen.append(self._step(Weighted(**vars(part), weight=weight.reshape(-1, SEGMENT)[chosen].ravel())))
        return dict(zip(STATISTICS, torch.stack(seen).double().mean(0).tolist())) | {"explained_variance": explained}


class Uniform(Prioritised):
    """PPO on segments, all as probable."""

    alpha = 0.0


def returns(kind: type[PPO], name: str, steps: int, seeds: range, factor: float) -> list[float]:
    """Final returns, one a seed; ``factor`` is Muon's."""
    found = []
    for seed in seeds:
        settings = replace(preset(name), engine="torch", steps=steps)
        learner = kind(name, settings, seed=seed)
        assert settings.horizon % SEGMENT == 0 and settings.horizon * settings.rows % settings.minibatch == 0, settings
        if isinstance(learner, Muon):
            learner.use(factor)
        learner.learn()
        found.append(float(np.mean(closed_loop.float_returns(load(name), learner.last_good, learner.shield, EPISODES, EVALUATION_SEED + seed))))
    return found


def chosen_factor(name: str, steps: int) -> tuple[float, dict[str, float]]:
    """Muon's factor that is best on seeds of their own, and the interquartile mean of each."""
    found = {factor: iqm.iqm(returns(Muon, name, steps, CHOOSING, factor)) for factor in FACTORS}
    return max(found, key=lambda factor: found[factor]), {f"{factor:g}": round(x, 1) for factor, x in found.items()}


def task_rows(name: str, steps: int, seeds: range) -> list[Row]:
    """A row for each variant, the baseline first."""
    factor, tried = chosen_factor(name, steps)
    variants = {
        "Adam, all samples": PPO,
        f"Muon at {factor:g} × Adam's rate": Muon,
        "prioritised segments": Prioritised,
        "uniform segments": Uniform,
    }
    rows: list[Row] = []
    for words, kind in variants.items():
        found = returns(kind, name, steps, seeds, factor)
        low, high = iqm.interval(found)
        against = rows[0] if rows else {"low": low, "high": high}
        beside = "better" if low > against["high"] else "worse" if high < against["low"] else "–"
        row: Row = {"environment": name, "steps": steps, "variant": words, "iqm": iqm.iqm(found), "low": low, "high": high}
        rows.append(row | {"beside": beside if rows else "baseline", "returns": found, "tried": tried if kind is Muon else None})
        print(rows[-1], flush=True)
    return rows


def check_orthogonal() -> None:
    """Assert that Muon's step on a hidden matrix is near an orthogonal one: five Newton–Schulz iterations bring singular values near 1."""
    learner = Muon("cartpole", replace(preset("cartpole"), engine="torch"))
    learner.use(1.0)
    both: Any = learner.optimizer
    matrix = both.hidden[0]
    assert [tuple(p.shape) for p in both.hidden] == [(64, 64)] * 2, both.hidden
    before, rate = matrix.detach().clone(), both.param_groups[0]["lr"]
    matrix.grad = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    both.step()
    values = torch.linalg.svdvals((matrix.detach() - before) / rate)
    assert values.max() < 1.3 and values.quantile(0.1) > 0.6, values  # of a random matrix the smallest are too small for five iterations


def main() -> None:
    """Run, print, save after each task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--tasks", nargs="+", default=TASKS, help="NAME:STEPS")
    options = parser.parse_args()
    check_orthogonal()
    rows: list[Row] = []
    for task in options.tasks:
        name, steps = task.split(":")
        rows += task_rows(name, int(steps), range(options.seeds))
        save("ablations", settings=vars(options) | {"choosing_seeds": list(CHOOSING), "factors": FACTORS, "segment": SEGMENT}, rows=rows)
    show("PPO's variants", [{k: v for k, v in row.items() if k not in ("returns", "tried")} for row in rows])


if __name__ == "__main__":
    main()
