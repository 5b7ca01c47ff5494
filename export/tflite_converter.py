"""The second way to a ``.tflite`` file: TensorFlow's own converter, from the float policy with calibration observations.

Full integers, int8 in and out, per-channel weights. It serves as a comparison (``benchmarks/tflite_parity.py --converter``): its file
is not the program's, holds no bit-exact promise, and needs a package of 1.5 GB. The normaliser stays outside, as in ours.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from puffer_edge.contract import Contract
from puffer_edge.errors import MissingExtra, Unsupported
from puffer_edge.export.tflite_compare import micro
from puffer_edge.layers import AnyLayer, Conv, Layer, Pool
from puffer_edge.policy import Policy
from puffer_edge.spaces import Floats, Ints

FILE = "policy.tensorflow.tflite"
"""Its name in a bundle."""
MOST_SAMPLES = 1000
"""Calibration observations that the converter runs one by one."""


def convert(policy: Policy, observations: Floats) -> bytes:
    """A policy through TensorFlow's converter.

    Args:
        policy: the float policy, memoryless.
        observations: (N, n) physical observations; at most ``MOST_SAMPLES`` of them, spread evenly, are used.

    Raises:
        MissingExtra: TensorFlow is not installed.
        Unsupported: the policy has memory.
    """
    if policy.memory:
        raise Unsupported("TensorFlow's converter is used for policies without memory: leave --converter away, our writer takes an lstm")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read once, when TensorFlow is first imported
    try:
        import tensorflow as tf
    except ImportError:
        raise MissingExtra("tensorflow", "TensorFlow's converter") from None
    picked = np.asarray(observations)[np.linspace(0, len(observations) - 1, min(len(observations), MOST_SAMPLES)).astype(int)]
    seen = policy.normalizer(policy.contract.physical_observation(policy.contract.observe(picked)[0])).astype(np.float32)

    def samples() -> Iterator[list[Any]]:
        for row in seen:
            yield [row[None]]

    @tf.function(input_signature=[tf.TensorSpec((1, policy.contract.n_observations), tf.float32)])  # type: ignore[untyped-decorator]
    def network(x: Any) -> Any:
        for layer in policy.layers:
            x = _layer(tf, layer, x)
        return x

    module = tf.Module()
    module.network = network
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=network)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        return bytes(converter.convert())


def _layer(tf: Any, layer: AnyLayer, x: Any) -> Any:
    """One layer on (1, values) in the policy's order."""
    if isinstance(layer, Layer):
        return _activation(tf, layer.activation, tf.linalg.matmul(x, layer.weight.T.astype(np.float32)) + layer.bias.astype(np.float32))
    if isinstance(layer, (Conv, Pool)):
        image = tf.transpose(tf.reshape(x, (1, *layer.shape)), (0, 2, 3, 1))
        return tf.reshape(tf.transpose(_image(tf, layer, image), (0, 3, 1, 2)), (1, layer.n_out))
    raise Unsupported(f"a {type(layer).__name__.lower()} has no form here: leave --converter away")


def _image(tf: Any, layer: Conv | Pool, image: Any) -> Any:
    """A convolution or a pool on an image with channels last."""
    if isinstance(layer, Pool):
        return (tf.reduce_max if layer.kind == "max" else tf.reduce_mean)(image, axis=(1, 2), keepdims=True)
    top, left, bottom, right = layer.padding
    image = tf.pad(image, ((0, 0), (top, bottom), (left, right), (0, 0)))
    weight, strides = layer.weight.astype(np.float32), (1, *layer.stride, 1)
    if layer.depthwise:
        kernel = weight[:, 0].reshape(layer.shape[0], -1, *weight.shape[2:]).transpose(2, 3, 0, 1)
        y = tf.nn.depthwise_conv2d(image, kernel, strides, "VALID")
    else:
        y = tf.nn.conv2d(image, weight.transpose(2, 3, 1, 0), strides, "VALID")
    return _activation(tf, layer.activation, y + layer.bias.astype(np.float32))


def _activation(tf: Any, name: str, x: Any) -> Any:
    functions = {
        "none": lambda: x,
        "relu": lambda: tf.nn.relu(x),
        "tanh": lambda: tf.math.tanh(x),
        "sigmoid": lambda: tf.math.sigmoid(x),
        "elu": lambda: tf.nn.elu(x),
        "silu": lambda: x * tf.math.sigmoid(x),
        "leaky_relu": lambda: tf.nn.leaky_relu(x, 0.01),
        "gelu": lambda: tf.nn.gelu(x, approximate=False),
    }
    return functions[name]()


class Converted:
    """A converted file in TFLite-Micro behind the policy's normaliser and head: proposes actions like a program, for comparing returns.

    Args:
        policy: the float policy.
        model: the converted file; its quantisation is read from it.

    Raises:
        MissingExtra: the schema package or tflite-micro is not installed.
    """

    def __init__(self, policy: Policy, model: bytes) -> None:
        try:
            import tflite as schema
        except ImportError:
            raise MissingExtra("tflite", "reading a .tflite file") from None
        graph = schema.Model.GetRootAsModel(model, 0).Subgraphs(0)
        self.policy, self.step_one = policy, micro(model, 1)
        (self.scale, self.zero), (self.out, self.out_zero) = (_quantization(graph.Tensors(k)) for k in (graph.Inputs(0), graph.Outputs(0)))

    @property
    def contract(self) -> Contract:
        """The policy's contract."""
        return self.policy.contract

    def start(self, rows: int) -> Floats:
        """(rows, 0): there is no memory."""
        return np.zeros((rows, 0))

    def step(self, observation: Ints, memory: Floats) -> tuple[Ints, Floats]:
        """(rows, n) int32 observations to (rows, m) int32 actions, and the memory as it was."""
        c = self.contract
        z = self.policy.normalizer(c.physical_observation(observation))
        x = np.clip(np.rint(z / self.scale) + self.zero, -128, 127).astype(np.int8)
        y = np.concatenate([self.step_one(row[None]) for row in x])
        outputs = (y.astype(np.float64) - self.out_zero) * self.out
        return c.fixed_action(self.policy.decide(outputs)), memory

    def run(self, observation: Ints) -> Ints:
        """(rows, n) int32 observations to (rows, m) int32 actions."""
        return self.step(observation, self.start(len(observation)))[0]


def _quantization(tensor: Any) -> tuple[float, int]:
    q = tensor.Quantization()
    return float(q.Scale(0)), int(q.ZeroPoint(0))
