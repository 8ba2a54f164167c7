"""Rules on codes: types, zero points, scales and axes of Q/DQ."""

from collections.abc import Iterable
from typing import cast

import ml_dtypes
import numpy as np

from zc.backends.qdq import DEQUANTISE, QUANTISE, codes_type, dequantised, maker, nodes_of, scale_of, zero_of
from zc.backends.rules import Found, Rule, at_nodes
from zc.ir.graph import Node, attribute, describe, fixed_value
from zc.ir.model import Model

_TYPES = "TensorRT documentation, 'Working with Quantized Types'"
_EXPLICIT = "TensorRT documentation, 'Explicit Quantization'"
_AGAIN = "quantise the float model with --target tensorrt"

_BITS_8 = (np.dtype(np.int8), np.dtype(ml_dtypes.float8_e4m3fn))
FOUR_BITS = (np.dtype(ml_dtypes.int4), np.dtype(ml_dtypes.float4_e2m1fn))
_SINCE = dict(zip((*FOUR_BITS, _BITS_8[1]), (21, 23, 19), strict=True))
"""Operator sets with which types of codes came."""
_QDQ = (QUANTISE, DEQUANTISE)


def _constant(node: Node) -> bool:
    """Is what it converts a constant (a weight)?"""
    if fixed_value(node.inputs[0]) is not None:
        return True
    made = maker(node.inputs[0])
    return made is not None and made.op == QUANTISE and fixed_value(made.inputs[0]) is not None


def _unsigned(node: Node) -> str | None:
    return "its codes are uint8" if codes_type(node) == np.uint8 else None


def _width(node: Node) -> str | None:
    kind = codes_type(node)
    if kind is None or kind in (np.uint8, np.int32) or kind in _BITS_8:
        return None
    if kind in FOUR_BITS:
        return None if _constant(node) else f"its codes are {kind.name}, which only weights may have"
    return f"its codes are {kind.name}"


def _bias(node: Node) -> str | None:
    return "it makes a float of int32" if codes_type(node) == np.int32 else None


def _zero(node: Node) -> str | None:
    zero = zero_of(node)
    # ml_dtypes compare as numbers do; uint8 codes have a rule of their own.
    if zero is None or zero.dtype == np.uint8 or not np.asarray(zero, np.float32).any():
        return None
    return f"its zero point is {np.asarray(zero, np.float32).reshape(-1)[0]:g}"


def _computed_scale(node: Node) -> str | None:
    if scale_of(node) is None:
        return f"its scale '{node.inputs[1].name}' is computed or an input"
    return None


def _bad_scale(node: Node) -> str | None:
    scale = scale_of(node)
    if scale is None:
        return None
    values = np.asarray(scale, np.float64)
    if np.isfinite(values).all() and (values > 0).all():
        return None
    return f"its scale '{node.inputs[1].name}' has the value {values.reshape(-1)[int(np.argmin(values))]:g}"


def _per_tensor(node: Node) -> str | None:
    scale = scale_of(node)
    if scale is not None and scale.size > 1 and not _constant(node):
        return f"it gives an activation {scale.size} scales"
    return None


def _axis(node: Node) -> Iterable[Found]:
    scale = scale_of(node)
    if scale is None or scale.ndim != 1 or scale.size == 1 or not _constant(node) or attribute(node, "block_size", 0):
        return
    rank = len(node.inputs[0].shape or ())
    axis = int(attribute(node, "axis", 1)) % max(rank, 1)
    for reader in [cast(Node, n) for n in node.outputs[0].outputs]:
        want = _channel_axis(reader, rank)
        if want is not None and axis != want:
            yield describe(node), f"its scales lie along axis {axis}; {reader.op} has its channels on axis {want}"


def _channel_axis(reader: Node, rank: int) -> int | None:
    """The axis of a weight that is the output channel."""
    if reader.op == "Conv":
        return 0
    if reader.op == "ConvTranspose":
        return 1
    if reader.op == "Gemm":
        return 0 if attribute(reader, "transB", 0) else 1
    return rank - 1 if reader.op == "MatMul" else None


def _axes(model: Model) -> Iterable[Found]:
    for node in nodes_of(model, DEQUANTISE):
        yield from _axis(node)


def _pairs(model: Model) -> Iterable[Found]:
    """Codes go from Q to DQ and nowhere else."""
    outputs = {id(t) for t in model.graph.outputs}
    for node in nodes_of(model, QUANTISE):
        strangers = [n for n in node.outputs[0].outputs if n.op != DEQUANTISE]
        if strangers:
            yield describe(node), f"{strangers[0].op} '{describe(strangers[0])}' reads its codes"
        elif not node.outputs[0].outputs and id(node.outputs[0]) not in outputs:
            yield describe(node), "nothing turns its codes back"
    for node in nodes_of(model, DEQUANTISE):
        made = maker(node.inputs[0])
        if made is not None and made.op != QUANTISE and fixed_value(node.inputs[0]) is None:
            yield describe(node), f"its codes come from {made.op} '{describe(made)}'"


def _opset(model: Model) -> Iterable[Found]:
    if model.opset < 13:
        for node in nodes_of(model, *_QDQ):
            yield describe(node), f"the model has operator set {model.opset}"
            return


def _late_types(model: Model) -> Iterable[Found]:
    for node in nodes_of(model, *_QDQ):
        kind = codes_type(node)
        if kind is not None and model.opset < _SINCE.get(kind, 0):
            yield describe(node), f"its codes are {kind.name}, and the model has operator set {model.opset}"


def _blocks(node: Node) -> str | None:
    block = int(attribute(node, "block_size", 0))
    if not block:
        return None
    if not _constant(node):
        return "it gives an activation scales by block"
    shape = node.inputs[0].shape
    axis = int(attribute(node, "axis", 1))
    if shape is None or not all(isinstance(d, int) for d in shape):
        return None
    axis %= len(shape)
    if axis < len(shape) - 2:
        return f"its blocks lie along axis {axis} of {len(shape)}"
    return f"{shape[axis]} elements are no multiple of its blocks of {block}" if shape[axis] % block else None


def _tables(node: Node) -> str | None:
    return (
        "it picks rows of a table of codes"
        if dequantised(node.inputs[0]) and _constant(cast(Node, node.inputs[0].inputs[0]))
        else None
    )


CODES: tuple[Rule, ...] = (
    Rule("no-uint8", "Codes are signed.", _TYPES, _AGAIN, at_nodes(_unsigned, *_QDQ)),
    Rule(
        "code-types",
        "Codes are int8 or float8e4m3fn; those of weights may be int4 or float4.",
        _TYPES,
        _AGAIN,
        at_nodes(_width, *_QDQ),
    ),
    Rule(
        "bias-in-float",
        "A bias is float: DequantizeLinear takes no int32.",
        _EXPLICIT,
        _AGAIN,
        at_nodes(_bias, DEQUANTISE),
    ),
    Rule("zero-point-0", "Zero points are 0.", _TYPES, _AGAIN, at_nodes(_zero, *_QDQ)),
    Rule(
        "constant-scales",
        "Scales are constants.",
        _EXPLICIT,
        "make them initialisers",
        at_nodes(_computed_scale, *_QDQ),
    ),
    Rule("positive-scales", "Scales are positive and finite.", _EXPLICIT, _AGAIN, at_nodes(_bad_scale, *_QDQ)),
    Rule("activations-per-tensor", "An activation has one scale.", _TYPES, _AGAIN, at_nodes(_per_tensor, *_QDQ)),
    Rule(
        "weights-per-channel-axis",
        "Scales of a weight lie along its output channels: Conv 0, ConvTranspose 1, Gemm and MatMul the columns.",
        _EXPLICIT,
        _AGAIN,
        _axes,
    ),
    Rule(
        "pairs",
        "Codes go from QuantizeLinear to DequantizeLinear and nowhere else.",
        _EXPLICIT,
        "move what stands between them in front of QuantizeLinear",
        _pairs,
    ),
    Rule(
        "opset-13",
        "Q/DQ with scales by channel needs operator set 13.",
        "ONNX operator DequantizeLinear-13",
        "zc opt -p quantize raises it; or convert the model",
        _opset,
    ),
    Rule(
        "opset-19",
        "Codes in float8 or of 4 bits need a later operator set (19; int4 21, float4 23).",
        "ONNX operators DequantizeLinear-19, -21 and -23",
        "convert the model",
        _late_types,
    ),
    Rule(
        "blocks-of-weights",
        "Scales by block are for weights, along one of the last two axes, which blocks fill evenly.",
        "TensorRT API reference, IDequantizeLayer",
        "choose a block size that divides the axis (quantize-weights:block=N)",
        at_nodes(_blocks, *_QDQ),
    ),
    Rule(
        "tables-in-float",
        "Gather picks rows of a float table.",
        _EXPLICIT,
        "leave the table out: quantize:skip=NODE",
        at_nodes(_tables, "Gather"),
        "slow",
    ),
)
