"""Tensor data: read lazily from the message or from an external file inside the model's folder, written in a stream."""

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper, numpy_helper
from onnx_graphsurgeon.ir.tensor import LazyValues

from zc.errors import ZcError
from zc.ir.graph import Array

_CHUNK = 1 << 24
_PACKED_BITS = {  # several elements a byte
    TensorProto.UINT4: 4,
    TensorProto.INT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    **{getattr(TensorProto, n): 2 for n in ("UINT2", "INT2") if hasattr(TensorProto, n)},
}


class LazyTensor(LazyValues):
    """An initializer that has not been read. `shape`, `dtype` and `nbytes` are known; `load` reads it."""

    def __init__(self, tensor: TensorProto, folder: Path | None) -> None:
        self.tensor = tensor
        self.folder = folder
        self.shape = tuple(tensor.dims)
        self.dtype = dtype_of(tensor.data_type)
        if any(d < 0 for d in self.shape):
            raise ZcError(f"initializer '{tensor.name}' has a negative dimension: {list(self.shape)}")
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        self._window = _external_window(self) if self.external else None

    @property
    def external(self) -> bool:
        """Does the data stand in a file of its own?"""
        return self.tensor.data_location == TensorProto.EXTERNAL

    def load(self) -> Array:
        """The array, read-only."""
        if self._window is not None:
            path, offset, length = self._window
            raw = np.memmap(path, np.uint8, "r", offset, (length,)) if length else np.empty(0, np.uint8)
            if self.tensor.data_type not in _PACKED_BITS:
                return _native(raw, self.dtype, self.shape)
            packed = TensorProto(data_type=self.tensor.data_type, dims=self.tensor.dims, raw_data=raw.tobytes())
            array = numpy_helper.to_array(packed)
        else:
            try:
                array = numpy_helper.to_array(self.tensor)
            except (ValueError, TypeError) as err:
                raise ZcError(f"initializer '{self.tensor.name}': its data does not fit its shape {self.shape}: {err}") from err
        array.flags.writeable = False
        return array

    def raw_chunks(self) -> Iterator[bytes]:
        """The data as it is stored in a file, in pieces of bounded size."""
        if self._window is None:
            yield from array_chunks(self.load())
            return
        path, offset, length = self._window
        with open(path, "rb") as file:
            file.seek(offset)
            while length > 0:
                piece = file.read(min(_CHUNK, length))
                if not piece:
                    raise ZcError(f"initializer '{self.tensor.name}': {path.name} ended early")
                length -= len(piece)
                yield piece

    def __repr__(self) -> str:
        return f"LazyTensor({self.dtype}, {self.shape})"


class LazySparse(LazyValues):
    """A sparse initializer, kept as it is stored until somebody wants it dense."""

    def __init__(self, tensor: onnx.SparseTensorProto) -> None:
        self.tensor = tensor
        self.shape = tuple(tensor.dims)
        self.dtype = dtype_of(tensor.values.data_type)
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize

    def load(self) -> Array:
        """The dense array, read-only (onnx.proto, SparseTensorProto: linear or per-dimension indices)."""
        dense = np.zeros(math.prod(self.shape), self.dtype)
        index = numpy_helper.to_array(self.tensor.indices)
        if index.ndim == 2:
            index = np.ravel_multi_index(tuple(index.T), self.shape)
        dense[index] = numpy_helper.to_array(self.tensor.values)
        dense.flags.writeable = False
        return dense.reshape(self.shape)

    def __repr__(self) -> str:
        return f"LazySparse({self.dtype}, {self.shape})"


def _native(raw: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """Bytes as an array; files are little-endian."""
    array = raw.view(dtype.newbyteorder("<") if dtype.isbuiltin == 1 else dtype).reshape(shape)
    return array.view(np.ndarray)


def dtype_of(elem_type: int) -> np.dtype[Any]:
    """The numpy (or ml_dtypes) type of an ONNX element type."""
    try:
        return np.dtype(helper.tensor_dtype_to_np_dtype(elem_type))
    except (KeyError, TypeError) as err:
        raise ZcError(f"element type {elem_type} is not known to the installed onnx {onnx.__version__}") from err


def elem_type_of(dtype: Any) -> int:
    """The ONNX element type of a numpy (or ml_dtypes) type; strings may be of any numpy string kind."""
    if isinstance(dtype, int):
        return dtype
    dtype = np.dtype(dtype)
    if dtype.kind in "OUS":
        return int(TensorProto.STRING)
    try:
        return int(helper.np_dtype_to_tensor_dtype(dtype))
    except (KeyError, ValueError) as err:
        raise ZcError(f"numpy type {dtype} has no ONNX element type") from err


def _external_window(lazy: LazyTensor) -> tuple[Path, int, int]:
    """File, offset and length of external data, checked: a model may only name files inside its own folder."""
    name = lazy.tensor.name
    entries = {e.key: e.value for e in lazy.tensor.external_data}
    location = entries.get("location", "")
    if lazy.folder is None:
        raise ZcError(f"initializer '{name}' is external ('{location}') but the model was not read from a file")
    root = lazy.folder.resolve()
    path = root / location
    if not location or Path(location).is_absolute() or not path.resolve().is_relative_to(root):
        raise ZcError(f"initializer '{name}': external data '{location}' is outside the model's folder; refused")
    path = path.resolve()
    if not path.is_file():
        raise ZcError(f"initializer '{name}': external data file '{location}' is missing beside the model")
    wanted = math.prod(lazy.shape) * _PACKED_BITS.get(lazy.tensor.data_type, lazy.dtype.itemsize * 8)
    wanted = (wanted + 7) // 8
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or wanted)
    except ValueError as err:
        raise ZcError(f"initializer '{name}': external data offset or length is not a number") from err
    if offset < 0 or length != wanted or offset + length > path.stat().st_size:
        raise ZcError(
            f"initializer '{name}': '{location}' holds {path.stat().st_size} bytes; the shape {list(lazy.shape)} needs "
            f"{wanted} at offset {offset} (the model says {length})"
        )
    return path, offset, length


def array_chunks(array: Array) -> Iterator[bytes]:
    """An array's bytes as stored in a file (little-endian; low-bit types packed), in pieces of bounded size."""
    if elem_type_of(array.dtype) in _PACKED_BITS:
        yield numpy_helper.from_array(array).raw_data
        return
    if array.dtype.isbuiltin == 1 and array.dtype.byteorder == ">":
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
    bits = _PACKED_BITS.get(elem_type_of(dtype), dtype.itemsize * 8)
    return (math.prod(shape) * bits + 7) // 8


def digest(constant: gs.Constant) -> str:
    """sha256 of an initializer's stored bytes (strings: of their UTF-8, length-prefixed), without reading it at once."""
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
