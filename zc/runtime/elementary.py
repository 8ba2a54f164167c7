"""Recognising operators without weights: element-wise, pools, tables, and those that move codes about."""

from typing import Literal

import numpy as np

from zc.ir.graph import Array, Node, Tensor, attribute
from zc.kernels import rules
from zc.runtime.ops import (
    Binary,
    Blocks,
    Coding,
    Concatenate,
    Dequantize,
    GlobalAverage,
    LookUp,
    Op,
    Pad,
    Pool,
    Quantize,
    Reshape,
    Resize,
    Slice,
    Softmax,
    Split,
    Transpose,
)
from zc.runtime.quantum import Declined, Scope, clip_bounds, coding, given, node_coding, pair, read, written
from zc.runtime.weighted import padding

CODES = (np.uint8, np.int8)


def binary(scope: Scope, node: Node) -> Op:
    """DQ, DQ -> Add or Mul -> Q."""
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


def max_pool(scope: Scope, node: Node) -> Op:
    """MaxPool on codes, or between DQ and Q with one scale."""
    if len(node.outputs) > 1 and node.outputs[1].name:
        raise Declined("it puts out indices")
    nodes, source, target, _ = _on_codes(scope, node)
    return _pool(node, nodes, source, target, None, None)


def _pool(
    node: Node, nodes: tuple[Node, ...], source: Tensor, target: Tensor, x: Coding | None, y: Coding | None
) -> Op:
    kernel = attribute(node, "kernel_shape", None)
    if attribute(node, "channels_last", 0) or attribute(node, "storage_order", 0) or not 1 <= len(kernel) <= 2:
        raise Declined("it is channels last, or pools over more than two dimensions")
    dilations = pair(attribute(node, "dilations", None), 1)
    if x is not None and (dilations != (1, 1) or (y is not None and x.signed != y.signed)):
        raise Declined("it is dilated, or reads and writes codes of different types")
    pads, same = padding(node)
    return Pool(
        nodes,
        (source.name,),
        (target.name,),
        kernel=pair(kernel, 1),
        strides=pair(attribute(node, "strides", None), 1),
        pads=pads,
        dilations=dilations,
        ceil=bool(attribute(node, "ceil_mode", 0)),
        counts_pad=bool(attribute(node, "count_include_pad", 0)),
        x=x,
        y=y,
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
    if not flat and source.shape is not None and axis % len(source.shape) != len(source.shape) - 1:
        raise Declined("it is not along the last axis")
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


# ---- moving codes about


def _on_codes(scope: Scope, node: Node) -> tuple[tuple[Node, ...], Tensor, Tensor, Coding | None]:
    """An operator that stands on codes, or between a DQ and a Q with the same scale."""
    if node.inputs[0].dtype in CODES:
        return (node,), node.inputs[0], node.outputs[0], None
    source, x = read(scope, given(node, 0))
    target, y, passed = written(scope, node.outputs[0])
    if x != y or len(passed) > 1:
        raise Declined("it moves codes from one scale to another")
    return (node, *passed), source, target, x


def reshape(scope: Scope, node: Node) -> Op:
    """Reshape, Flatten, Squeeze, Unsqueeze, Identity."""
    if len(node.inputs) > 1 and node.inputs[1].name and scope.constant(node.inputs[1]) is None:
        raise Declined("its new shape is not constant")
    nodes, source, target, _ = _on_codes(scope, node)
    return Reshape(nodes, (source.name,), (target.name,))


def transpose(scope: Scope, node: Node) -> Op:
    """Transpose."""
    nodes, source, target, _ = _on_codes(scope, node)
    rank = len(source.shape) if source.shape is not None else 0
    order = attribute(node, "perm", None) or range(rank)[::-1]
    return Transpose(nodes, (source.name,), (target.name,), order=tuple(int(a) for a in order))


def slices(scope: Scope, node: Node) -> Op:
    """Slice with constant starts and steps."""
    nodes, source, target, _ = _on_codes(scope, node)
    if scope.opset < 10:
        starts, axes, steps = attribute(node, "starts", []), attribute(node, "axes", None), None
    else:
        starts, axes, steps = (_numbers(scope, node, i) for i in (1, 3, 4))
    if starts is None or (scope.opset >= 10 and _numbers(scope, node, 2) is None):
        raise Declined("its bounds are not constant")
    axes = list(range(len(starts))) if axes is None else list(axes)
    steps = [1] * len(starts) if steps is None else list(steps)
    cuts = tuple((int(a), int(s), int(t)) for a, s, t in zip(axes, starts, steps, strict=True))
    return Slice(nodes, (source.name,), (target.name,), cuts=cuts)


def split(scope: Scope, node: Node) -> Op:
    """Split of codes."""
    if node.inputs[0].dtype not in CODES:
        raise Declined("it splits float values")
    if given(node, 1) is not None and scope.constant(given(node, 1)) is None:
        raise Declined("the sizes of its parts are not constant")
    names = tuple(t.name for t in node.outputs)
    return Split((node,), (node.inputs[0].name,), names, axis=int(attribute(node, "axis", 0)))


def pad(scope: Scope, node: Node) -> Op:
    """Pad with a constant."""
    if attribute(node, "mode", "constant") not in ("constant", b"constant"):
        raise Declined(f"it pads by {attribute(node, 'mode', '')}")
    nodes, source, target, x = _on_codes(scope, node)
    if scope.opset < 11:
        pads, value = list(attribute(node, "pads", [])), float(attribute(node, "value", 0.0))
    else:
        numbers, fill = _numbers(scope, node, 1), given(node, 2)
        constant = scope.constant(fill)
        if numbers is None or (fill is not None and constant is None):
            raise Declined("its pads are not constant")
        pads, value = list(numbers), 0.0 if constant is None else float(constant.reshape(-1)[0])
        if given(node, 3) is not None:
            axes, rank = _numbers(scope, node, 3), len(source.shape or ())
            if axes is None:
                raise Declined("its axes are not constant")
            full = [0] * (2 * rank)
            for i, axis in enumerate(axes):
                full[axis % rank], full[axis % rank + rank] = pads[i], pads[i + len(axes)]
            pads = full
    if x is not None:
        code = int(rules.quantize(np.asarray(value, np.float32).reshape(1), x.scale, x.zero)[0])
    else:
        code = int(value) + (128 if source.dtype == np.int8 else 0)
    if any(p < 0 for p in pads):
        raise Declined("it cuts (negative pads)")
    half = len(pads) // 2
    before, after = (tuple(int(p) for p in part) for part in (pads[:half], pads[half:]))
    return Pad(nodes, (source.name,), (target.name,), before=before, after=after, value=code)


def blocks(scope: Scope, node: Node) -> Op:
    """DepthToSpace, SpaceToDepth."""
    nodes, source, target, _ = _on_codes(scope, node)
    mode: Literal["DCR", "CRD", "space"] = "CRD" if attribute(node, "mode", "DCR") == "CRD" else "DCR"
    mode = "space" if node.op == "SpaceToDepth" else mode
    return Blocks(nodes, (source.name,), (target.name,), size=int(attribute(node, "blocksize", 1)), mode=mode)


def resize(scope: Scope, node: Node) -> Op:
    """Resize or Upsample to the nearest neighbour, of images."""
    if attribute(node, "mode", "nearest") not in ("nearest", b"nearest"):
        raise Declined("it interpolates")
    if node.op == "Resize" and (attribute(node, "axes", None) or scope.opset < 11):
        raise Declined("it names axes, or is of an old operator set")
    nodes, source, target, _ = _on_codes(scope, node)
    if source.shape is not None and len(source.shape) != 4:
        raise Declined(f"it resizes {len(source.shape)} axes, not four")
    scales = None
    if node.op == "Upsample":
        how, found = "asymmetric/floor", scope.constant(given(node, 1))
    else:
        how = attribute(node, "coordinate_transformation_mode", "half_pixel")
        how = f"{how}/{attribute(node, 'nearest_mode', 'round_prefer_floor')}"
        found = scope.constant(given(node, 2)) if given(node, 2) is not None else None
    if how.split("/")[0] not in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"):
        raise Declined(f"its coordinates are {how}")
    if found is not None and found.size:
        if found.size != 4 or found[0] != 1 or found[1] != 1:
            raise Declined("it resizes batch or channels")
        scales = (float(found[2]), float(found[3]))
    elif node.op == "Upsample":
        raise Declined("its scales are not constant")
    return Resize(nodes, (source.name,), (target.name,), source=how, scales=scales)


def _numbers(scope: Scope, node: Node, position: int) -> list[int] | None:
    tensor = given(node, position)
    values = scope.constant(tensor)
    if tensor is not None and values is None:
        raise Declined("its sizes are not constant")
    return None if values is None else [int(v) for v in values.reshape(-1)]


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
