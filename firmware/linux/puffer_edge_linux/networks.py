"""Networks of one row in ONNX Runtime, TVM and TensorRT, behind one form: arrays by name in, arrays by name out."""

import ctypes
from pathlib import Path
from typing import Any

HOST_ALLOC_MAPPED = 2  # cudaHostAllocMapped of the CUDA runtime


class EngineFault(Exception):
    """The engine failed, or gave no number."""


class OnnxNetwork:
    """A model in ONNX Runtime, on one thread: the nets are small, and a pool of threads is what makes a tick late.

    Args:
        data: the model.

    Attributes:
        inputs: shape (1, …) and type of every input, by name.

    Raises:
        ImportError: no ONNX Runtime, or no numpy.
        ValueError: ONNX Runtime does not read the model, or it takes another kind of number.
    """

    def __init__(self, data: bytes) -> None:
        import numpy
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ValueError(f"ONNX Runtime {onnxruntime.__version__} does not read the model: {error}") from None
        self._outputs = [one.name for one in self._session.get_outputs()]
        types = {"tensor(float)": numpy.float32, "tensor(int32)": numpy.int32, "tensor(int16)": numpy.int16}
        strange = [f"{one.name} as {one.type}" for one in self._session.get_inputs() if one.type not in types]
        if strange:
            raise ValueError(f"the model takes {', '.join(strange)}, which this runner does not give: policy.onnx and policy.qdq.onnx serve")
        self.inputs = {one.name: ((1, *one.shape[1:]), types[one.type]) for one in self._session.get_inputs()}
        self.words = f"ONNX Runtime {onnxruntime.__version__}"

    def __call__(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Run once.

        Raises:
            EngineFault: ONNX Runtime failed.
        """
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, feeds)))
        except Exception as error:
            raise EngineFault(f"ONNX Runtime failed: {error}") from error


class TvmNetwork:
    """A library that TVM compiled, in TVM's virtual machine.

    Args:
        path: the library.
        facts: content of ``module.json``: the tensors of its function "main".

    Attributes:
        inputs: as of OnnxNetwork.

    Raises:
        ImportError: no TVM.
        ValueError: another TVM than the library was compiled with, or it cannot be loaded.
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        import numpy
        import tvm
        from tvm import relax

        if tvm.__version__ != facts["tvm"]:
            raise ValueError(f"the module was compiled by TVM {facts['tvm']}, here is {tvm.__version__}: pip install apache-tvm=={facts['tvm']}")
        try:
            self._main: Any = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())["main"]
        except Exception as error:
            raise ValueError(f"TVM does not load {path}: {error}") from None
        self._tensor, self._outputs = tvm.runtime.tensor, facts["outputs"]
        self.inputs = {one["name"]: (tuple(one["shape"]), numpy.dtype(one["type"])) for one in facts["inputs"]}
        self.words = f"TVM {tvm.__version__}"

    def __call__(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Run once.

        Raises:
            EngineFault: TVM failed.
        """
        try:
            result = self._main(*(self._tensor(feeds[name]) for name in self.inputs))
            results = [result] if hasattr(result, "numpy") else result
            return dict(zip(self._outputs, (one.numpy() for one in results)))
        except Exception as error:
            raise EngineFault(f"TVM failed: {error}") from error


class TensorRtNetwork:
    """A serialized engine in TensorRT. Its arrays are memory that GPU and CPU share, so on a Jetson nothing is copied.

    Args:
        data: the engine, built by the TensorRT of this computer.

    Attributes:
        inputs: as of OnnxNetwork.

    Raises:
        ImportError: no TensorRT, no CUDA runtime, no GPU, or an engine of another version.
    """

    def __init__(self, data: bytes) -> None:
        import numpy
        import tensorrt

        self.words = f"TensorRT {tensorrt.__version__}"
        try:
            self._cuda: Any = ctypes.CDLL("libcudart.so")
        except OSError as error:
            raise ImportError(f"the CUDA runtime cannot be loaded ({error})") from None
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING))
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise ImportError("TensorRT does not read this engine: it must be built on this computer, by this version")
        self._context = self._engine.create_execution_context()
        self._stream = ctypes.c_void_p()
        self._ok(self._cuda.cudaStreamCreate(ctypes.byref(self._stream)))
        self.inputs: dict[str, tuple[tuple[int, ...], Any]] = {}
        self._arrays: dict[str, Any] = {}
        for name in (self._engine.get_tensor_name(k) for k in range(self._engine.num_io_tensors)):
            shape, dtype = (1, *self._engine.get_tensor_shape(name)[1:]), numpy.dtype(tensorrt.nptype(self._engine.get_tensor_dtype(name)))
            if self._engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT:
                self._context.set_input_shape(name, shape)
                self.inputs[name] = shape, dtype
            address, buffer = self._shared(dtype.itemsize * int(numpy.prod(shape)))
            self._context.set_tensor_address(name, address)
            self._arrays[name] = numpy.frombuffer(buffer, dtype).reshape(shape)

    def __call__(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Run once; the answer is overwritten by the next run.

        Raises:
            EngineFault: the GPU failed.
        """
        for name, values in feeds.items():
            self._arrays[name][:] = values
        if not self._context.execute_async_v3(self._stream.value) or self._cuda.cudaStreamSynchronize(self._stream):
            raise EngineFault("TensorRT failed")
        return self._arrays

    def _shared(self, size: int) -> tuple[int, Any]:
        """The GPU's address of new memory, and the memory itself."""
        host, device = ctypes.c_void_p(), ctypes.c_void_p()
        self._ok(self._cuda.cudaHostAlloc(ctypes.byref(host), ctypes.c_size_t(size), HOST_ALLOC_MAPPED))
        self._ok(self._cuda.cudaHostGetDevicePointer(ctypes.byref(device), host, 0))
        return device.value or 0, (ctypes.c_byte * size).from_address(host.value or 0)

    def _ok(self, status: int) -> None:
        if status:
            raise ImportError(f"the CUDA runtime answered {status}: is the GPU there, and may this user use it?")
