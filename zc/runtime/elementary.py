"""Recognising operators without weights: sums and products, averages, softmax, concat, and the borders."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from zc.ir.graph import Array, Node, Tensor, attribute
from zc.kernels import rules
from zc.runtime.ops import (
    Binary,
    Coding,
    Concatenate,
    Dequantize,
    GlobalAverage,
    LookUp,
    Op,
    Pool,
    Quantize,
    Softmax,
)
from zc.runtime.quantum import Declined, Scope, clip_bounds, coding, given, node_coding, pair, read, written
from zc.runtime.weighted import padding

CODES = (np.uint8, np.int8)


def binary(scope: Scope, node: Node) -> Op:
    """DQ, DQ -> Add or Mul -> Q, all codes of one type."""
    (left, a), (right, b) = read(scope, given(node, 0)), read(scope, given(node, 1))
    target, y, passed = written(scope, node.outputs[0])
    return _binary(node, (node, *passed), "add" if node.op == "Add" else "multiply", left, right, target, a, b, y)


def qlinear_binary(scope: Scope, node: Node) -> Op:
    """QLinearAdd or QLinearMul (a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero)."""
    a, b, y = (coding(scope, node, node.inputs[i], given(node, i + 1)) for i in (1, 4, 6))
    kind = "add" if node.op == "QLinearAdd" else "multiply"
    return _binary(node, (node,), kind, node.inputs[0], node.inputs[3], node.outputs[0], a, b, y)


def _binary(
    node: Node,
    nodes: tuple[Node, ...],
    kind: str,
    left: Tensor,
    right: Tensor,
    target: Tensor,
    a: Coding,
    b: Coding,
    y: Coding,
) -> Op:
    if not a.signed == b.signed == y.signed:
        raise Declined("it mixes int8 and uint8 codes")
    if kind == "add":
        ra, rb, fixed = rules.add_terms(a.scale, a.zero, b.scale, b.zero, y.scale, y.zero, y.base)
        if 256 * (float(ra) + float(rb)) + abs(float(fixed)) >= rules.LARGEST_PRODUCT:
            raise Declined("its scales are too far apart for 32 bits")
        return Binary(nodes, (left.name, right.name), (target.name,), kind="add", a=a, b=b, y=y)
    if 255 * 255 * float(a.scale) * float(b.scale) / float(y.scale) + 512 >= rules.LARGEST_PRODUCT:
        raise Declined("its scales are too far apart for 32 bits")
    return Binary(nodes, (left.name, right.name), (target.name,), kind="multiply", a=a, b=b, y=y)


def pool(scope: Scope, node: Node) -> Op:
    """DQ -> AveragePool -> Q."""
    source, x = read(scope, given(node, 0))
    target, y, passed = written(scope, node.outputs[0])
    return _pool(node, (node, *passed), source, target, x, y)


def qlinear_pool(scope: Scope, node: Node) -> Op:
    """QLinearAveragePool(x, x_scale, x_zero, y_scale, y_zero)."""
    x, y = coding(scope, node, node.inputs[1], given(node, 2)), coding(scope, node, node.inputs[3], given(node, 4))
    return _pool(node, (node,), node.inputs[0], node.outputs[0], x, y)


def _pool(node: Node, nodes: tuple[Node, ...], source: Tensor, target: Tensor, x: Coding, y: Coding) -> Op:
    found = windows(node)
    if found.dilations != (1, 1) or x.signed != y.signed:
        raise Declined("it is dilated, or reads and writes codes of different types")
    return Pool(
        nodes,
        (source.name,),
        (target.name,),
        kernel=found.kernel,
        strides=found.strides,
        pads=found.pads,
        dilations=found.dilations,
        ceil=found.ceil,
        counts_pad=bool(attribute(node, "count_include_pad", 0)),
        x=x,
        y=y,
        same=found.same,
    )


@dataclass(frozen=True)
class Windows:
    """How a pool's windows lie."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int] | None
    dilations: tuple[int, int]
    ceil: bool
    same: Literal["lower", "upper"] | None


def windows(node: Node) -> Windows:
    """Of MaxPool or AveragePool, in one or two dimensions."""
    kernel = attribute(node, "kernel_shape", None)
    if attribute(node, "channels_last", 0) or attribute(node, "storage_order", 0):
        raise Declined("it is channels last")
    if not 1 <= len(kernel) <= 2:
        raise Declined(f"it pools over {len(kernel)} dimensions")
    pads, same = padding(node)
    return Windows(
        kernel=pair(kernel, 1),
        strides=pair(attribute(node, "strides", None), 1),
        pads=pads,
        dilations=pair(attribute(node, "dilations", None), 1),
        ceil=bool(attribute(node, "ceil_mode", 0)),
        same=same,
    )


def global_average(scope: Scope, node: Node) -> Op:
    """DQ -> GlobalAveragePool -> Q."""
    source, x = read(scope, given(node, 0))
    target, y, passed = written(scope, node.outputs[0])
    return GlobalAverage((node, *passed), (source.name,), (target.name,), x=x, y=y)


def qlinear_global_average(scope: Scope, node: Node) -> Op:
    """QLinearGlobalAveragePool(x, x_scale, x_zero, y_scale, y_zero)."""
    if attribute(node, "channels_last", 0):
        raise Declined("it is channels last")
    x, y = coding(scope, node, node.inputs[1], given(node, 2)), coding(scope, node, node.inputs[3], given(node, 4))
    return GlobalAverage((node,), (node.inputs[0].name,), (node.outputs[0].name,), x=x, y=y)


def softmax(scope: Scope, node: Node) -> Op:
    """DQ -> Softmax -> Q."""
    source, x = read(scope, given(node, 0))
    target, y, passed = written(scope, node.outputs[0])
    flat = scope.opset < 13
    axis = int(attribute(node, "axis", 1 if flat else -1))
    return Softmax((node, *passed), (source.name,), (target.name,), x=x, y=y, axis=axis, flat=flat)


def qlinear_softmax(scope: Scope, node: Node) -> Op:
    """QLinearSoftmax(x, x_scale, x_zero, y_scale, y_zero)."""
    x, y = coding(scope, node, node.inputs[1], given(node, 2)), coding(scope, node, node.inputs[3], given(node, 4))
    flat = int(attribute(node, "opset", 13)) < 13
    axis = int(attribute(node, "axis", -1))
    return Softmax((node,), (node.inputs[0].name,), (node.outputs[0].name,), x=x, y=y, axis=axis, flat=flat)


def concat(scope: Scope, node: Node) -> Op:
    """Concat of codes, or DQ, DQ, ... -> Concat -> Q."""
    axis = int(attribute(node, "axis", 0))
    names = tuple(t.name for t in node.inputs)
    if all(t.dtype in CODES for t in node.inputs):
        return Concatenate((node,), names, (node.outputs[0].name,), axis=axis, tables=(None,) * len(names))
    found = [read(scope, t) for t in node.inputs]
    target, y, passed = written(scope, node.outputs[0])
    return _concat((node, *passed), [t for t, _ in found], [x for _, x in found], target, y, axis)


def qlinear_concat(scope: Scope, node: Node) -> Op:
    """QLinearConcat(y_scale, y_zero, x1, x1_scale, x1_zero, ...)."""
    y = coding(scope, node, node.inputs[0], node.inputs[1])
    tensors = list(node.inputs[2::3])
    codings = [coding(scope, node, node.inputs[i + 1], node.inputs[i + 2]) for i in range(2, len(node.inputs), 3)]
    return _concat((node,), tensors, codings, node.outputs[0], y, int(attribute(node, "axis", 0)))


def _concat(
    nodes: tuple[Node, ...], tensors: list[Tensor], codings: list[Coding], target: Tensor, y: Coding, axis: int
) -> Op:
    if any(x.signed != y.signed for x in codings):
        raise Declined("it mixes int8 and uint8 codes")
    tables: list[Array | None] = []
    for x in codings:
        table = rules.rescale_table(x.scale, x.zero, y.scale, y.zero)
        tables.append(None if x == y else table)
    names = tuple(t.name for t in tensors)
    return Concatenate(nodes, names, (target.name,), axis=axis, tables=tuple(tables), codings=(*codings, y))


# ---- operators on codes themselves


def clip_codes(scope: Scope, node: Node) -> Op:
    """Clip of codes (with bounds that are codes)."""
    if node.inputs[0].dtype not in CODES:
        raise Declined("it clips float values")
    base = 128 if node.inputs[0].dtype == np.int8 else 0
    low, high = clip_bounds(scope, node)
    table = np.clip(np.arange(256) - base, low, high) + base
    return LookUp(
        (node,), (node.inputs[0].name,), (node.outputs[0].name,), table=np.clip(table, 0, 255).astype(np.uint8)
    )


# ---- the borders


def quantizer(scope: Scope, node: Node) -> Op:
    """QuantizeLinear of a float value."""
    if node.inputs[0].dtype not in (None, np.float32):
        raise Declined(f"it rounds {node.inputs[0].dtype}")
    return Quantize((node,), (node.inputs[0].name,), (node.outputs[0].name,), y=node_coding(scope, node))


def dequantizer(scope: Scope, node: Node) -> Op:
    """DequantizeLinear whose result is read in float."""
    if node.inputs[0].dtype not in CODES:
        raise Declined(f"it has codes of {node.inputs[0].dtype}")
    return Dequantize((node,), (node.inputs[0].name,), (node.outputs[0].name,), x=node_coding(scope, node))
