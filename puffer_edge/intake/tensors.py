"""Named tensors of a torch file or a safetensors file, read without torch: nothing in them is ever run."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from puffer_edge.errors import InvalidInput, Unsupported
from puffer_edge.intake.archives import MAX_TEXT, Archive, parse_json
from puffer_edge.intake.pickles import MAX_PICKLE, Global, Made, Persistent, class_name, mapping, read
from puffer_edge.spaces import Floats

MAX_TENSORS = 10_000
_STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "bf16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
}
_SAFE = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": "bf16", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1", "U8": "u1", "BOOL": "b1"}


class Tensors(Mapping[str, Floats]):
    """Tensors by name, each turned into float64 when it is asked for, and never larger than the bytes that hold it.

    Args:
        what: name of the file, for messages.
        parts: (type, bytes, offset, shape, strides) by name, offset and strides counted in numbers.
    """

    def __init__(self, what: str, parts: Mapping[str, tuple[str, bytes, int, tuple[int, ...], tuple[int, ...]]]) -> None:
        self.what = what
        self._parts = parts
        if len(parts) > MAX_TENSORS:
            raise InvalidInput(f"{what} holds {len(parts):,} tensors, at most {MAX_TENSORS:,} are read")

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, as its file states it."""
        return self._parts[name][3]

    def __getitem__(self, name: str) -> Floats:
        if name not in self._parts:
            raise InvalidInput(f"{self.what} holds no tensor {name!r}: {reprlib.repr(', '.join(self._parts))}")
        kind, data, offset, shape, strides = self._parts[name]
        size = 2 if kind == "bf16" else np.dtype(kind).itemsize
        count, have = math.prod(shape), len(data) // size
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides)) if count else offset
        if min((0, offset, *shape, *strides)) < 0 or len(strides) != len(shape) or count > have or last >= have + (count == 0):
            raise InvalidInput(f"tensor {name!r} of {self.what} claims {shape} numbers, its storage has {have:,}")
        flat = _numbers(kind, data)
        step = flat.itemsize
        view = np.lib.stride_tricks.as_strided(flat[offset:], shape, [s * step for s in strides], writeable=False)
        with np.errstate(invalid="ignore"):
            return np.array(view, np.float64)


def _numbers(kind: str, data: bytes) -> npt.NDArray[Any]:
    if kind == "bf16":  # the upper half of a float32
        halves = np.frombuffer(data[: len(data) // 2 * 2], "<u2").astype(np.uint32) << 16
        return halves.view(np.float32)
    dtype = np.dtype(kind).newbyteorder("<")
    return np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype)


def is_tensors(data: bytes) -> bool:
    """Whether a file looks like safetensors, or like a pickle; zips are looked into elsewhere."""
    return data[8:9] == b"{" or data[:1] == b"\x80"


def read_tensors(data: bytes, what: str) -> Tensors:
    """The tensors of a state dict (``torch.save``) or of a safetensors file.

    A tuple or list of state dicts, as CleanRL's off-policy scripts save them, gives the first: the actor. A checkpoint dictionary
    gives the state dict it holds, if it is just one.

    Raises:
        InvalidInput: it is neither, or damaged.
        Unsupported: a form of torch's that is not a state dict.
    """
    if data[:4] == b"PK\x03\x04":
        return read_torch(data, what)
    if len(data) >= 10 and data[8:9] == b"{":
        return read_safetensors(data, what)
    if data[:1] == b"\x80":
        raise Unsupported(
            f"{what} is a pickle, or was saved by torch before 1.6: load it with torch where you trust it, and save model.state_dict() again"
        )
    raise InvalidInput(f"{what} is neither a torch file nor a safetensors file")


def read_safetensors(data: bytes, what: str) -> Tensors:
    """Tensors of a safetensors file.

    Raises:
        InvalidInput: it is damaged.
    """
    length = int.from_bytes(data[:8], "little")
    if not 0 < length <= min(MAX_TEXT, len(data) - 8):
        raise InvalidInput(f"{what} claims a header of {length:,} bytes and has {len(data):,}: it is damaged")
    header = parse_json(data[8 : 8 + length], f"the header of {what}")
    body = data[8 + length :]
    parts = {}
    for name, about in mapping(header).items():
        if name == "__metadata__":
            continue
        try:
            kind, shape, (begin, end) = _SAFE[about["dtype"]], tuple(about["shape"]), about["data_offsets"]
            strides = tuple(math.prod(shape[k + 1 :]) for k in range(len(shape)))
            if any(type(n) is not int or n < 0 for n in (*shape, begin, end)) or not begin <= end <= len(body):
                raise ValueError("its numbers are wrong")
            parts[name] = (kind, body[begin:end], 0, shape, strides)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"tensor {reprlib.repr(name)} of {what} is not described as safetensors does: {error}") from None
    if not parts:
        raise InvalidInput(f"{what} holds no tensor")
    return Tensors(what, parts)


def read_torch(data: bytes, what: str) -> Tensors:
    """Tensors of a file that ``torch.save`` wrote (torch ≥ 1.6: a zip with ``data.pkl`` and one member a storage).

    Raises:
        InvalidInput: it is damaged or holds no state dict.
        Unsupported: it is a TorchScript archive, a whole pickled module, or big-endian.
    """
    archive = Archive(data, what)
    homes = [name.removesuffix("data.pkl") for name in archive.names if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(homes) != 1:
        raise InvalidInput(f"{what} is a zip, but not one that torch.save wrote: it has no data.pkl")
    home = homes[0]
    if home + "constants.pkl" in archive.names:
        raise Unsupported(f"{what} is a TorchScript archive, which is code: save model.state_dict() instead")
    if home + "byteorder" in archive.names and archive.read(home + "byteorder", 16) != b"little":
        raise Unsupported(f"{what} was saved on a big-endian machine")
    return _Reader(archive, home).tensors(read(archive.read(home + "data.pkl", MAX_PICKLE), what))


class _Reader:
    """Turns torch's records of tensors into bytes and shapes."""

    def __init__(self, archive: Archive, home: str) -> None:
        self.archive, self.home, self.what = archive, home, archive.what
        self._storages: dict[str, bytes] = {}

    def tensors(self, value: Any) -> Tensors:
        parts = {}
        for name, tensor in self._state_dict(value).items():
            part = self._tensor(tensor)
            if part is not None:
                parts[str(name)] = part
        if not parts:
            raise InvalidInput(f"{self.what} holds no tensor by name: save model.state_dict()")
        return Tensors(self.what, parts)

    def _state_dict(self, value: Any) -> Mapping[Any, Any]:
        if isinstance(value, (tuple, list)) and value:
            value = value[0]
        module = class_name(value)
        if isinstance(value, Made) and not module.startswith("collections."):
            raise Unsupported(f"{self.what} holds a whole {module or 'object'}, whose forward pass is code: save its state_dict()")
        found = mapping(value)
        if any(_is_tensor(v) for v in found.values()):
            return found
        inner = {key: mapping(v) for key, v in found.items() if any(_is_tensor(w) for w in mapping(v).values())}
        if len(inner) > 1:
            names = ", ".join(map(str, inner))
            raise Unsupported(f"{self.what} holds several state dicts ({reprlib.repr(names)}): save the actor's alone")
        return next(iter(inner.values()), {})

    def _tensor(self, value: Any) -> tuple[str, bytes, int, tuple[int, ...], tuple[int, ...]] | None:
        if isinstance(value, Made) and value.is_("torch._utils._rebuild_parameter"):
            value = value.arguments[0] if value.arguments else None
        if not isinstance(value, Made) or not value.is_("torch._utils._rebuild_tensor_v2"):
            return None
        try:
            storage, offset, shape, strides = value.arguments[:4]
            if not isinstance(storage, Persistent):
                raise ValueError("its storage is not in the file")
            _, kind, key, _, _ = storage.key
            if any(type(n) is not int or not 0 <= n < 2**40 for n in (offset, *shape, *strides)) or not isinstance(key, str):
                raise ValueError("its numbers are wrong")
            if not isinstance(kind, Global) or kind.name not in _STORAGES:
                raise ValueError(f"its type is {class_name(kind) or 'unknown'}")
        except (ValueError, TypeError) as error:
            raise InvalidInput(f"a tensor of {self.what} is not written as torch does: {error}") from None
        return _STORAGES[kind.name], self._storage(key), offset, tuple(shape), tuple(strides)

    def _storage(self, key: str) -> bytes:
        if key not in self._storages:
            self._storages[key] = self.archive.read(f"{self.home}data/{key}")
        return self._storages[key]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Made) and value.is_("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter")
