"""Reductions along axes, and where the largest or smallest number stands."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from zc.backends.tflite.elementwise import Rule
from zc.backends.tflite.flat import FlatTensor
from zc.backends.tflite.layout import Layout, permuted
from zc.backends.tflite.lowering import Lowering
from zc.ir.graph import Node, Tensor, attribute


def axes_of(lowering: Lowering, node: Node) -> list[int] | None:
    """The axes that a node reduces, not negative; None where it is the identity (`noop_with_empty_axes`)."""
    rank = lowering.rank(node.inputs[0])
    given = attribute(node, "axes", None)
    if given is None and len(node.inputs) > 1 and node.inputs[1].name:
        values = lowering.constant(node.inputs[1])
        if values is None:
            raise lowering.fail("its axes are computed at run time", "make them an initializer")
        given = values.reshape(-1).tolist()
    if not given:
        return None if attribute(node, "noop_with_empty_axes", 0) else list(range(rank))
    return sorted({int(axis) % rank for axis in given})


def reduced(
    lowering: Lowering, code: str, source: FlatTensor, layout: Layout, axes: Sequence[int], out: Tensor, keep: bool
) -> None:
    """Emit a reduction of a tensor in a layout along axes of the value; bind the result."""
    places = [layout.index(axis) for axis in axes]
    if keep:
        left = layout
    else:
        rest = [axis for axis in layout if axis not in axes]
        order = sorted(rest)
        left = tuple(order.index(axis) for axis in rest)
    quant = source.quant if code in {"REDUCE_MAX", "REDUCE_MIN"} else None
    lowering.op(code, [source, lowering.integers(places)], [lowering.out(out, left, quant)], keepDims=keep)


def reduce(code: str, lowering: Lowering, node: Node) -> None:
    """A reduction that is one kernel."""
    data = node.inputs[0]
    axes = axes_of(lowering, node)
    layout = lowering.layout(data)
    source = lowering.read(data, layout)
    if source.dtype == np.bool_ and code in {"REDUCE_MAX", "REDUCE_MIN"}:
        code = {"REDUCE_MAX": "REDUCE_ANY", "REDUCE_MIN": "REDUCE_ALL"}[code]
    elif source.dtype.name not in {"float32", "int32", "int64", "int8", "int16", "uint8"}:
        raise lowering.fail(f"a reduction of {source.dtype}", "cast its input to int32")
    if axes is None:
        lowering.bind(node.outputs[0], source, layout)
        return
    reduced(lowering, code, source, layout, axes, node.outputs[0], bool(attribute(node, "keepdims", 1)))


Step = Callable[[Lowering, FlatTensor], FlatTensor]


def composed(before: Step | None, code: str, after: Step | None, lowering: Lowering, node: Node) -> None:
    """A reduction between element-wise steps."""
    data = node.inputs[0]
    axes = axes_of(lowering, node)
    layout = lowering.layout(data)
    source = lowering.read(data, layout)
    value = source if before is None else before(lowering, source)
    out, keep = node.outputs[0], bool(attribute(node, "keepdims", 1))
    if axes is None:
        lowering.bind(out, value if after is None else after(lowering, value), layout)
        return
    reduced(lowering, code, value, layout, axes, out, keep)
    if after is not None:
        made = lowering.values[id(out)]
        lowering.bind(out, after(lowering, made.tensor), made.layout)


def _square(lowering: Lowering, x: FlatTensor) -> FlatTensor:
    return lowering.apply("MUL", x, x)


def _step(code: str, lowering: Lowering, x: FlatTensor) -> FlatTensor:
    return lowering.apply(code, x)


def log_sum_exp(lowering: Lowering, node: Node) -> None:
    """ReduceLogSumExp, less the largest number first so that nothing overflows."""
    data, out = node.inputs[0], node.outputs[0]
    axes = axes_of(lowering, node)
    layout = lowering.layout(data)
    source = lowering.read(data, layout)
    if axes is None:
        lowering.bind(out, source, layout)
        return
    places = lowering.integers([layout.index(axis) for axis in axes])
    kept = tuple(1 if layout[i] in axes else d for i, d in enumerate(source.shape))
    largest = lowering.apply("REDUCE_MAX", source, places, shape=kept, keepDims=True)
    shifted = lowering.apply("EXP", lowering.apply("SUB", source, largest))
    summed = lowering.apply("LOG", lowering.apply("SUM", shifted, places, shape=kept, keepDims=True))
    value = lowering.apply("ADD", summed, largest)
    if attribute(node, "keepdims", 1):
        lowering.bind(out, value, layout)
    else:
        rest = [axis for axis in layout if axis not in axes]
        order = sorted(rest)
        left = tuple(order.index(axis) for axis in rest)
        lowering.bind(out, lowering.reshape(value, permuted(lowering.shape(out), left)), left)


def over_space(code: str, lowering: Lowering, node: Node) -> None:
    """GlobalAveragePool and GlobalMaxPool: a reduction along all axes of space."""
    data = node.inputs[0]
    layout = lowering.layout(data)
    source = lowering.read(data, layout)
    axes = range(2, lowering.rank(data))
    reduced(lowering, code, source, layout, axes, node.outputs[0], keep=True)


def arg_extreme(code: str, lowering: Lowering, node: Node) -> None:
    """ArgMax and ArgMin: of equals the first; the last is the first from behind."""
    data, out = node.inputs[0], node.outputs[0]
    last = bool(attribute(node, "select_last_index", 0))
    axis = int(attribute(node, "axis", 0)) % lowering.rank(data)
    layout = lowering.layout(data)
    source = lowering.read(data, layout)
    shape = tuple(d for i, d in enumerate(source.shape) if layout[i] != axis)
    place = lowering.integers([layout.index(axis)])
    if last:
        source = lowering.apply("REVERSE_V2", source, place)
    made = lowering.apply(code, source, place, shape=shape, dtype=np.int64, outputType="INT64")
    if last:
        made = lowering.apply("SUB", lowering.array(np.array(lowering.sizes(data)[axis] - 1)), made, shape=shape)
    if attribute(node, "keepdims", 1):
        made = lowering.reshape(made, permuted(lowering.shape(out), layout))
        lowering.bind(out, made, layout)
    else:
        rest = [a for a in layout if a != axis]
        lowering.bind(out, made, tuple(sorted(rest).index(a) for a in rest))


RULES: dict[str, Rule] = {
    "ReduceMean": partial(reduce, "MEAN"),
    "ReduceSum": partial(reduce, "SUM"),
    "ReduceMax": partial(reduce, "REDUCE_MAX"),
    "ReduceMin": partial(reduce, "REDUCE_MIN"),
    "ReduceProd": partial(reduce, "REDUCE_PROD"),
    "ReduceL1": partial(composed, partial(_step, "ABS"), "SUM", None),
    "ReduceL2": partial(composed, _square, "SUM", partial(_step, "SQRT")),
    "ReduceSumSquare": partial(composed, _square, "SUM", None),
    "ReduceLogSum": partial(composed, None, "SUM", partial(_step, "LOG")),
    "ReduceLogSumExp": log_sum_exp,
    "GlobalAveragePool": partial(over_space, "MEAN"),
    "GlobalMaxPool": partial(over_space, "REDUCE_MAX"),
    "ArgMax": partial(arg_extreme, "ARG_MAX"),
    "ArgMin": partial(arg_extreme, "ARG_MIN"),
}
