"""What on-policy algorithms share that keep a limit on costs: a critic of costs beside the others, the cost of an episode, and its price.

    A_c by generalised advantage estimation of costs, with γ_c and λ_c      ``puffer_edge/train/advantages.py``
    J_C = mean cost of an episode, its costs summed without a discount
    A = (A_r − λ·A_c)/(1 + λ)                                              of those that price costs

The cost critic has a network, an optimiser, a bound of its gradient's norm and generators of its own, and no number of it reaches the
policy but through λ: at λ = 0 the policy is, bit for bit, that of the algorithm without a constraint. The cost critic keeps no memory; it
is shown what a policy with memory remembers, beside what it observes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from puffer_edge.envs.gym import GymFactory
from puffer_edge.errors import InvalidInput
from puffer_edge.spaces import Bools, Floats
from puffer_edge.train.advantages import advantages
from puffer_edge.train.constraint import Constraint, Priced
from puffer_edge.train.native.learner import Experience
from puffer_edge.train.nets.cost_critic import CostCritic
from puffer_edge.train.nets.recurrent import RecurrentActorCritic
from puffer_edge.train.on_policy import OnPolicy
from puffer_edge.train.progress import Lived
from puffer_edge.train.rollout import Rollout


@dataclass(frozen=True, eq=False)
class Costs:
    """What the cost critic says of a rollout, (T, N) each.

    Attributes:
        advantage: A_c.
        returns: what the critic learns.
        alive: the agent acted.
    """

    advantage: npt.NDArray[Any]
    returns: npt.NDArray[Any]
    alive: Bools


class Constrained(OnPolicy):
    """An on-policy learner that knows what its episodes cost. Mix it in before the algorithm: ``class Safe(Constrained, Algorithm)``.

    Around the algorithm's own ``update`` the cost critic says what the rollout's actions cost, before, and learns from it, after.

    Attributes:
        cost_critic: V_c.
        cost_estimate: J_C of the latest update; NaN before the first episode has ended.
        costs: of the rollout that is being learnt from.
    """

    losses = (*OnPolicy.losses, "cost_value_loss")
    cost_critic: CostCritic
    costs: Costs

    @property
    def constraint(self) -> Constraint:
        """The settings, as those of a constraint."""
        assert isinstance(self.settings, Constraint)
        return self.settings

    def _networks(self, seed: int) -> tuple[nn.Module, str]:
        s, c = self.settings, self.constraint
        if c.cost_limit is None:
            raise InvalidInput(f"{self.name} needs a limit: cost_limit is what an episode of {self.environment.name} may cost (--cost-limit)")
        if isinstance(self.environment.living, GymFactory) and not self.environment.living.tells_cost():
            raise InvalidInput(
                f"{self.environment.name} has no costs: its steps have no info['cost'], so no limit can bind. Wrap it so that every step says one, "
                "0.0 where there is none, or train without a limit (--algo ppo)"
            )
        self.cost_limit = float(c.cost_limit)
        weights, shuffle = (int(x) for x in np.random.SeedSequence([self.seed, 2]).generate_state(2))
        net, kernels = super()._networks(seed)
        shown = self.environment.contract.n_observations + (net.memory if isinstance(net, RecurrentActorCritic) else 0)
        widths = (shown, *(c.cost_hidden or s.hidden), 1)
        self.cost_critic = CostCritic(widths, s.activation, c.cost_learning_rate, c.cost_max_grad_norm, (weights, shuffle))
        return net, kernels

    def _native_critic(self) -> tuple[tuple[int, ...], npt.NDArray[np.float32], int] | None:
        critic = self.cost_critic
        return self.constraint.cost_hidden or self.settings.hidden, critic.flat.numpy(), critic.shuffle_seed

    def _prepare(self, seed: int) -> None:
        super()._prepare(seed)
        self.cost_estimate = float("nan")
        self._ended: list[float] = []

    def _count_ended(self, returns: Floats, costs: Floats, lengths: npt.NDArray[Any]) -> None:
        super()._count_ended(returns, costs, lengths)
        self._ended.extend(costs.tolist())

    def update(self, rollout: Rollout | Experience) -> dict[str, float]:
        """Look at the costs, learn by the algorithm, then let the cost critic learn; returns statistics by name."""
        self.costs = self._judge(rollout)
        self.cost_seen = self.cost_seen or bool(rollout.cost.any())
        self._estimate()
        found = super().update(rollout)
        return found | {"cost_value_loss": self._learn_costs(rollout), "cost_estimate": self.cost_estimate}

    def _judge(self, rollout: Rollout | Experience) -> Costs:
        """Advantages of costs, and what the critic is to learn."""
        c, shape = self.constraint, rollout.cost.shape
        if isinstance(rollout, Experience):
            assert self.native is not None
            said = rollout.arrays["cost_value"], rollout.arrays["final_cost_value"], rollout.terminated, rollout.truncated
            alive = None if rollout.alive.all() else rollout.alive
            found = self.native.engine.advantages(rollout.cost, *said, c.cost_discount, c.cost_trace_decay, alive=alive)
            return Costs(*found, rollout.alive)
        value, final_value = (self.cost_critic.values(seen.flatten(0, 1)).reshape(shape) for seen in self.shown(rollout))
        about = rollout.cost, value, final_value, rollout.terminated, rollout.truncated, c.cost_discount, c.cost_trace_decay
        return Costs(*advantages(*about, alive=rollout.alive), rollout.alive)

    def _estimate(self) -> bool:
        """Estimate J_C; whether an episode has ended since the last time, so that there is something new in it."""
        ended, few = self._ended, self.constraint.cost_episodes
        if ended:
            self.cost_estimate = float(np.mean(ended if len(ended) >= few else list(self.recent_costs)[-few:]))
        self._ended = []
        return bool(ended)

    def _learn_costs(self, rollout: Rollout | Experience) -> float:
        """Let the cost critic learn from the rollout; its mean loss."""
        c, alive, returns = self.constraint, rollout.alive, self.costs.returns
        passes = c.cost_passes(self.settings.epochs, self.settings.minibatch)
        if not isinstance(rollout, Experience):
            return self.cost_critic.learn(self.shown(rollout)[0][torch.from_numpy(alive)], returns[alive], *passes)
        assert self.native is not None
        assert self.native.critic is not None
        held = rollout.arrays["inputs"], rollout.arrays["cost_value"], returns
        if not alive.all():
            held = held[0][alive], held[1][alive], returns[alive]
        return self.native.critic.learn(*held, *passes, c.cost_learning_rate, c.cost_max_grad_norm)

    def own_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The cost critic, and what is known of costs, beside what the algorithm keeps."""
        critic = {f"cost_critic.{name}": x for name, x in self.cost_critic.arrays().items()}
        return super().own_arrays() | critic | {"costs": np.array([self.cost_estimate, self.cost_seen])}

    def load_own(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what ``own_arrays`` gave."""
        super().load_own(arrays)
        start = "cost_critic."
        self.cost_critic.load({name.removeprefix(start): x for name, x in arrays.items() if name.startswith(start)})
        self.cost_estimate, self.cost_seen = float(arrays["costs"][0]), bool(arrays["costs"][1])

    def _metrics(self, lived: Lived, statistics: Mapping[str, float], rate: float) -> dict[str, float]:
        assert self.cost_limit is not None
        return super()._metrics(lived, {**statistics, "cost_limit": self.cost_limit}, rate)


class Lagrangian(Constrained):
    """A constrained learner that prices costs by a multiplier, which moves before the policy does.

    Attributes:
        multiplier: λ.
    """

    def _prepare(self, seed: int) -> None:
        super()._prepare(seed)
        assert isinstance(self.settings, Priced)
        self.multiplier = self.settings.make_multiplier()

    def _estimate(self) -> bool:
        """Estimate J_C, and move λ by it where there is something new in it."""
        is_new = super()._estimate()
        if is_new:
            assert self.cost_limit is not None
            self.multiplier.update(self.cost_estimate - self.cost_limit)
        return is_new

    def weigh(self, advantage: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(A_r − λ·A_c)/(1 + λ), with λ in deviations of A_r where ``scale_multiplier`` is set."""
        assert isinstance(self.settings, Priced)
        price, costs = self.multiplier.value, self.costs
        scale = float(advantage[costs.alive].std(dtype=np.float64)) if self.settings.scale_multiplier else 1.0
        mixed: npt.NDArray[Any] = (advantage - price * scale * costs.advantage) / (1 + price)
        return mixed

    def own_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """λ too."""
        return super().own_arrays() | {"multiplier": self.multiplier.state()}

    def load_own(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what ``own_arrays`` gave."""
        super().load_own(arrays)
        self.multiplier.load(arrays["multiplier"])

    def _metrics(self, lived: Lived, statistics: Mapping[str, float], rate: float) -> dict[str, float]:
        return super()._metrics(lived, {**statistics, "lambda": self.multiplier.value}, rate)
