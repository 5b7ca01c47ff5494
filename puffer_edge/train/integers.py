"""Training in integers: the actor's forward pass is the program that a device will run, and the gradient goes straight through its roundings.

The program is not imitated: it is what ``puffer_edge.integer.quantize`` makes of the weights as they are, of the normaliser, and of
calibration observations that stay. So the actor's outputs, in a rollout as in the loss, are the reference's to the bit, and whoever puts
the trained policy into integers with the same profile and observations has the program that was trained.

The gradient is the straight-through estimator (Bengio et al., 2013, arXiv 1308.3432) as it is usual for networks in integers (Jacob et al.,
2018, arXiv 1712.05877, section 3): roundings have the derivative 1 and clamps 0. With x, W and a what the integers of a layer
``a = act(W·x + b)`` stand for, and g the derivative of the loss by a:

    δ = g · act'(a), but 0 where a value lies at an end of its range;   ∂W = δ·xᵀ;   ∂b = δ;   ∂x = Wᵀ·δ

Differences from the usual fake quantisation, which rounds float numbers to a grid:

- sums are integers, rescaled with both roundings of the integer rules; tanh is the device's table; observations have the contract's fixed point;
- scales and bias corrections are read off weights and calibration after every gradient step, by the quantiser's own rules; they are no
  parameters and pass no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from puffer_edge.integer.ops import Array, Op
from puffer_edge.integer.ops.dense import Dense
from puffer_edge.integer.ops.input import Input
from puffer_edge.integer.ops.lookup import Lookup
from puffer_edge.integer.ops.tanh16 import Tanh16
from puffer_edge.integer.program import Program
from puffer_edge.integer.quantize import quantize
from puffer_edge.policy import Policy
from puffer_edge.spaces import Bools, Floats

ROWS = 1024
"""Calibration observations that a training keeps: a program is made of them after every gradient step."""
TANHS = {Lookup: 2.0**-7, Tanh16: 2.0**-15}
"""What may follow a dense layer, and the real value of one step of its results."""


class Integers:
    """An actor in integers, which follows its float weights.

    Args:
        policy: gives the policy as it is now.
        profile: of its integers.
        observations: (N, n) physical observations to calibrate on; of more than ``ROWS`` so many are kept, evenly chosen.
        starts: (N,) whether a row begins an episode.

    Attributes:
        observations: those kept.
        starts: of those kept.
    """

    def __init__(self, policy: Callable[[], Policy], profile: str, observations: Floats, starts: Bools) -> None:
        kept = np.linspace(0, len(observations) - 1, min(len(observations), ROWS)).round().astype(np.int64)
        self.profile, self.observations, self.starts = profile, observations[kept], starts[kept]
        self._policy = policy
        self._made: tuple[torch.Tensor, Policy, Program] | None = None

    def of(self, policy: Policy) -> Program:
        """The program of a policy of this training.

        Raises:
            RangeError: its weights have grown beyond what the profile's integers hold.
        """
        return quantize(policy, self.observations, self.starts, self.profile)

    def program(self, flat: torch.Tensor) -> Program:
        """The actor's program, made anew where (size,) ``flat``, its parameters, have changed, or after ``forget``."""
        return self._now(flat)[1]

    def forget(self) -> None:
        """The normaliser has changed."""
        self._made = None

    def _now(self, flat: torch.Tensor) -> tuple[Policy, Program]:
        if self._made is None or not torch.equal(flat, self._made[0]):
            policy = self._policy()
            self._made = flat.detach().clone(), policy, self.of(policy)
        return self._made[1:]

    def outputs(self, layers: Sequence[nn.Module], flat: torch.Tensor, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the last dense layer gives, and what it is given, with the straight-through gradient.

        Args:
            layers: of the actor, whose parameters the gradient goes to; the last one may have rows below those of the policy, which stay out.
            flat: (size,) all parameters.
            observation: (B, n) int32 in the contract's fixed point.

        Returns:
            (B, n_outputs) float32: int16 numbers times the real value of one step; (B, features) likewise.
        """
        policy, program = self._now(flat)
        step, *ops = program.ops
        assert isinstance(step, Input)
        codes = step.run(observation.numpy())
        following = torch.from_numpy(_whitened(policy, step, codes))
        for layer in layers:
            x = following
            dense = ops.pop(0)
            assert isinstance(dense, Dense) and isinstance(layer, nn.Linear)
            codes, values, slope = _layer(dense, ops.pop(0) if type(ops[0]) in TANHS else None, codes)
            rows = len(dense.weight)
            following = _Straight.apply(x, layer.weight[:rows], layer.bias[:rows], values, slope, _weight(dense))  # type: ignore[no-untyped-call]
        return following, x

    def whitened(self, observation: torch.Tensor) -> torch.Tensor:
        """(B, n) int32 observations in fixed point as a critic takes them: normalised, in float."""
        policy = self._policy() if self._made is None else self._made[1]
        return torch.from_numpy(policy.normalizer(policy.contract.physical_observation(observation.numpy())).astype(np.float32))


class _Straight(torch.autograd.Function):
    """A dense layer and its activation: (B, outputs) values that were computed elsewhere, and the straight-through gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, values: torch.Tensor, slope: torch.Tensor, whole: torch.Tensor
    ) -> torch.Tensor:
        """``weight`` and ``bias`` are where the gradient goes to, ``whole`` is what the integer weights stand for."""
        ctx.save_for_backward(x, slope, whole)
        return values

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """By x, weight and bias."""
        x, slope, whole = ctx.saved_tensors
        delta = g * slope
        return delta @ whole if ctx.needs_input_grad[0] else None, delta.T @ x, delta.sum(0), None, None, None


def _layer(dense: Dense, tanh: Op | None, codes: Array) -> tuple[Array, torch.Tensor, torch.Tensor]:
    """(B, outputs) codes, what they stand for, and the derivative of that by the sums of the layer."""
    assert dense.scales is not None
    codes = dense.run(codes)
    slope = ((codes > dense.low) & (codes < dense.high)).astype(np.float32)
    if tanh is None:
        values = (codes.astype(np.float64) - dense.zero) * dense.scales.output
    else:
        codes = tanh.run(codes)
        values = codes * TANHS[type(tanh)]
        slope *= 1 - values**2
    return codes, torch.from_numpy(values.astype(np.float32)), torch.from_numpy(slope)


def _weight(dense: Dense) -> torch.Tensor:
    """(outputs, inputs) what the integer weights stand for."""
    assert dense.scales is not None
    return torch.from_numpy((dense.weight * dense.scales.weight[:, None]).astype(np.float32))


def _whitened(policy: Policy, step: Input, codes: Array) -> npt.NDArray[np.float32]:
    """(B, n) normalised observations that the codes of the input step stand for."""
    c, norm = policy.contract, policy.normalizer
    size = np.exp2(31.0 + step.shift) / np.maximum(step.multiplier, 1) * (step.multiplier > 0)
    physical = (step.mean + codes * size) / np.exp2(c.observation_bits)
    return ((physical - norm.mean) / norm.std).astype(np.float32)
