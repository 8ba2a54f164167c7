"""Operators whose result hangs on sizes and positions: known ones are computed when the file is written."""

from typing import cast

import numpy as np

from zc.backends.tflite.elementwise import Rule
from zc.backends.tflite.lowering import Lowering
from zc.backends.tflite.movement import last_axis
from zc.ir.graph import Array, Node, attribute


def shape(lowering: Lowering, node: Node) -> None:
    """Shape: a constant where the sizes are known, else a SHAPE, in the order of ONNX."""
    data, out = node.inputs[0], node.outputs[0]
    start, end = int(attribute(node, "start", 0)), attribute(node, "end", None)
    part = slice(start, None if end is None else int(end))
    sizes = lowering.shape(data)
    if -1 not in sizes[part]:
        lowering.arrays[id(out)] = np.array(sizes[part], np.int64)
        return
    layout = lowering.layout(data)
    found = lowering.apply("SHAPE", lowering.read(data, layout), shape=(len(sizes),), dtype=np.int64, outType="INT64")
    places = [layout.index(axis) for axis in range(len(sizes))][part]
    lowering.op("GATHER", [found, lowering.integers(places)], [lowering.out(out)], axis=0)


def size(lowering: Lowering, node: Node) -> None:
    """Size: a constant."""
    lowering.arrays[id(node.outputs[0])] = np.array(np.prod(lowering.sizes(node.inputs[0])), np.int64)


def one_hot(lowering: Lowering, node: Node) -> None:
    """OneHot: ONE_HOT, with negative positions counted from the end."""
    index, depth, values = node.inputs
    count, pair = lowering.constant(depth), lowering.constant(values)
    if count is None or pair is None:
        raise lowering.fail("its depth or values are computed at run time", "make them initializers")
    amount = int(count.reshape(-1)[0])
    rank = lowering.rank(index)
    axis = int(attribute(node, "axis", -1)) % (rank + 1)
    source = lowering.read(index)
    if source.dtype.kind == "f":
        source = lowering.apply("CAST", source, dtype=np.int32)
    if source.data is not None:
        source = lowering.array(np.where(source.data < 0, source.data + amount, source.data).astype(np.int32), "index")
    else:
        source = source if source.dtype == np.int32 else lowering.apply("CAST", source, dtype=np.int32)
        below = lowering.apply("LESS", source, lowering.array(np.array(0, np.int32)), dtype=np.bool_)
        moved = lowering.apply("ADD", source, lowering.array(np.array(amount, np.int32)))
        source = lowering.apply("SELECT_V2", below, moved, source, dtype=np.int32)
    low, high = (lowering.array(np.array(v, pair.dtype)) for v in pair.reshape(-1))
    parts = [source, lowering.array(np.array(amount, np.int32)), high, low]
    lowering.op("ONE_HOT", parts, [lowering.out(node.outputs[0])], axis=axis)


def cumulative(lowering: Lowering, node: Node) -> None:
    """CumSum along one dimension."""
    axis = lowering.constant(node.inputs[1])
    if axis is None:
        raise lowering.fail("its axis is computed at run time", "make it an initializer")
    data = node.inputs[0]
    layout = lowering.layout(data)
    source = lowering.read(data, layout)
    place = lowering.array(np.array(layout.index(int(axis.reshape(-1)[0]) % len(layout)), np.int32), "axis")
    options = {name: bool(attribute(node, name, 0)) for name in ("exclusive", "reverse")}
    lowering.op("CUMSUM", [source, place], [lowering.out(node.outputs[0], layout)], **options)


def top(lowering: Lowering, node: Node) -> None:
    """TopK of the largest along the last dimension."""
    data = node.inputs[0]
    count = lowering.constant(node.inputs[1]) if len(node.inputs) > 1 else np.array(attribute(node, "k", 1))
    if count is None:
        raise lowering.fail("how many is computed at run time", "make it an initializer")
    axis = int(attribute(node, "axis", -1)) % lowering.rank(data)
    layout = last_axis(lowering.layout(data), axis)
    source = lowering.read(data, layout)
    smallest = not attribute(node, "largest", 1)
    if source.dtype.name not in {"float32", "int32", "int64", "int8", "uint8", "int16"}:
        raise lowering.fail(f"of {source.dtype}", "cast its input to float32")
    if smallest and source.dtype.kind == "u":
        raise lowering.fail("the smallest of unsigned numbers; TOPK_V2 finds the largest", "cast its input to int32")
    source = lowering.apply("NEG", source) if smallest else source
    k = lowering.array(np.array(int(count.reshape(-1)[0]), np.int32), "k")
    values, index = node.outputs
    made = lowering.out(values, layout)
    spots = lowering.temporary(made.shape, np.int32)
    found = lowering.like(made) if smallest else made
    lowering.op("TOPK_V2", [source, k], [found, spots])
    if smallest:
        lowering.op("NEG", [found], [made])
    lowering.op("CAST", [spots], [lowering.out(index, layout)])


def filled(lowering: Lowering, node: Node) -> None:
    """ConstantOfShape: of a known shape a constant, else a FILL."""
    value = attribute(node, "value", None)
    number = np.zeros(1, np.float32) if value is None else np.asarray(value.values).reshape(-1)
    sizes = lowering.constant(node.inputs[0])
    if sizes is None:
        if 0 in lowering.shape(node.outputs[0]):
            raise lowering.fail("an empty value")
        dims = lowering.read(node.inputs[0])
        lowering.op("FILL", [dims, lowering.array(number.reshape(()))], [lowering.out(node.outputs[0])])
        return
    lowering.arrays[id(node.outputs[0])] = np.full(sizes.reshape(-1).astype(int), number[0], number.dtype)


def ranged(lowering: Lowering, node: Node) -> None:
    """Range: of known ends a constant, else a RANGE."""
    ends = [lowering.constant(t) for t in node.inputs]
    if any(one is None for one in ends):
        three = [lowering.reshape(lowering.read(t), ()) for t in node.inputs]
        lowering.op("RANGE", three, [lowering.out(node.outputs[0])])
        return
    start, stop, step = (cast(Array, one).reshape(-1)[0].item() for one in ends)
    lowering.arrays[id(node.outputs[0])] = np.arange(start, stop, step).astype(cast(Array, ends[0]).dtype)


def triangle(lowering: Lowering, node: Node) -> None:
    """Trilu: times a constant mask."""
    data, out = node.inputs[0], node.outputs[0]
    offset = lowering.constant(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1].name else np.array(0)
    sizes = lowering.shape(data)[-2:]
    if offset is None or -1 in sizes:
        raise lowering.open_size("its size or offset is computed at run time")
    keep = np.triu if attribute(node, "upper", 1) else np.tril
    mask = keep(np.ones(sizes), int(offset.reshape(-1)[0])).astype(bool)
    source = lowering.read(data)
    empty = lowering.array(np.zeros((), source.dtype))
    lowering.op("SELECT_V2", [lowering.array(mask, "mask"), source, empty], [lowering.out(out)])


def reverse(lowering: Lowering, node: Node) -> None:
    """ReverseSequence."""
    lengths = lowering.read(node.inputs[1])
    axes = {"seqDim": int(attribute(node, "time_axis", 0)), "batchDim": int(attribute(node, "batch_axis", 1))}
    lowering.op("REVERSE_SEQUENCE", [lowering.read(node.inputs[0]), lengths], [lowering.out(node.outputs[0])], **axes)


def positions(lowering: Lowering, node: Node) -> None:
    """NonZero: WHERE, turned on its side."""
    data, out = node.inputs[0], node.outputs[0]
    source = lowering.read(data)
    if source.dtype != np.bool_:
        zero = lowering.array(np.zeros((), source.dtype))
        source = lowering.apply("NOT_EQUAL", source, zero, dtype=np.bool_)
    rows = lowering.temporary((-1, len(source.shape)), np.int64)
    lowering.op("WHERE", [source], [rows])
    lowering.bind(out, rows, (1, 0))


def gathered_elements(lowering: Lowering, node: Node) -> None:
    """GatherElements of constant positions: GATHER_ND."""
    data, index, out = node.inputs[0], node.inputs[1], node.outputs[0]
    spots = lowering.constant(index) if lowering.known(index) else None
    if spots is None:
        raise lowering.fail("positions computed at run time", "make them an initializer")
    rank = lowering.rank(data)
    axis = int(attribute(node, "axis", 0)) % rank
    places = np.indices(spots.shape)
    places[axis] = np.where(spots < 0, spots + lowering.sizes(data)[axis], spots)
    where = lowering.array(np.moveaxis(places, 0, -1).astype(np.int32), "index")
    lowering.op("GATHER_ND", [lowering.read(data), where], [lowering.out(out)])


def identity_matrix(lowering: Lowering, node: Node) -> None:
    """EyeLike: a constant."""
    rows, columns = lowering.sizes(node.inputs[0])
    kind = lowering.dtype(node.outputs[0])
    lowering.arrays[id(node.outputs[0])] = np.eye(rows, columns, int(attribute(node, "k", 0)), kind)


RULES: dict[str, Rule] = {
    "Shape": shape,
    "Size": size,
    "OneHot": one_hot,
    "CumSum": cumulative,
    "TopK": top,
    "ConstantOfShape": filled,
    "Range": ranged,
    "Trilu": triangle,
    "ReverseSequence": reverse,
    "NonZero": positions,
    "GatherElements": gathered_elements,
    "EyeLike": identity_matrix,
}
