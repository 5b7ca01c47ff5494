"""A critic alone, in C: what it says in a rollout, and how it learns, with Adam's moments and an order of samples of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import InvalidInput
from puffer_edge.train.native import structs
from puffer_edge.train.native.engine import Engine, Shape, fill


class NativeCritic:
    """A value network and its optimiser.

    Args:
        shape: of kind "value".
        threads: of the engine that it serves.
        parameters: (size,) its flat buffer, changed in place.
        seed: of the order of samples.

    Attributes:
        engine: of the network.
        parameters: the flat buffer.

    Raises:
        Unsupported: the native trainer does not take this shape.
        InvalidInput: the buffer has another size.
    """

    def __init__(self, shape: Shape, threads: int, parameters: npt.NDArray[np.float32], seed: int) -> None:
        self.engine, self.parameters, self._seed = Engine(shape, threads), parameters, seed
        if parameters.shape != (shape.size,):
            raise InvalidInput(f"the critic's flat buffer has shape {parameters.shape}, it needs ({shape.size},)")
        self._arrays = {name: np.zeros(shape.size, np.float32) for name in ("first", "second")}
        self._arrays |= {name: np.zeros(1, np.int64) for name in ("adam_steps", "updates")}

    def learn(
        self, inputs: npt.NDArray[Any], value: npt.NDArray[Any], returns: npt.NDArray[Any], epochs: int, minibatch: int, rate: float, norm: float
    ) -> float:
        """Epochs of gradient steps on the mean squared error; its mean over the minibatches.

        Args:
            inputs: (…, n) normalised observations.
            value: (…) what the critic said there.
            returns: (…) what it is to learn.
            epochs: how many.
            minibatch: samples of a step.
            rate: Adam's learning rate.
            norm: L2 norm that a gradient is scaled down to.
        """
        u = structs.Update()
        u.samples, u.epochs, u.minibatch, u.seed = returns.size, epochs, min(minibatch, returns.size), self._seed
        u.update = int(self._arrays["updates"][0])
        u.learning_rate, u.beta1, u.beta2, u.epsilon, u.max_grad_norm = rate, 0.9, 0.999, 1e-5, norm
        u.loss.value_weight, u.loss.value_clip = 1.0, math.inf
        fill(u, inputs=inputs, value=value, returns=returns, parameters=self.parameters)
        fill(u, **{name: self._arrays[name] for name in ("first", "second", "adam_steps")})
        self.engine.update(u)
        self._arrays["updates"][0] += 1
        return float(u.statistics[structs.STATISTICS.index("value_loss")])

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All that changes but the parameters, by name."""
        return {f"critic_{name}": x for name, x in self._arrays.items()}
