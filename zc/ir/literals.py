"""Numbers, strings, names and tensors in ONNX's text grammar (onnx/defs/parser.cc)."""

import re
from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

from zc.errors import ZcError
from zc.ir.external import array_chunks
from zc.ir.graph import Array

_CHUNK = 1 << 16
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

TYPE_NAMES: dict[int, str] = {
    value: {"FLOAT": "float", "DOUBLE": "double"}.get(key, key.lower())
    for key, value in TensorProto.DataType.items()
    if key != "UNDEFINED"
}
"""How the text spells each element type, by its number."""

_PACKED = frozenset({"int2", "uint2", "int4", "uint4", "float4_e2m1fn"})
_RESERVED = frozenset(TYPE_NAMES.values()) | {"seq", "map", "optional", "sparse_tensor", "opaque"}
_PATTERNS = {  # said as the integers that hold their bits, since the grammar has no literals for them
    getattr(TensorProto, name): np.dtype(np.uint16 if name in ("FLOAT16", "BFLOAT16") else np.uint8)
    for name in (
        *("FLOAT16", "BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0"),
        *("FLOAT6E2M3", "FLOAT6E3M2", "FLOAT4E2M1", "UINT4", "INT4", "UINT2", "INT2"),
    )
    if hasattr(TensorProto, name)
}


def is_identifier(text: str) -> bool:
    """May it stand without quotes where only an identifier can?"""
    return _IDENTIFIER.match(text) is not None


def is_plain(text: str) -> bool:
    """Is it an identifier that cannot be mistaken for a type?"""
    return is_identifier(text) and text not in _RESERVED


def name(text: str) -> str:
    """The name of a value, node or dimension, quoted where it must be."""
    return text if is_plain(text) else quoted(text)


def quoted(text: str) -> str:
    r"""A string literal. Only `\\` and `"` are escaped: the grammar knows no `\\n`."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def float_literal(value: float) -> str:
    """The shortest text that reads back as the same float32, always recognisable as a float."""
    text = str(np.float32(value))
    return text if any(c in text for c in ".en") else text + ".0"


def string_text(raw: bytes) -> tuple[str, bool]:
    """A string attribute or element as a literal, and whether it is said exactly: it must be UTF-8."""
    try:
        return quoted(raw.decode()), True
    except UnicodeDecodeError:
        return quoted(raw.decode(errors="backslashreplace")), False


def tensor_literal(tensor: TensorProto) -> tuple[str, str]:
    """A tensor's data as `{1, 2, 3}`, and the numbers that it means where these are bit patterns.

    ZcError when the data does not fit the shape.
    """
    if tensor.data_type == TensorProto.STRING:
        return "{" + ", ".join(string_text(s)[0] for s in tensor.string_data) + "}", ""
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as err:
        raise ZcError(f"tensor '{tensor.name}': its data does not fit its shape {list(tensor.dims)}: {err}") from err
    if tensor.data_type in _PATTERNS:
        # Two or four elements an entry where they are packed into bytes; the 6-bit types have an entry each.
        packed = array.dtype.name in _PACKED
        bits = np.frombuffer(b"".join(array_chunks(array)) if packed else array.tobytes(), _PATTERNS[tensor.data_type])
        return "{" + _numbers(bits) + "}", _numbers(array.astype(np.float32).reshape(-1))
    return "{" + _numbers(_plain(array)) + "}", ""


def _plain(array: Array) -> Array:
    flat = array.reshape(-1)
    if flat.dtype.kind == "c":
        return flat.view(np.float32 if flat.dtype == np.complex64 else np.float64)
    return flat.astype(np.uint8) if flat.dtype.kind == "b" else flat


def _numbers(flat: Array) -> str:
    parts: list[str] = []
    for start in range(0, flat.size, _CHUNK):
        piece = flat[start : start + _CHUNK]
        # numpy prints a float32 in the fewest digits that read back as the same number
        parts.extend(piece.astype(str).tolist() if piece.dtype.kind == "f" else map(str, piece.tolist()))
    return ", ".join(parts)


def dims_text(dims: Any) -> str:
    """The sizes of a tensor literal: `[64,3,3,3]`, nothing for a scalar."""
    return "[" + ",".join(str(d) for d in dims) + "]" if len(dims) else ""
