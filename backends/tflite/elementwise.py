"""Element-wise operators that LiteRT has a kernel for, or that are a few of those kernels."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from zc.backends.tflite.broadcast import operand, operands
from zc.backends.tflite.codes import read_tied
from zc.backends.tflite.flat import FlatTensor, Quant
from zc.backends.tflite.lowering import Lowering
from zc.ir.graph import Node, attribute

Rule = Callable[[Lowering, Node], None]

FIXED = {
    "LOGISTIC": Quant.of(1 / 256, -128),
    "SOFTMAX": Quant.of(1 / 256, -128),
    "TANH": Quant.of(1 / 128, 0),
    "LOG_SOFTMAX": Quant.of(16 / 256, 127),
    "L2_NORMALIZATION": Quant.of(1 / 128, 0),
}
"""Scales of int8 results that kernels insist on (LiteRT's quantisation specification)."""

FIXED_16 = {"LOGISTIC": Quant.of(1 / 32768, 0), "SOFTMAX": Quant.of(1 / 32768, 0), "TANH": Quant.of(1 / 32768, 0)}
"""The same of int16 results."""


def fixed_scale(code: str, source: FlatTensor) -> Quant | None:
    """The scale that a kernel insists on for its result, by the type of its data."""
    return (FIXED_16 if source.dtype == np.int16 else FIXED).get(code)


def unary(code: str, lowering: Lowering, node: Node) -> None:
    """One kernel on one value."""
    data = node.inputs[0]
    source = lowering.read(data, lowering.layout(data))
    fixed = fixed_scale(code, source) if lowering.integer else None
    lowering.op(code, [source], [lowering.out(node.outputs[0], lowering.layout(data), fixed)])


def binary(code: str, lowering: Lowering, node: Node) -> None:
    """One kernel on two values; small integers are widened for it."""
    layout, both = operands(lowering, node.inputs, node.outputs[0])
    if code == "POW":
        both[1] = _cast_to(lowering, both[1], both[0].dtype)
    emit_wide(lowering, code, both, lowering.out(node.outputs[0], layout))


_WIDER = {"int8": "int32", "uint8": "int32", "int16": "int32", "uint16": "int32", "uint32": "int64"}
"""Types that kernels of arithmetic and comparisons lack, and the next that holds their numbers.

What overflows wraps around in the cast back, as it would have in the narrow type.
"""
_NO_INT64 = frozenset({"POW", "BITWISE_XOR", "RIGHT_SHIFT", "DIV"})


def emit_wide(lowering: Lowering, code: str, many: list[FlatTensor], out: FlatTensor) -> None:
    """Emit an operator on numbers of one type, in a wider one where the kernel does not have it."""
    kind = many[0].dtype
    wide = _WIDER.get(kind.name, kind.name)
    if wide == "uint64" or (wide == "int64" and code in _NO_INT64):
        raise lowering.fail(f"it computes in {kind}, which the kernels lack", "cast its inputs to int32")
    if many[0].quant is not None or wide == kind.name:
        lowering.op(code, many, [out])
        return
    many = [_cast_to(lowering, one, np.dtype(wide)) for one in many]
    if out.dtype == np.bool_:
        lowering.op(code, many, [out])
        return
    made = lowering.temporary(out.shape, wide)
    lowering.op(code, many, [made])
    lowering.op("CAST", [made], [out])


def _cast_to(lowering: Lowering, tensor: FlatTensor, kind: np.dtype[Any]) -> FlatTensor:
    if tensor.dtype == kind:
        return tensor
    if tensor.data is not None:
        return lowering.array(tensor.data.astype(kind), tensor.name)
    return lowering.apply("CAST", tensor, dtype=kind)


def extreme(code: str, lowering: Lowering, node: Node) -> None:
    """Max or Min of any number of values; codes must share one scale."""
    layout, many = operands(lowering, node.inputs, node.outputs[0])
    out = lowering.out(node.outputs[0], layout)
    if lowering.integer and out.quant is not None:
        many = [read_tied(lowering, t, layout, out.quant, out.dtype) for t in node.inputs]
    _chain(lowering, code, many, out)


def total(lowering: Lowering, node: Node) -> None:
    """Sum of any number of values."""
    layout, many = operands(lowering, node.inputs, node.outputs[0])
    _chain(lowering, "ADD", many, lowering.out(node.outputs[0], layout))


def mean_of(lowering: Lowering, node: Node) -> None:
    """Mean of any number of values."""
    layout, many = operands(lowering, node.inputs, node.outputs[0])
    out = lowering.out(node.outputs[0], layout)
    added = lowering.like(out)
    _chain(lowering, "ADD", many, added)
    lowering.op("MUL", [added, lowering.array(np.float32(1 / len(many)) * np.ones((), np.float32))], [out])


def _chain(lowering: Lowering, code: str, many: list[FlatTensor], out: FlatTensor) -> None:
    if len(many) == 1:
        lowering.op("RESHAPE", [many[0], lowering.integers(out.shape)], [out], newShape=out.shape)
        return
    value = many[0]
    for i, other in enumerate(many[1:], start=2):
        shape = tuple(
            b if a == 1 else a if b == 1 else max(a, b) if -1 not in (a, b) else -1
            for a, b in zip(_full(value, out), _full(other, out), strict=True)
        )
        made = out if i == len(many) else lowering.like(out, shape)
        emit_wide(lowering, code, [value, other], made)
        value = made


def _full(tensor: FlatTensor, out: FlatTensor) -> tuple[int, ...]:
    return (1,) * (len(out.shape) - len(tensor.shape)) + tensor.shape


def clip(lowering: Lowering, node: Node) -> None:
    """Clip: one of the activations that kernels fuse, or a MINIMUM and a MAXIMUM."""
    data = node.inputs[0]
    layout = lowering.layout(data)
    low, high = (_limit(lowering, node, i) for i in (0, 1))
    numbers = [
        None if t is None or not t.constant or t.data is None else float(t.data.reshape(-1)[0]) for t in (low, high)
    ]
    source = lowering.read(data, layout)
    out = lowering.out(node.outputs[0], layout, source.quant if lowering.integer else None)
    fused = {(0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1", (0.0, 1.0): "RELU_0_TO_1", (0.0, None): "RELU"}
    pair = (numbers[0], numbers[1] if high is not None else None)
    if not lowering.integer and pair in fused and source.dtype == np.float32 and low is not None:
        lowering.op(fused[pair], [source], [out])
        return

    value = source
    low, high = (_coded_limit(lowering, limit, source) for limit in (low, high))
    if source.quant is not None and _is_zero(low, source.quant) and _is_top(high, source):
        lowering.op("RELU", [source], [out])
        return
    for code, limit, last in (("MAXIMUM", low, high is None), ("MINIMUM", high, True)):
        if limit is not None:
            made = out if last else lowering.like(out)
            emit_wide(lowering, code, [value, limit], made)
            value = made
    if value is source:
        lowering.bind(node.outputs[0], source, layout)


def _coded_limit(lowering: Lowering, limit: FlatTensor | None, source: FlatTensor) -> FlatTensor | None:
    """A limit as a code of the data, where the data is codes."""
    if limit is None or limit.data is None or source.quant is None:
        return limit
    codes = limit.data
    if codes.dtype.kind == "f":
        info = np.iinfo(source.dtype)
        codes = np.clip(np.rint(codes / source.quant.scale[0]) + source.quant.zero[0], info.min, info.max)
    return lowering.array(codes.astype(source.dtype), limit.name, source.quant)


def _is_zero(limit: FlatTensor | None, quant: Quant) -> bool:
    return limit is not None and limit.data is not None and int(limit.data.reshape(-1)[0]) == int(quant.zero[0])


def _is_top(limit: FlatTensor | None, source: FlatTensor) -> bool:
    """Does a limit cut no code off?"""
    return limit is None or (limit.data is not None and int(limit.data.reshape(-1)[0]) == np.iinfo(source.dtype).max)


def _limit(lowering: Lowering, node: Node, position: int) -> FlatTensor | None:
    name = ("min", "max")[position]
    if name in node.attrs:
        return lowering.array(np.array(attribute(node, name, 0.0), np.float32), name)
    if len(node.inputs) <= position + 1 or not node.inputs[position + 1].name:
        return None
    made = lowering.read(node.inputs[position + 1])
    return lowering.array(made.data, name) if made.data is not None else made


def relu(lowering: Lowering, node: Node) -> None:
    """Relu; on codes, a MAXIMUM with the code of zero."""
    data = node.inputs[0]
    layout = lowering.layout(data)
    source = lowering.read(data, layout)
    out = lowering.out(node.outputs[0], layout)
    if source.dtype.kind == "f" or lowering.integer:
        lowering.op("RELU", [source], [out])
    else:
        lowering.op("MAXIMUM", [source, lowering.array(np.zeros((), source.dtype))], [out])


def leaky(lowering: Lowering, node: Node) -> None:
    """LeakyRelu."""
    data = node.inputs[0]
    layout = lowering.layout(data)
    source = lowering.read(data, layout)
    lowering.op(
        "LEAKY_RELU", [source], [lowering.out(node.outputs[0], layout)], alpha=float(attribute(node, "alpha", 0.01))
    )


def gelu(lowering: Lowering, node: Node) -> None:
    """Gelu, exact or by tanh."""
    data = node.inputs[0]
    layout = lowering.layout(data)
    source = lowering.read(data, layout)
    by_tanh = attribute(node, "approximate", "none") == "tanh"
    lowering.op("GELU", [source], [lowering.out(node.outputs[0], layout)], approximate=by_tanh)


def prelu(lowering: Lowering, node: Node) -> None:
    """PRelu; a slope that is not one number for each channel is written out."""
    data, slope = node.inputs
    layout = lowering.layout(data)
    source, factor = lowering.read(data, layout), operand(lowering, slope, layout)
    out = lowering.out(node.outputs[0], layout)
    lengths = factor.shape[:-1]
    if len(source.shape) > 1 and all(d == 1 for d in lengths) and factor.constant:
        wide = (1,) * (len(source.shape) - 2) + factor.shape[-1:]
        if factor.shape[-1] == source.shape[-1]:
            lowering.op("PRELU", [source, lowering.reshape(factor, wide)], [out])
            return
    zero = lowering.array(np.zeros((), np.float32))
    negative = lowering.apply("MINIMUM", source, zero)
    scaled = lowering.apply("MUL", negative, factor)
    lowering.op("ADD", [lowering.apply("RELU", source), scaled], [out])


def where(lowering: Lowering, node: Node) -> None:
    """Where."""
    layout, three = operands(lowering, node.inputs, node.outputs[0])
    lowering.op("SELECT_V2", three, [lowering.out(node.outputs[0], layout)])


def cast(lowering: Lowering, node: Node) -> None:
    """Cast; to a type that the file holds as the same, nothing."""
    data, out = node.inputs[0], node.outputs[0]
    layout = lowering.layout(data)
    source = lowering.read(data, layout)
    kind = lowering.dtype(out)
    if kind.name not in {"float32", "int32", "int64", "int16", "int8", "uint8", "bool", "uint16", "uint32"}:
        raise lowering.fail(f"CAST has no {kind}", "cast to float32 or int32")
    if kind == source.dtype:
        lowering.bind(out, source, layout)
        return
    made = lowering.out(out, layout)
    if kind == np.bool_:
        lowering.op("NOT_EQUAL", [source, lowering.array(np.zeros((), source.dtype))], [made])
    else:
        lowering.op("CAST", [source], [made])


def modulo(lowering: Lowering, node: Node) -> None:
    """Mod: FLOOR_MOD has the sign of the divisor; fmod=1, that of the dividend, is written out."""
    layout, both = operands(lowering, node.inputs, node.outputs[0])
    out = lowering.out(node.outputs[0], layout)
    if not attribute(node, "fmod", 0):
        emit_wide(lowering, "FLOOR_MOD", both, out)
        return
    if out.dtype.name not in {"float32", "int32"}:
        raise lowering.fail(f"fmod=1 in {out.dtype}", "cast its inputs to int32")
    a, b = both
    size_a, size_b = lowering.apply("ABS", a), lowering.apply("ABS", b)
    rest = lowering.apply("FLOOR_MOD", size_a, size_b, shape=out.shape)
    lowering.op("MUL", [rest, lowering.apply("SIGN", a)], [out])


def same(lowering: Lowering, node: Node) -> None:
    """Identity: nothing."""
    data = node.inputs[0]
    if len(node.outputs) > 1 and node.outputs[1].name:
        raise lowering.fail("its second output, a mask")
    mode = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
    training = None if mode is None else lowering.constant(mode)
    if mode is not None and (training is None or training.any()):
        raise lowering.fail("training_mode")
    if lowering.known(data):
        values = lowering.constant(data)
        assert values is not None
        lowering.arrays[id(node.outputs[0])] = values
    else:
        lowering.values[id(node.outputs[0])] = lowering.values[id(data)]


_UNARY = {
    "Sigmoid": "LOGISTIC", "Tanh": "TANH", "Exp": "EXP", "Log": "LOG", "Sqrt": "SQRT", "Abs": "ABS", "Neg": "NEG",
    "Floor": "FLOOR", "Ceil": "CEIL", "Round": "ROUND", "Sin": "SIN", "Cos": "COS", "Sign": "SIGN",
    "Not": "LOGICAL_NOT", "HardSwish": "HARD_SWISH",
}  # fmt: skip
_BINARY = {
    "Add": "ADD", "Sub": "SUB", "Mul": "MUL", "Div": "DIV", "Pow": "POW", "Equal": "EQUAL", "Greater": "GREATER",
    "GreaterOrEqual": "GREATER_EQUAL", "Less": "LESS", "LessOrEqual": "LESS_EQUAL", "And": "LOGICAL_AND",
    "Or": "LOGICAL_OR", "Xor": "NOT_EQUAL", "BitwiseXor": "BITWISE_XOR",
}  # fmt: skip

RULES: dict[str, Rule] = {
    **{op: partial(unary, code) for op, code in _UNARY.items()},
    **{op: partial(binary, code) for op, code in _BINARY.items()},
    "Max": partial(extreme, "MAXIMUM"),
    "Min": partial(extreme, "MINIMUM"),
    "Sum": total,
    "Mean": mean_of,
    "Clip": clip,
    "Relu": relu,
    "LeakyRelu": leaky,
    "Gelu": gelu,
    "PRelu": prelu,
    "Where": where,
    "Cast": cast,
    "CastLike": cast,
    "Mod": modulo,
    "Identity": same,
    "Dropout": same,
}
