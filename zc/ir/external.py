"""Tensor data: read lazily from the message or from an external file inside the model's folder, written in a stream."""

import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper, numpy_helper
from onnx_graphsurgeon.ir.tensor import LazyValues

from zc.errors import ZcError
from zc.ir.elements import PACKED_BITS, Array, dtype_of, elem_type_of

__all__ = [
    "LazySparse",
    "LazyTensor",
    "array_chunks",
    "chunks_of",
    "digest",
    "dtype_of",
    "elem_type_of",
    "inline_external",
    "stored_bytes",
]

M = TypeVar("M", onnx.AttributeProto, onnx.SparseTensorProto)

_CHUNK = 1 << 24


class LazyTensor(LazyValues):
    """An initializer that has not been read. `shape`, `dtype` and `nbytes` are known; `load` reads it.

    ZcError when the data, inside the message or beside it, is not what type and shape ask for.
    """

    _window: "_Window | None" = None

    def __init__(self, tensor: TensorProto, folder: Path | None) -> None:
        self.tensor = tensor
        self.folder = folder
        self.shape = tuple(tensor.dims)
        try:
            self.dtype = dtype_of(tensor.data_type)
        except ZcError as err:
            raise ZcError(f"initializer '{tensor.name}': {err}") from err
        if any(d < 0 for d in self.shape):
            raise ZcError(f"initializer '{tensor.name}' has a negative dimension: {list(self.shape)}")
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        if self.external:
            self._window = _external_window(self)
        else:
            _check_inline(tensor, self.dtype)

    @property
    def external(self) -> bool:
        """Does the data stand in a file of its own?"""
        return self.tensor.data_location == TensorProto.EXTERNAL

    @property
    def file(self) -> Path | None:
        """The file of its own that the data stands in."""
        return self._window.path if self._window is not None else None

    def load(self) -> Array:
        """The array, read-only."""
        try:
            array = self._array()
        except (ValueError, TypeError, OverflowError, MemoryError) as err:
            where = f"initializer '{self.tensor.name}' of shape {list(self.shape)}"
            raise ZcError(f"{where} cannot be read: {err}") from err
        array.flags.writeable = False
        return array

    def _array(self) -> Array:
        if self.tensor.data_type == TensorProto.STRING:
            return _strings(self.tensor)
        if self._window is None:
            return numpy_helper.to_array(self.tensor)
        with self._window.open() as file:
            length = self._window.length
            raw = np.memmap(file, np.uint8, "r", self._window.offset, (length,)) if length else np.empty(0, np.uint8)
        if self.tensor.data_type not in PACKED_BITS:
            return _native(raw, self.dtype, self.shape)
        packed = TensorProto(data_type=self.tensor.data_type, dims=self.tensor.dims, raw_data=raw.tobytes())
        return numpy_helper.to_array(packed)

    def raw_chunks(self) -> Iterator[bytes]:
        """The data as it is stored in a file, in pieces of bounded size."""
        if self._window is None:
            yield from array_chunks(self.load())
            return
        length = self._window.length
        with self._window.open() as file:
            file.seek(self._window.offset)
            while length > 0:
                piece = file.read(min(_CHUNK, length))
                if not piece:
                    raise ZcError(f"initializer '{self.tensor.name}': {self._window.path.name} ended early")
                length -= len(piece)
                yield piece

    def __repr__(self) -> str:
        return f"LazyTensor({self.dtype}, {self.shape})"


@dataclass(frozen=True)
class _Window:
    """A part of an external file, as the file was when the model was read."""

    path: Path
    offset: int
    length: int
    stamp: tuple[int, int, int]

    def open(self) -> BinaryIO:
        """The file. ZcError when it is not the one that the model was read with."""
        try:
            file = self.path.open("rb")
        except OSError as err:
            raise ZcError(f"{self.path}: external data cannot be read: {err.strerror}") from err
        if _stamp(os.fstat(file.fileno())) != self.stamp:
            file.close()
            raise ZcError(f"{self.path}: external data has changed since the model was read; load the model again")
        return file


def _stamp(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


class LazySparse(LazyValues):
    """A sparse initializer, kept as it is stored until somebody wants it dense."""

    def __init__(self, tensor: onnx.SparseTensorProto) -> None:
        self.tensor = tensor
        self.shape = tuple(tensor.dims)
        values, indices = LazyTensor(tensor.values, None), LazyTensor(tensor.indices, None)
        self.dtype = values.dtype
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        count = math.prod(values.shape)
        if any(d < 0 for d in self.shape) or indices.shape not in ((count,), (count, len(self.shape))):
            raise ZcError(
                f"sparse initializer '{tensor.values.name}' of shape {list(self.shape)}: {count} values and indices of "
                f"shape {list(indices.shape)} do not fit"
            )

    def load(self) -> Array:
        """The dense array, read-only (onnx.proto, SparseTensorProto: linear or per-dimension indices)."""
        try:
            dense = np.zeros(math.prod(self.shape), self.dtype)
            index = numpy_helper.to_array(self.tensor.indices)
            if index.ndim == 2:
                index = np.ravel_multi_index(tuple(index.T), self.shape)
            dense[index] = numpy_helper.to_array(self.tensor.values)
        except (ValueError, TypeError, IndexError, OverflowError, MemoryError) as err:
            name = self.tensor.values.name
            raise ZcError(f"sparse initializer '{name}' of shape {list(self.shape)} cannot be read: {err}") from err
        dense = dense.reshape(self.shape)
        dense.flags.writeable = False
        return dense

    def __repr__(self) -> str:
        return f"LazySparse({self.dtype}, {self.shape})"


def _native(raw: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """Bytes as an array; files are little-endian."""
    array = raw.view(dtype.newbyteorder("<") if dtype.isbuiltin == 1 else dtype).reshape(shape)
    return array.view(np.ndarray)


def _strings(tensor: TensorProto) -> Array:
    """Strings as an array of objects: str, or bytes where one is not UTF-8."""
    try:
        items: list[Any] = [s.decode() for s in tensor.string_data]
    except UnicodeDecodeError:
        items = list(tensor.string_data)
    array = np.empty(len(items), object)
    array[:] = items
    return array.reshape(tuple(tensor.dims))


def _check_inline(tensor: TensorProto, dtype: np.dtype[Any]) -> None:
    """ZcError when a message holds more or less data than its shape asks for."""
    if tensor.external_data:
        return  # a tensor that says it is elsewhere although it is not external: reading it will fail, and say so
    count = math.prod(tensor.dims)
    field = helper.tensor_dtype_to_field(tensor.data_type)
    bits = PACKED_BITS.get(tensor.data_type)
    if tensor.HasField("segment"):
        raise ZcError(f"initializer '{tensor.name}' is one segment of a tensor; such files cannot be read")
    if tensor.HasField("raw_data") and field != "string_data":
        have, want, unit = len(tensor.raw_data), (count * (bits or dtype.itemsize * 8) + 7) // 8, "bytes"
    else:
        per_element = 2 if dtype.kind == "c" else 1
        packed = bits in (2, 4)  # several elements an int32_data entry, as many as fit into a byte
        want = (count * bits + 7) // 8 if bits is not None and packed else count * per_element
        have, unit = len(getattr(tensor, field)), "values"
    if have != want:
        raise ZcError(
            f"initializer '{tensor.name}': its shape {list(tensor.dims)} of {dtype} needs {want} {unit}, "
            f"and there are {have}"
        )


def inline_external(message: M, folder: Path | None) -> M:
    """A message of tensors (an attribute, a sparse tensor) with all data inside; itself when it is so already."""
    found = list(_external_parts(message))
    if not found:
        return message
    inline = type(message)()
    inline.CopyFrom(message)
    for tensor in _external_parts(inline):
        lazy = LazyTensor(tensor, folder)
        data = b"".join(lazy.raw_chunks())
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = data
    return inline


def _external_parts(message: Any) -> Iterator[TensorProto]:
    if isinstance(message, onnx.SparseTensorProto):
        candidates = [message.values, message.indices]
    else:
        sparse = [*message.sparse_tensors, *([message.sparse_tensor] if message.HasField("sparse_tensor") else [])]
        candidates = [*message.tensors, *(t for one in sparse for t in (one.values, one.indices))]
    yield from (t for t in candidates if t.data_location == TensorProto.EXTERNAL)


def _external_window(lazy: LazyTensor) -> _Window:
    """File, offset and length of external data, checked: a model may only name files inside its own folder."""
    where = f"initializer '{lazy.tensor.name}'"
    entries = {e.key: e.value for e in lazy.tensor.external_data}
    location = entries.get("location", "")
    if lazy.folder is None:
        raise ZcError(f"{where} is external ('{location}') but the model was not read from a file")
    try:
        if not isinstance(location, str):  # protobuf's way to say that it is not UTF-8
            raise ValueError("the name is not UTF-8")
        root = lazy.folder.resolve()
        path = (root / location).resolve()
        inside = bool(location) and not Path(location).is_absolute() and path.is_relative_to(root)
        linked = ", by a link" if not inside and (root / location).is_symlink() else ""
        stat = path.stat() if inside and path.is_file() else None
    except (OSError, ValueError, RuntimeError) as err:  # a loop of links, a name that no file can have
        raise ZcError(f"{where}: external data {location!r} cannot be read: {err}") from err
    if not inside:
        raise ZcError(
            f"{where}: external data {location!r} is outside the model's folder{linked}; refused: copy it beside it"
        )
    if stat is None:
        raise ZcError(f"{where}: external data file {location!r} is missing beside the model")
    wanted = _stored(lazy.tensor.data_type, lazy.dtype, lazy.shape)
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or wanted)
    except ValueError as err:
        raise ZcError(f"{where}: external data offset or length is not a number") from err
    if lazy.tensor.data_type == TensorProto.STRING:
        raise ZcError(f"{where}: strings cannot stand in external data")
    if offset < 0 or length != wanted or offset + length > stat.st_size:
        raise ZcError(
            f"{where}: {location!r} holds {stat.st_size} bytes; the shape {list(lazy.shape)} needs "
            f"{wanted} at offset {offset} (the model says {length})"
        )
    return _Window(path, offset, length, _stamp(stat))


def array_chunks(array: Array) -> Iterator[bytes]:
    """An array's bytes as stored in a file (little-endian; low-bit types packed), in pieces of bounded size."""
    if elem_type_of(array.dtype) in PACKED_BITS:
        yield numpy_helper.from_array(array).raw_data
        return
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    flat = np.ascontiguousarray(array).reshape(-1)
    step = max(1, _CHUNK // max(1, array.dtype.itemsize))
    for start in range(0, flat.size, step):
        yield flat[start : start + step].tobytes()


def chunks_of(values: Any) -> Iterator[bytes]:
    """The stored bytes of a constant's array, read or not."""
    return values.raw_chunks() if isinstance(values, LazyTensor) else array_chunks(values)


def stored_bytes(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Bytes that an array takes in a file."""
    return _stored(elem_type_of(dtype), dtype, shape)


def _stored(elem_type: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    return (math.prod(shape) * PACKED_BITS.get(elem_type, dtype.itemsize * 8) + 7) // 8


def digest(constant: gs.Constant) -> str:
    """Sha256 of a constant's stored bytes (strings: of their UTF-8, length-prefixed), without reading it at once."""
    sha = hashlib.sha256()
    values = constant._values
    if np.dtype(values.dtype).kind in "OUS" and not isinstance(values, LazySparse):
        # Straight from the message: strings that are not UTF-8 have no array.
        items = values.tensor.string_data if isinstance(values, LazyTensor) else values.reshape(-1)
        for item in items:
            data = item if isinstance(item, bytes) else str(item).encode()
            sha.update(len(data).to_bytes(8, "little") + data)
    elif isinstance(values, LazySparse):
        sha.update(values.tensor.SerializeToString(deterministic=True))
    else:
        for piece in chunks_of(values):
            sha.update(piece)
    return sha.hexdigest()
