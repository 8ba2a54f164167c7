"""Codes: QuantizeLinear and DequantizeLinear as scales of tensors, and which nodes run on codes.

    before:  x_q -> DequantizeLinear -> x -> Conv(DequantizeLinear(w_q), b) -> y -> QuantizeLinear -> y_q
    after:   x_q -> CONV_2D(w_q, b_q) -> y_q            (int8, with the scales in the tensors)

Codes are int8, or int16 around zero. Those of type uint8 become int8: number and zero point less 128, which is exact.
"""

from dataclasses import replace
from typing import Any, cast

import numpy as np

from zc.backends.tflite.flat import FlatTensor, Quant
from zc.backends.tflite.layout import Layout
from zc.backends.tflite.lowering import Lowering, Value
from zc.ir.graph import Array, Node, Tensor, attribute

CODES = frozenset({"int8", "uint8", "int16", "uint16"})
"""Types of codes of activations."""

UNARY = frozenset({"Sigmoid", "Tanh", "Softmax", "LogSoftmax", "HardSwish", "LeakyRelu", "Elu", "Gelu", "Relu", "Clip"})
MOVING = frozenset(
    {
        *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "ReduceMin"),
        *("Resize", "Pad", "Slice", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "DepthToSpace"),
        *("SpaceToDepth", "Gather", "Split", "Tile"),
    }
)
PAIRS = frozenset({"Add", "Sub", "Mul"})
TIED = frozenset({"Concat", "Max", "Min"})
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators whose LiteRT kernels run on codes, by how many of their inputs are data."""

_KINDS_16 = frozenset(
    {*WEIGHTED, *PAIRS, *TIED, *MOVING, "Sigmoid", "Tanh", "Softmax", "LeakyRelu", "Relu"} - {"ConvTranspose"}
)
"""Those with kernels for int16 as well."""


def dequantize(lowering: Lowering, node: Node) -> None:
    """DequantizeLinear: the value stands for the codes; of constants, for the codes as a constant."""
    source, out = node.inputs[0], node.outputs[0]
    codes = lowering.constant(source) if lowering.known(source) else None
    if codes is None:
        _stand_for(lowering, node)
        return
    if attribute(node, "block_size", 0):
        lowering.arrays[id(out)] = _by_blocks(lowering, node, codes)
        return
    kind, quant = _parameters(lowering, node, codes.dtype)
    if kind == np.int8 and codes.dtype != np.int8:
        codes = (codes.astype(np.int16) - (128 if codes.dtype == np.uint8 else 0)).astype(np.int8)
    lowering.coded[id(out)] = (codes, quant)


def _stand_for(lowering: Lowering, node: Node) -> None:
    """Let the value behind DequantizeLinear stand for the codes; those of an input get their scale here."""
    source, out = node.inputs[0], node.outputs[0]
    value = lowering.values[id(source)]
    kind, quant = _parameters(lowering, node, None)
    if value.tensor.quant is None:
        stored = np.dtype(source.dtype)
        if stored.name not in CODES or (quant.per_channel and stored != kind):
            raise lowering.fail(f"codes of type {stored} computed at run time", "quantise with int8 codes")
        zero = quant.zero if stored == kind else quant.zero + 128
        value.tensor.quant = Quant(quant.scale, zero, value.layout.index(quant.axis) if quant.per_channel else 0)
        if stored != kind:
            made = FlatTensor(lowering.take(f"{source.name}_codes"), value.tensor.shape, kind, quant)
            lowering.op("QUANTIZE", [value.tensor], [made])
            value = Value(made, value.layout)
    if quant.per_channel:  # rows of a table of codes: no kernel but DEQUANTIZE reads more than the first scale
        value = Value(lowering.as_numbers(value.tensor), value.layout)
    lowering.values[id(out)] = value


def quantize(lowering: Lowering, node: Node) -> None:
    """QuantizeLinear: nothing where what computed the value has put out these codes; else a QUANTIZE."""
    source, out = node.inputs[0], node.outputs[0]
    kind, quant = _parameters(lowering, node, None)
    if quant.per_channel:
        raise lowering.fail("a scale for each channel of a value computed at run time", "give it one scale")
    value = lowering.values.get(id(source))
    if value is not None and quant.same(value.tensor.quant) and value.tensor.dtype == kind:
        lowering.values[id(out)] = value
        return
    if value is None:
        value = Value(lowering.read(source), lowering.layout(source))
    waiting = value.spread
    made = FlatTensor(lowering.take(out.name), value.tensor.shape, kind, quant)
    lowering.op("QUANTIZE", [value.tensor], [made])
    if waiting is not None:  # rounding does not mind the order of the numbers
        waiting = replace(waiting, source=Value(made, waiting.source.layout))
    lowering.values[id(out)] = Value(made, value.layout, waiting)


def _by_blocks(lowering: Lowering, node: Node, codes: Array) -> Array:
    size, axis = int(attribute(node, "block_size", 0)), int(attribute(node, "axis", 1))
    scale, *zeros = (lowering.constant(t) for t in node.inputs[1:] if t.name)
    if scale is None or any(z is None for z in zeros):
        raise lowering.fail("its scale is not constant")
    spread = [np.repeat(cast(Array, one), size, axis).take(range(codes.shape[axis]), axis) for one in (scale, *zeros)]
    numbers = codes.astype(np.float32) - (spread[1].astype(np.float32) if len(spread) > 1 else 0)
    return np.asarray(numbers * spread[0], np.float32)


def _parameters(lowering: Lowering, node: Node, stored: np.dtype[Any] | None) -> tuple[np.dtype[Any], Quant]:
    """Type in the file and scale of the codes that Q or DQ speaks of; `stored`: the type of constant codes."""
    scale = lowering.constant(node.inputs[1])
    has_zero = len(node.inputs) > 2 and bool(node.inputs[2].name)
    zero = lowering.constant(node.inputs[2]) if has_zero else np.zeros(1, stored or np.uint8)
    if scale is None or zero is None:
        raise lowering.fail(
            "its scale or zero point is not constant", "quantise with constant scales (zc opt -p quantize)"
        )
    kind = stored or zero.dtype
    if stored is None and kind.name not in CODES:
        raise lowering.fail(f"codes of type {kind}", "quantise for this target (zc opt -p quantize --target tflite)")
    if stored is None and not has_zero and attribute(node, "output_dtype", 0):
        raise lowering.fail("its type of codes is given without a zero point", "give it a zero point")
    scale, zeros = scale.reshape(-1), zero.reshape(-1).astype(np.int64)
    zeros = np.broadcast_to(zeros, scale.shape).copy() if zeros.size == 1 else zeros
    if kind == np.uint8:
        kind, zeros = np.dtype(np.int8), zeros - 128
    elif kind.itemsize == 1 and kind.name not in {"int8", "int4", "uint4", "int2", "uint2"}:
        raise lowering.fail(f"codes of type {kind}", "quantise for this target (zc opt -p quantize --target tflite)")
    elif kind.name in {"int4", "uint4", "int2", "uint2"}:
        kind = np.dtype(np.int8)
    elif kind == np.uint16 or (kind == np.int16 and zeros.any()):
        raise lowering.fail(
            "codes of 16 bits that are not int16 around zero",
            "quantise for this target (zc opt -p quantize:activation_bits=16 --target tflite)",
        )
    rank = lowering.rank(node.inputs[0])
    axis = int(attribute(node, "axis", 1)) % rank if scale.size > 1 else 0  # XNNPACK insists on 0 without channels
    return kind, Quant(scale.astype(np.float32), zeros, axis)


# ---- which nodes run on codes


def output_codes(lowering: Lowering, tensor: Tensor) -> tuple[np.dtype[Any], Quant]:
    """Type and scale of what a node that runs on codes puts out for a value."""
    if np.dtype(tensor.dtype or np.float32).name in CODES:  # it stands on the codes themselves
        source = lowering.values[id(lowering.node.inputs[0])].tensor
        assert source.quant is not None
        return source.dtype, source.quant
    return _parameters(lowering, cast(Node, tensor.outputs[0]), None)


def on_codes(lowering: Lowering, node: Node) -> bool:
    """Does a node compute codes from codes?"""
    if not node.inputs or not node.outputs:
        return False
    first = lowering.codes(node.inputs[0])
    if np.dtype(node.outputs[0].dtype or np.float32).name in CODES and first is not None:
        return True
    if not all(_rounded(lowering, t) for t in node.outputs if t.name):
        return False
    if node.op in PAIRS | TIED:
        fine = any(lowering.codes(t) for t in node.inputs) and all(_coded(lowering, t) for t in node.inputs)
    elif node.op in WEIGHTED:
        fine = first is not None and _weight_fits(lowering, node)
    else:
        fine = node.op in UNARY | MOVING and first is not None
    wide = fine and any(lowering.values[id(t)].tensor.dtype == np.int16 for t in node.inputs if lowering.codes(t))
    return fine and (not wide or node.op in _KINDS_16)


def _rounded(lowering: Lowering, tensor: Tensor) -> bool:
    """Is a value read by one QuantizeLinear alone?"""
    return id(tensor) not in lowering.outputs and len(tensor.outputs) == 1 and tensor.outputs[0].op == "QuantizeLinear"


def _coded(lowering: Lowering, tensor: Tensor) -> bool:
    if lowering.codes(tensor) is not None:
        return True
    if id(tensor) in lowering.coded:
        codes, quant = lowering.coded[id(tensor)]
        return codes.dtype in (np.int8, np.int16) and not quant.per_channel
    values = lowering.constant(tensor) if lowering.known(tensor) else None
    return values is not None and values.size == 1


def _weight_fits(lowering: Lowering, node: Node) -> bool:
    """Is the second factor codes around zero with a scale for each output channel, or codes computed at run time?"""
    weight = node.inputs[1]
    if id(weight) not in lowering.coded:
        return node.op == "MatMul" and lowering.codes(weight) is not None
    codes, quant = lowering.coded[id(weight)]
    if codes.dtype != np.int8 or quant.zero.any():
        return False
    bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
    if bias is not None and lowering.constant(bias) is None:
        return False
    axis = {"Conv": 0, "ConvTranspose": 1, "MatMul": 1, "Gemm": 0 if attribute(node, "transB", 0) else 1}[node.op]
    if node.op == "MatMul" and codes.ndim != 2:
        return False
    if node.op == "Gemm" and (attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "transA", 0)):
        return False
    return not quant.per_channel or quant.axis == axis


# ---- reading


def read_codes(lowering: Lowering, tensor: Tensor, layout: Layout) -> FlatTensor:
    """An operand of a node on codes; constants of one number are coded exactly, as code 127 or -127."""
    if id(tensor) in lowering.values:
        return lowering.read(tensor, layout)
    if id(tensor) in lowering.coded:
        codes, quant = lowering.coded[id(tensor)]
        return lowering.array(codes.transpose(layout), tensor.name, quant)
    values = lowering.constant(tensor)
    assert values is not None
    size = float(values.reshape(-1)[0])
    quant = Quant.of(np.float32(abs(size) / 127 or 1.0), 0)
    return lowering.array(np.full(values.shape, np.sign(size) * 127).astype(np.int8), tensor.name, quant)


def read_tied(lowering: Lowering, tensor: Tensor, layout: Layout, quant: Quant, kind: np.dtype[Any]) -> FlatTensor:
    """An operand in the scale that the kernel insists on; it is rounded anew if it has another."""
    own = read_codes(lowering, tensor, layout)
    if quant.same(own.quant):
        return own
    made = FlatTensor(lowering.take(f"{own.name}_tied"), own.shape, kind, quant)
    lowering.op("QUANTIZE", [own], [made])
    return made


def weight_codes(lowering: Lowering, tensor: Tensor) -> tuple[Array, Quant]:
    """Codes and scales of a constant weight, in ONNX's order of axes."""
    return lowering.coded[id(tensor)]


def bias_codes(
    lowering: Lowering, bias: Tensor | None, source: Quant, weight: Quant, channels: int, wide: bool
) -> FlatTensor:
    """The bias in units of the accumulator: int32 (int64 beside int16), scale sx*sw; zeros where there is none."""
    scale = (source.scale.astype(np.float64) * weight.scale.astype(np.float64)).astype(np.float32)
    limit = 2**39 if wide else 2**31 - 1
    values = np.zeros(channels, np.int64)
    if bias is not None:
        coded = lowering.coded.get(id(bias))
        if coded is not None and coded[0].dtype == np.int32 and np.allclose(coded[1].scale, scale, rtol=1e-6, atol=0):
            values = coded[0].astype(np.int64).reshape(-1)
        else:
            numbers = cast(Array, lowering.constant(bias)).astype(np.float64).reshape(-1)
            values = np.rint(np.broadcast_to(numbers / scale, (channels,))).astype(np.int64)
        values = np.broadcast_to(np.clip(values, -limit, limit), (channels,))
    kind = np.int64 if wide else np.int32
    name = bias.name if bias is not None else f"{lowering.node.outputs[0].name}_bias"
    return lowering.array(values.astype(kind), name, Quant(scale, np.zeros(scale.shape, np.int64)))
