"""Plain attribute values -> AttributeProto, in the type that the operator's schema asks for."""

from functools import lru_cache
from typing import Any

import numpy as np
from onnx import AttributeProto, defs, numpy_helper

from zc.errors import ZcError
from zc.ir.external import elem_type_of
from zc.ir.graph import Node, TypedList, describe

_LISTS = (AttributeProto.INTS, AttributeProto.FLOATS, AttributeProto.STRINGS)


def attribute_kind(node: Node, name: str, value: Any, opset: int) -> int:
    """The AttributeProto type for a plain value: the schema's where it takes such a value, else what it looks like.

    ZcError when no type can hold it.
    """
    if isinstance(value, TypedList) and not value:
        return value.kind
    kind = _schema_kind(node.op, node.domain or "", name, 0 if node.domain else opset)
    if kind == AttributeProto.TENSOR and isinstance(value, np.ndarray):
        return kind
    scalar = not isinstance(value, list | tuple | np.ndarray)
    if kind is not None and (kind in _LISTS) != scalar:
        return kind
    sample = value if scalar else (value[0] if len(value) else 0)
    if isinstance(sample, str | bytes):
        return AttributeProto.STRING if scalar else AttributeProto.STRINGS
    if isinstance(sample, float | np.floating) or (
        not scalar and any(isinstance(v, float | np.floating) for v in value)
    ):
        return AttributeProto.FLOAT if scalar else AttributeProto.FLOATS
    if isinstance(sample, int | np.integer | np.bool_):
        return AttributeProto.INT if scalar else AttributeProto.INTS
    if isinstance(value, type | np.dtype):  # a numpy type, as onnx-graphsurgeon allows for Cast's `to`
        return AttributeProto.INT
    raise ZcError(
        f"node '{describe(node)}': attribute '{name}' has a value of type {type(value).__name__}; no ONNX form"
    )


def fill(attr: AttributeProto, kind: int, value: Any) -> None:
    """Put a plain value into a message. ValueError or TypeError when it does not fit the type."""
    match kind:
        case AttributeProto.FLOAT:
            attr.f = float(value)
        case AttributeProto.INT:
            attr.i = elem_type_of(value) if isinstance(value, type | np.dtype) else _integer(value)
        case AttributeProto.STRING:
            attr.s = raw_text(value)
        case AttributeProto.FLOATS:
            attr.floats.extend(float(v) for v in value)
        case AttributeProto.INTS:
            attr.ints.extend(_integer(v) for v in value)
        case AttributeProto.STRINGS:
            attr.strings.extend(raw_text(v) for v in value)
        case AttributeProto.TENSOR if isinstance(value, np.ndarray):
            attr.t.CopyFrom(numpy_helper.from_array(value))
        case _:
            raise TypeError(f"a value of type {type(value).__name__} is not of the attribute's type")


def raw_text(text: Any) -> bytes:
    """A string as it is stored: UTF-8, or the bytes themselves."""
    return bytes(text) if isinstance(text, bytes) else str(text).encode()


def _integer(value: Any) -> int:
    whole = int(value)
    if whole != value:
        raise ValueError("it must be a whole number")
    return whole


@lru_cache(maxsize=4096)
def _schema_kind(op: str, domain: str, name: str, opset: int) -> int | None:
    """The attribute's type in the schema of that operator set (0: the newest)."""
    try:
        schema: Any = defs.get_schema(op, opset, domain) if opset else defs.get_schema(op, domain)
        return int(schema.attributes[name].type.value)
    except (defs.SchemaError, KeyError):
        return None
