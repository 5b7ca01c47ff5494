"""What computes the policy's proposal: the runtime's own kernels, ONNX Runtime, TVM, or TensorRT. The shield is never among it."""

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from puffer_edge_device.image import Image

from .bundle import BadBundle, Bundle
from .networks import EngineFault, OnnxNetwork, TensorRtNetwork, TvmNetwork
from .options import say

# What a compute gives for an engine: what runs in place of its kernels, and what clears what it remembers; None where the engine does.
Bound = tuple[Callable[[], None] | None, Callable[[], None] | None]


class OtherPolicy(Exception):
    """An engine was built for another program than the image has."""


class Kernels:
    """The runtime's kernels in plain Python: always there, for any image, bit for bit."""

    exact = True

    def __init__(self, why: str) -> None:
        self.words = f"the runtime's own kernels, bit for bit, because {why}"

    def bind(self, engine: Any) -> Bound:
        """The engine stays as it is."""
        return None, None


class IntegerModel:
    """The program's integer model in ONNX Runtime, or compiled by TVM: bit for bit."""

    exact = True

    def __init__(self, network: OnnxNetwork | TvmNetwork) -> None:
        self._network = network
        self.words = f"{network.words} on the integer model, bit for bit"

    def bind(self, engine: Any) -> Bound:
        """From the engine's ``last`` and ``memory`` to its ``held`` and ``memory``."""
        import numpy as np

        feeds = {"observation": np.frombuffer(engine.last, np.int32)[None]}
        memory = np.array(engine.memory, np.int16)[None] if "memory" in self._network.inputs else None

        def run() -> None:
            if memory is not None:
                memory[0] = engine.memory
                feeds["memory"] = memory
            result = self._network(feeds)
            _store(engine.held, result["action"][0])
            if memory is not None:
                _store(engine.memory, result["memory_out"][0])

        return run, None


class FloatModel:
    """A float network between fixed-point observations and actions, in the contract's units: other bits than the program's.

    Args:
        image: the policy's image, which holds the contract.
        network: from ``observation`` (1, n) to ``action`` (1, m) in float32; every further input X comes back as the output X_out.
        name: of the file.
    """

    exact = False

    def __init__(self, image: Image, network: Any, name: str) -> None:
        self._network = network
        self.words = f"{network.words} on {name}, in float: not the program's bits"
        text = bytearray(image.contract_bytes)
        image.contract(0, text)
        contract = json.loads(text)
        self._bits = [[channel["fraction_bits"] for channel in contract[part]] for part in ("observations", "actions")]

    def bind(self, engine: Any) -> Bound:
        """As of IntegerModel; the action is rounded to even and kept inside its range. The memory is this function's own."""
        import numpy as np

        last = np.frombuffer(engine.last, np.int32)
        limits = np.frombuffer(engine.actions, np.int32).reshape(-1, 4)
        seen_step, action_steps = (np.exp2(np.array(bits, np.float64)) for bits in self._bits)
        memory = {name: np.zeros(shape, dtype) for name, (shape, dtype) in self._network.inputs.items() if name != "observation"}

        def run() -> None:
            result = self._network({"observation": (last / seen_step).astype(np.float32)[None], **memory})
            action = np.asarray(result["action"][0], np.float64)
            if not np.isfinite(action).all():
                raise EngineFault("the float network gave no number")
            _store(engine.held, np.clip(np.rint(action * action_steps), limits[:, 0], limits[:, 1]))
            for name, values in memory.items():
                values[:] = result[f"{name}_out"]

        def clear() -> None:
            for values in memory.values():
                values[:] = 0

        return run, clear


def choose(options: argparse.Namespace, bundle: Bundle, image: Image) -> Any:
    """What computes the policy of an image.

    Raises:
        OtherPolicy: an engine was asked for that only the bundle's policy has, and the image is another.
        BadBundle: a file that it needs is missing or damaged, or a package is not installed.
    """
    same = bundle.there and bundle.program == image.digests[2]
    if options.engine == "integer":
        return _integer(bundle, same)
    if not same:
        raise OtherPolicy(f"--engine {options.engine} is for the bundle's own policy, and the board holds another program: use --engine integer")
    if options.engine == "tvm":
        return IntegerModel(_tvm(bundle))
    network, name = (_onnx if options.engine == "onnx" else _tensorrt)(bundle, options.engine_file)
    return FloatModel(image, network, name)


def _integer(bundle: Bundle, same: bool) -> Any:
    if not same:
        return Kernels("no bundle here holds this program as a model")
    if not bundle.model("integer"):
        return Kernels("the bundle was exported without ONNX")
    try:
        return IntegerModel(OnnxNetwork(bundle.read(bundle.model("integer"))))
    except ImportError as error:
        return Kernels(f"{error.name} is not installed")


def _tvm(bundle: Bundle) -> TvmNetwork:
    """Of this computer's architecture."""
    name = f"tvm/policy-{platform.machine()}.so"
    try:
        bundle.read(name)  # its digest is compared before the system's loader sees it
        return TvmNetwork(bundle.folder / name, json.loads(bundle.read("tvm/module.json")))
    except ImportError as error:
        raise BadBundle(f"--engine tvm needs {error.name}: pip install apache-tvm, of the version in tvm/module.json") from None


def _onnx(bundle: Bundle, path: Path | None) -> tuple[Any, str]:
    if path is None and not bundle.model("onnx"):
        raise BadBundle("the bundle was exported without ONNX: install puffer-edge[onnx] where you export, and export again")
    try:
        if path is not None:
            return OnnxNetwork(path.read_bytes()), path.name
        return OnnxNetwork(bundle.read(bundle.model("onnx"))), bundle.model("onnx")
    except ImportError as error:
        raise BadBundle(f"--engine onnx needs {error.name}: pip install onnxruntime") from None


def _tensorrt(bundle: Bundle, path: Path | None) -> tuple[Any, str]:
    """TensorRT on its engine file; ONNX Runtime where there is no TensorRT or no file, which is said."""
    path = path or bundle.folder / "tensorrt" / "policy.engine"
    try:
        if not path.is_file():
            raise ImportError(f"there is no {path}, which sh tensorrt/build_engine.sh builds")
        return TensorRtNetwork(path.read_bytes()), path.name
    except ImportError as missing:
        say(f"TensorRT does not run here ({missing}): ONNX Runtime computes instead")
        return _onnx(bundle, None)


def _store(held: Any, values: Any) -> None:
    for j, value in enumerate(values.tolist()):
        held[j] = int(value)
