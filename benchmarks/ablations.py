"""What PufferLib has and we do not: Muon in the place of Adam, and prioritised segments; would either serve small control tasks?

    python benchmarks/ablations.py [--seeds 8]

Each is a subclass of PPO in this file alone, on the torch engine, with the preset's settings and as many gradient steps as the baseline.
Muon (Jordan et al., 2024; ``torch.optim.Muon``) takes the hidden matrices, Adam the rest; its rate is the best of three factors on two
seeds that are not in the table. Segments are a row's steps of one rollout, drawn with probability ∝ (Σ|A|)^α, their normalised
advantages weighed by (N·p)^−β, β from 0.2 to 1 (α = 0.8). Returns are of the deterministic policy at the end, 50 fresh episodes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from record import save, show

from puffer_edge.envs import closed_loop, load
from puffer_edge.train import iqm, preset
from puffer_edge.train.algorithms.ppo import PPO
from puffer_edge.train.rollout import Rollout

TASKS = (("cartpole", 20_000), ("cartpole", 50_000), ("pendulum", 50_000), ("servo", 50_000))
FACTORS = (3.0, 10.0, 30.0)
"""Of Adam's learning rate, for Muon's."""
ALPHA, BETA = 0.8, 0.2


class Both:
    """Muon for hidden matrices and Adam for the rest, with one face."""

    def __init__(self, net: torch.nn.Module, factor: float) -> None:
        last = {id(net.actor[-1].weight), id(net.critic[-1].weight)}  # type: ignore[index, union-attr]
        inner = [p for p in net.parameters() if p.dim() == 2 and id(p) not in last]
        held = {id(p) for p in inner}
        self.factor = factor
        self.muon = torch.optim.Muon(inner, lr=1e-3, weight_decay=0.0, momentum=0.95, nesterov=True)
        self.adam = torch.optim.Adam([p for p in net.parameters() if id(p) not in held], lr=1e-3, eps=1e-5)
        self.param_groups = self.adam.param_groups

    def zero_grad(self) -> None:
        self.muon.zero_grad()
        self.adam.zero_grad()

    def step(self) -> None:
        self.muon.param_groups[0]["lr"] = self.factor * self.adam.param_groups[0]["lr"]
        self.muon.step()
        self.adam.step()


class Muon(PPO):
    """PPO with ``Both``."""

    factor = 10.0

    def learn(self, *arguments: Any, **named: Any) -> Any:
        self.optimizer: Any = Both(self.net, self.factor)
        return super().learn(*arguments, **named)


class Segments(PPO):
    """PPO on prioritised segments."""

    def _update_in_torch(self, rollout: Rollout) -> dict[str, float]:
        settings, (batch, explained) = self.settings, self._batch(rollout)
        horizon, rows = rollout.reward.shape
        size = max(1, settings.minibatch // horizon)
        steps = settings.epochs * -(-horizon * rows // settings.minibatch)
        priority = batch.advantage.reshape(horizon, rows).abs().sum(0).double().numpy() ** ALPHA + 1e-9
        p = priority / priority.sum()
        beta = BETA + (1 - BETA) * min(self.steps / settings.steps, 1.0)
        self.settings = replace(settings, normalize_advantage=False)
        for _ in range(steps):
            chosen = self.shuffle_rng.choice(rows, size, replace=False, p=p)
            index = torch.from_numpy((np.arange(horizon)[:, None] * rows + chosen).ravel())
            part = batch[index].normalized()
            weight = torch.from_numpy(np.tile((rows * p[chosen]) ** -beta, horizon).astype(np.float32))
            self._step(replace(part, advantage=part.advantage * weight))
        self.settings = settings
        return {"explained_variance": explained, "approx_kl": 0.0}


def returns(kind: type[PPO], name: str, steps: int, seeds: range, factor: float = 10.0) -> list[float]:
    """Final returns, one a seed."""
    found = []
    for seed in seeds:
        learner = kind(name, replace(preset(name), engine="torch", steps=steps), seed=seed)
        if isinstance(learner, Muon):
            learner.factor = factor
        learner.learn()
        found.append(float(np.mean(closed_loop.float_returns(load(name), learner.last_good, learner.shield, 50, 10_000 + seed))))
    return found


def main() -> None:
    """Run, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    matrix = torch.randn(64, 64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    before, matrix.grad = matrix.detach().clone(), torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    torch.optim.Muon([matrix], lr=1.0, weight_decay=0.0).step()
    spread = torch.linalg.svdvals(matrix.detach() - before)
    assert spread.max() < 1.5 and spread.median() > 0.5, spread  # the step is near an orthogonal matrix
    rows: list[dict[str, Any]] = []
    for name, steps in TASKS:
        factor = max(FACTORS, key=lambda f: np.mean(returns(Muon, name, steps, range(100, 102), f)))
        for kind, words in ((PPO, "Adam, all samples"), (Muon, f"Muon, {factor:g} × the rate"), (Segments, "prioritised segments")):
            found = returns(kind, name, steps, range(options.seeds), factor)
            low, high = iqm.interval(found)
            about = {"environment": name, "steps": steps, "variant": words, "iqm": round(iqm.iqm(found), 1)}
            rows.append(about | {"low": round(low, 1), "high": round(high, 1), "returns": [round(x, 1) for x in found]})
            print(rows[-1], flush=True)
    show("PPO's variants", [{k: v for k, v in r.items() if k != "returns"} for r in rows])
    save("ablations", settings=vars(options), rows=rows)


if __name__ == "__main__":
    main()
