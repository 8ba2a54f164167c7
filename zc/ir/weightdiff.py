"""Weights side by side: equal, or how far apart; and how types and attributes are spelled for a reader."""

from collections.abc import Callable
from typing import cast

import numpy as np
import onnx_graphsurgeon as gs
from onnx import AttributeProto, defs, helper

from zc.ir.changes import WeightChange
from zc.ir.external import elem_type_of
from zc.ir.graph import Array, Constant, Tensor, Variable
from zc.ir.hashed import HashedTensor
from zc.ir.literals import TYPE_NAMES

_CHUNK = 1 << 20
_FEW = 4
_SHOWN = 60


def type_text(tensor: Tensor) -> str:
    """Type and shape as ONNX text spells them: `float[N,64,8,8]`, `int64`, `float[]` for an unknown rank, `?`."""
    if isinstance(tensor, Variable) and kind_of_type(tensor) not in ("tensor_type", "sparse_tensor_type"):
        return " ".join(str(tensor.info.type).split()) if tensor.info is not None else tensor.type
    kind = "?" if tensor.dtype is None else TYPE_NAMES[elem_type_of(tensor.dtype)]
    if tensor.shape is None:
        return kind + ("[]" if kind != "?" else "")
    return kind + (f"[{','.join('?' if d is None else str(d) for d in tensor.shape)}]" if len(tensor.shape) else "")


def kind_of_type(tensor: Tensor) -> str:
    """`tensor_type`, `sequence_type`, ...: which of ONNX's kinds of types."""
    return tensor.type if isinstance(tensor, Variable) else "tensor_type"


def constant_behind(tensor: Tensor) -> Constant | None:
    """The constant that a value is: an initializer, or what a Constant node holds."""
    if isinstance(tensor, Constant):
        return tensor
    if len(tensor.inputs) == 1 and tensor.inputs[0].op == "Constant":
        value = tensor.inputs[0].attrs.get("value")
        return value if isinstance(value, Constant) else None
    return None


def value_text(constant: Constant) -> str:
    """Type and shape of a constant, and its numbers where they are few: `int64[2] [0, 1]`."""
    few = constant.size <= _FEW and len(constant.shape) <= 1 and not isinstance(constant.lazy, HashedTensor)
    if few and constant.dtype.kind == "f":
        return f"{type_text(constant)} {np.array2string(constant.values, precision=6, separator=', ')}"
    return f"{type_text(constant)} {constant.values.tolist()}" if few else type_text(constant)


def attribute_text(node: gs.Node, name: str) -> str | None:
    """An attribute's value as a reader wants it, marked where it is the default; None if it is not there."""
    if name not in node.attrs:
        return None
    value = node.attrs[name]
    if isinstance(value, gs.Graph):
        text = f"body of {len(value.nodes)} nodes"
    elif isinstance(value, Constant):
        text = value_text(value)
    elif isinstance(value, AttributeProto):
        text = " ".join(str(value).split())
    else:
        text = str(value)
    text = text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
    return text + (" (the default)" if _is_default(node, name, value) else "")


def _is_default(node: gs.Node, name: str, value: object) -> bool:
    try:
        default = helper.get_attribute_value(defs.get_schema(node.op, node.domain or "").attributes[name].default_value)
    except (defs.SchemaError, KeyError, ValueError):
        return False
    default = default.decode() if isinstance(default, bytes) else default
    return bool(default == value) if isinstance(value, int | float | str) else False


def compare(a: Constant, b: Constant, digest: Callable[[Constant], str]) -> bool:
    """Do two weights hold the same numbers, of the same type? Where a text tells no hash of one, the type must do.

    But two texts differ when one tells that a weight came through unchanged and the other that it was computed.
    """
    if a._values is b._values:
        return True
    if (type_text(a), tuple(a.shape)) != (type_text(b), tuple(b.shape)):
        return False
    if digest(a) and digest(b):
        return digest(a) == digest(b)
    return not (isinstance(a.lazy, HashedTensor) and isinstance(b.lazy, HashedTensor) and digest(a) != digest(b))


def distance(a: Constant, b: Constant, name: str, where: str, note: str = "") -> WeightChange:
    """How far `b` is from `a`. `name` and `where` say which weight it is and who uses it."""
    before, after = (type_text(c) if note else value_text(c) for c in (a, b))
    numeric = all(TYPE_NAMES[elem_type_of(c.dtype)] != "string" for c in (a, b))
    if tuple(a.shape) != tuple(b.shape) or not numeric:
        return WeightChange(name, where, before, after, note=note)
    hashes = [c.lazy.digest if isinstance(c.lazy, HashedTensor) else "" for c in (a, b)]
    if any(h != "" for h in hashes):
        changed = "now computed" if hashes[1] is None else "now unchanged" if hashes[0] is None else "hashes differ"
        return WeightChange(name, where, before, after, note=note or changed)
    max_abs, relative, sqnr = _measured(a.values, b.values)
    return WeightChange(name, where, before, after, max_abs, relative, sqnr, note)


def _measured(a: Array, b: Array) -> tuple[float, float, float | None]:
    """Largest difference, the same relative to the largest |a|, and SQNR in dB, in pieces of bounded size."""
    flat_a, flat_b = a.reshape(-1), b.reshape(-1)
    wide = np.complex128 if flat_a.dtype.kind == "c" else np.float64
    most = largest = signal = noise = 0.0
    for start in range(0, flat_a.size, _CHUNK):
        x, y = (f[start : start + _CHUNK].astype(wide) for f in (flat_a, flat_b))
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.abs(np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0, y - x))
        most, largest = max(most, float(error.max())), max(largest, float(np.abs(x).max()))
        signal, noise = signal + float((np.abs(x) ** 2).sum()), noise + float((error**2).sum())
    relative = most / largest if largest else float("inf") if most else 0.0
    return most, relative, 10 * float(np.log10(signal / noise)) if signal and noise else None


def dequantized(tensor: Tensor) -> Array | None:
    """The numbers that a DequantizeLinear of constants stands for, float32 of the codes' shape; None if it is none.

    `(codes - zero point) * scale` (ONNX, DequantizeLinear), per tensor or per slice along `axis`.
    """
    if len(tensor.inputs) != 1 or tensor.inputs[0].op != "DequantizeLinear":
        return None
    node = tensor.inputs[0]
    parts = [cast(Constant, t) for t in node.inputs if t.name]
    if len(parts) < 2 or not all(isinstance(t, gs.Constant) for t in parts):
        return None
    if any(isinstance(p.lazy, HashedTensor) for p in parts) or node.attrs.get("block_size"):
        return None
    codes, scale = parts[0].values, parts[1].values.astype(np.float32)
    zero = parts[2].values.astype(np.float32) if len(parts) > 2 else np.zeros_like(scale)
    if scale.ndim == 1 and codes.ndim > 0:
        shape = [1] * codes.ndim
        shape[int(node.attrs.get("axis", 1))] = -1
        if scale.size not in (1, codes.shape[int(node.attrs.get("axis", 1))]):
            return None
        scale, zero = scale.reshape(shape) if scale.size > 1 else scale, zero.reshape(shape) if zero.size > 1 else zero
    return np.asarray((codes.astype(np.float32) - zero) * scale, np.float32)
