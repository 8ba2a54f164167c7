"""The version of each operator that a file must ask for, by what it uses of it.

Rules of TensorFlow Lite's `tools/versioning/op_version.cc`: the lowest version that knows the form, so that files run
on the oldest runtime that can run them.
"""

from collections.abc import Callable

import numpy as np

from zc.backends.tflite.flat import FlatOp


def version_of(op: FlatOp) -> int:
    """The least version whose kernels take the operator as it stands."""
    rule = _RULES.get(op.code)
    return 1 if rule is None else rule(op)


def _kind(op: FlatOp, position: int = 0) -> str:
    tensor = op.inputs[position] if position < len(op.inputs) else None
    return "" if tensor is None else tensor.dtype.name


def _rank(op: FlatOp) -> int:
    return max((len(t.shape) for t in op.inputs if t is not None), default=0)


def _hybrid(op: FlatOp) -> bool:
    return _kind(op) == "float32" and _kind(op, 1) == "int8"


def _conv(op: FlatOp) -> int:
    data, weight = op.inputs[0], op.inputs[1]
    assert data is not None
    assert weight is not None
    if data.shape[-1] != weight.shape[-1]:
        return 6  # grouped
    if _kind(op) == "int16":
        return 4
    if _hybrid(op):
        return 5 if weight.quant is not None and weight.quant.per_channel else 2
    return 3 if _kind(op) == "int8" else 1


def _depthwise(op: FlatOp) -> int:
    if _kind(op) == "int16":
        return 5
    if _hybrid(op):
        return 6
    if _kind(op) == "int8":
        return 3
    return 2 if (op.options.get("dilationHFactor", 1), op.options.get("dilationWFactor", 1)) != (1, 1) else 1


def _dense(op: FlatOp) -> int:
    weight = op.inputs[1]
    assert weight is not None
    per_channel = weight.quant is not None and weight.quant.per_channel
    if _hybrid(op):
        return 12 if per_channel else 9
    if _kind(op) == "int16":
        return 11 if len(op.inputs) > 2 and op.inputs[2] is not None and _kind(op, 2) == "int32" else 7
    if _kind(op) == "int8":
        return 12 if per_channel else 5 if op.options.get("keepNumDims") else 4
    return 5 if op.options.get("keepNumDims") else 6 if len(op.inputs) < 3 or op.inputs[2] is None else 1


def _by_kind(versions: dict[str, int], default: int = 1) -> Callable[[FlatOp], int]:
    return lambda op: versions.get(_kind(op), default)


def _by_rank(small: dict[str, int], limit: int, large: int) -> Callable[[FlatOp], int]:
    """As `_by_kind`; tensors of more dimensions than `limit` need a version of their own."""
    return lambda op: max(small.get(_kind(op), 1), large if _rank(op) > limit else 1)


def _gather(op: FlatOp) -> int:
    if op.options.get("batchDims", 0):
        return 5
    return {"int16": 4, "bool": 3, "int8": 2}.get(_kind(op), 1)


def _resize(op: FlatOp) -> int:
    if _kind(op) == "int16":
        return 4
    return 3 if op.options.get("halfPixelCenters") else 2 if _kind(op) == "int8" else 1


def _transpose_conv(op: FlatOp) -> int:
    return 3 if len(op.inputs) > 3 else 2 if _kind(op, 2) == "int8" else 1


def _strided_slice(op: FlatOp) -> int:
    return {"int8": 2, "bool": 3, "int16": 4}.get(_kind(op), 4 if _rank(op) > 4 else 1)


def _mul(op: FlatOp) -> int:
    return {"int16": 4, "int8": 2}.get(_kind(op), 1)


def _cast(op: FlatOp) -> int:
    plain = {"float32", "int32", "int64", "bool", "uint8"}
    return (
        1
        if {_kind(op), op.outputs[0].dtype.name} <= plain
        else 4
        if "float64" in (_kind(op), op.outputs[0].dtype.name)
        else 3
    )


def _quantize(op: FlatOp) -> int:
    return 2 if np.dtype("int16") in (op.outputs[0].dtype, op.inputs[0].dtype if op.inputs[0] else None) else 1


def _dequantize(op: FlatOp) -> int:
    tensor = op.inputs[0]
    assert tensor is not None
    if tensor.quant is not None and tensor.quant.per_channel:
        return 5
    return {"int16": 3, "float16": 3, "int8": 2}.get(_kind(op), 1)


_TWO_FOR_INT8 = {"int8": 2, "int16": 3}

_RULES: dict[str, Callable[[FlatOp], int]] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _dense,
    "TRANSPOSE_CONV": _transpose_conv,
    "BATCH_MATMUL": _by_kind({"int8": 2, "int16": 3}),
    "ADD": _by_rank({"int8": 2, "int16": 4, "int64": 4}, 4, 1),
    "SUB": _by_rank({"int8": 3, "int16": 5, "int64": 4}, 4, 3),
    "MUL": _mul,
    "DIV": _by_rank({}, 4, 2),
    "MAXIMUM": _by_rank(_TWO_FOR_INT8, 4, 3),
    "MINIMUM": _by_rank(_TWO_FOR_INT8, 4, 3),
    "MAX_POOL_2D": _by_kind(_TWO_FOR_INT8),
    "AVERAGE_POOL_2D": _by_kind(_TWO_FOR_INT8),
    "CONCATENATION": _by_kind(_TWO_FOR_INT8),
    "SOFTMAX": _by_kind(_TWO_FOR_INT8),
    "LOGISTIC": _by_kind(_TWO_FOR_INT8),
    "TANH": _by_kind(_TWO_FOR_INT8),
    "LOG_SOFTMAX": _by_kind({"int8": 2}),
    "L2_NORMALIZATION": _by_kind({"int8": 2}),
    "MEAN": _by_kind(_TWO_FOR_INT8),
    "SUM": _by_kind({"int8": 2, "int16": 3}),
    "REDUCE_MAX": _by_kind(_TWO_FOR_INT8),
    "REDUCE_MIN": _by_kind(_TWO_FOR_INT8),
    "REDUCE_PROD": _by_kind({"int8": 2, "int16": 2}),
    "PAD": _by_rank(_TWO_FOR_INT8, 4, 4),
    "PADV2": _by_rank(_TWO_FOR_INT8, 4, 4),
    "MIRROR_PAD": _by_kind(_TWO_FOR_INT8),
    "RELU": _by_kind(_TWO_FOR_INT8),
    "RELU6": _by_kind(_TWO_FOR_INT8),
    "LEAKY_RELU": _by_kind({"int8": 1, "int16": 2}),
    "RESHAPE": lambda op: 1,
    "TRANSPOSE": _by_rank({"int8": 2, "bool": 3, "int16": 4}, 4, 5),
    "SPLIT": _by_kind({"int8": 2, "int32": 3, "int16": 4}),
    "SPLIT_V": _by_kind({"int8": 2}),
    "STRIDED_SLICE": _strided_slice,
    "GATHER": _gather,
    "GATHER_ND": _by_kind({"int8": 1, "int16": 3}),
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "SPACE_TO_DEPTH": _by_kind({"int8": 2}),
    "DEPTH_TO_SPACE": _by_kind({"int8": 2}),
    "TILE": _by_kind({"int8": 2, "int16": 2}),
    "BROADCAST_TO": _by_kind({"int8": 2, "int16": 3}, 2),
    "CAST": _cast,
    "QUANTIZE": _quantize,
    "DEQUANTIZE": _dequantize,
    "EQUAL": _by_kind({"int8": 2}),
    "NOT_EQUAL": _by_kind({"int8": 2}),
    "GREATER": _by_kind({"int8": 2}),
    "LESS": _by_kind({"int8": 2}),
    "ARG_MAX": _by_kind({"int8": 2, "bool": 3}),
    "ARG_MIN": _by_kind({"int8": 2}),
    "TOPK_V2": _by_kind({"int8": 2, "int16": 3}),
    "ABS": _by_kind({"int8": 2, "int16": 3, "int32": 5}),
    "RSQRT": _by_kind({"int8": 2, "int16": 3}),
    "SELECT_V2": _by_rank({}, 4, 1),
    "FLOOR_MOD": _by_kind({"float32": 1, "int16": 2, "int8": 2}),
    "FLOOR_DIV": _by_kind({"float32": 2, "int16": 3, "int8": 3}),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _by_kind({"int8": 3}),
    "GELU": _by_kind({"int8": 2}),
    "FILL": _by_kind({}, 1),
}
