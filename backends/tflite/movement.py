"""Operators that only move numbers: most of them change a layout or a shape, and nothing runs."""

from typing import cast

import numpy as np
import onnx_graphsurgeon as gs

from zc.backends.tflite.broadcast import common_layout
from zc.backends.tflite.codes import read_tied
from zc.backends.tflite.layout import Layout, channels_last, permuted, plain, reshaped, through
from zc.backends.tflite.lowering import Lowering, Spread, Value
from zc.ir.graph import Array, Node, Tensor, attribute


def reshape(lowering: Lowering, node: Node) -> None:
    """Reshape and its like: a RESHAPE where the axes that it joins lie together, else behind a TRANSPOSE.

    Where only products with constant weights read the result, nothing is moved: they permute their weights.
    """
    data, out = node.inputs[0], node.outputs[0]
    if lowering.known(data):
        lowering.arrays[id(out)] = cast(Array, lowering.constant(data)).reshape(lowering.sizes(out))
        return
    value = lowering.settled(data)
    old, new = lowering.shape(data), _resolved(lowering.shape(data), lowering.shape(out))
    layout = reshaped(old, new, value.layout)
    if layout is not None:
        lowering.bind(out, lowering.reshape(value.tensor, permuted(new, layout)), layout)
        return
    if _weights_can_move(lowering, out) and -1 not in old[1:] and old[0] == new[0] and value.layout[0] == 0:
        order = np.arange(int(np.prod(old[1:]))).reshape(old[1:]).transpose([a - 1 for a in value.layout[1:]])
        lowering.values[id(out)] = Value(value.tensor, plain(len(new)), Spread(value, old, order.reshape(-1)))
        return
    plainly = lowering.move(value.tensor, value.layout, plain(len(old)))
    lowering.bind(out, lowering.reshape(plainly, new))


def _resolved(old: tuple[int, ...], new: tuple[int, ...]) -> tuple[int, ...]:
    """One open size follows from the others where the old shape is known."""
    if new.count(-1) != 1 or -1 in old:
        return new
    rest = int(np.prod([d for d in new if d >= 0]))
    return tuple(int(np.prod(old)) // rest if d < 0 else d for d in new) if rest else new


def _weights_can_move(lowering: Lowering, tensor: Tensor) -> bool:
    """Do only matrix products with constant weights read a value, perhaps behind Q and DQ?"""
    if id(tensor) in lowering.outputs or lowering.rank(tensor) != 2 or not tensor.outputs:
        return False
    return all(_moves_weight(lowering, node, tensor) for node in tensor.outputs)


def _moves_weight(lowering: Lowering, node: gs.Node, tensor: Tensor) -> bool:
    if node.op in {"QuantizeLinear", "DequantizeLinear"}:
        return _weights_can_move(lowering, node.outputs[0])
    if node.op not in {"Gemm", "MatMul"} or node.inputs[0] is not tensor or node.attrs.get("transA"):
        return False
    return _constant_weight(lowering, node.inputs[1])


def _constant_weight(lowering: Lowering, tensor: Tensor) -> bool:
    if tensor.inputs and tensor.inputs[0].op == "DequantizeLinear":
        return lowering.constant(tensor.inputs[0].inputs[0]) is not None
    return lowering.constant(tensor) is not None and lowering.rank(tensor) == 2


def transpose(lowering: Lowering, node: Node) -> None:
    """Transpose: the same tensor in another layout."""
    data, out = node.inputs[0], node.outputs[0]
    rank = lowering.rank(data)
    perm = list(attribute(node, "perm", list(range(rank))[::-1]))
    if lowering.known(data):
        lowering.arrays[id(out)] = cast(Array, lowering.constant(data)).transpose(perm)
        return
    value = lowering.settled(data)
    lowering.values[id(out)] = Value(value.tensor, through(value.layout, perm))


def concat(lowering: Lowering, node: Node) -> None:
    """Concat along whatever dimension the axis is."""
    out = node.outputs[0]
    rank = lowering.rank(out)
    axis = int(attribute(node, "axis", 0)) % rank
    layout = common_layout(lowering, node.inputs, rank)
    made = lowering.out(out, layout)
    if lowering.integer:
        assert made.quant is not None
        parts = [read_tied(lowering, t, layout, made.quant, made.dtype) for t in node.inputs]
    else:
        parts = [lowering.read(t, layout) for t in node.inputs]
    lowering.op("CONCATENATION", parts, [made], axis=layout.index(axis))


def split(lowering: Lowering, node: Node) -> None:
    """Split: SPLIT into equal parts, SPLIT_V into others."""
    data = node.inputs[0]
    axis = int(attribute(node, "axis", 0)) % lowering.rank(data)
    layout = lowering.layout(data)
    source = lowering.read(data, layout)
    outs = [lowering.out(t, layout, source.quant) for t in node.outputs]
    sizes = [lowering.shape(t)[axis] for t in node.outputs]
    if len(set(sizes)) == 1:
        place = lowering.array(np.array(layout.index(axis), np.int32), "axis")
        lowering.op("SPLIT", [place, source], outs, numSplits=len(outs))
        return
    if -1 in sizes:
        raise lowering.open_size("parts of open size")
    place = lowering.array(np.array(layout.index(axis), np.int32), "axis")
    lowering.op("SPLIT_V", [source, lowering.integers(sizes), place], outs, numSplits=len(outs))


def depth_to_space(lowering: Lowering, node: Node) -> None:
    """DepthToSpace: DEPTH_TO_SPACE has the order DCR; for CRD the channels are permuted first."""
    data, out = node.inputs[0], node.outputs[0]
    block = int(attribute(node, "blocksize", 1))
    source = lowering.read(data, channels_last(4))
    channels = lowering.shape(data)[1] // block**2
    if attribute(node, "mode", "DCR") == "CRD" and channels > 1:
        order = np.arange(channels * block**2).reshape(channels, block**2).T.reshape(-1)
        moved = lowering.like(source)
        lowering.op("GATHER", [source, lowering.integers(order.tolist())], [moved], axis=3)
        source = moved
    made = lowering.out(out, channels_last(4), source.quant)
    lowering.op("DEPTH_TO_SPACE", [source], [made], blockSize=block)


def space_to_depth(lowering: Lowering, node: Node) -> None:
    """SpaceToDepth."""
    source = lowering.read(node.inputs[0], channels_last(4))
    made = lowering.out(node.outputs[0], channels_last(4), source.quant)
    block = int(attribute(node, "blocksize", 1))
    if attribute(node, "mode", "DCR") == "DCR":
        lowering.op("SPACE_TO_DEPTH", [source], [made], blockSize=block)
        return
    raw = lowering.like(made)
    lowering.op("SPACE_TO_DEPTH", [source], [raw], blockSize=block)
    order = np.arange(made.shape[3]).reshape(block**2, -1).T.reshape(-1)
    lowering.op("GATHER", [raw, lowering.integers(order.tolist())], [made], axis=3)


def expand(lowering: Lowering, node: Node) -> None:
    """Expand: BROADCAST_TO."""
    data, out = node.inputs[0], node.outputs[0]
    if lowering.known(data) and -1 not in lowering.shape(out):
        values = cast(Array, lowering.constant(data))
        lowering.arrays[id(out)] = np.broadcast_to(values, lowering.shape(out))
        return
    shape = lowering.shape(out)
    source = lowering.read(data)
    if source.shape == shape:
        lowering.bind(out, source)
        return
    if -1 in shape:
        raise lowering.open_size("to an open size")
    lowering.op("BROADCAST_TO", [source, lowering.integers(shape)], [lowering.out(out)])


def tile(lowering: Lowering, node: Node) -> None:
    """Tile."""
    data, out = node.inputs[0], node.outputs[0]
    repeats = lowering.constant(node.inputs[1])
    if repeats is None:
        raise lowering.fail("how often is computed at run time", "make it an initializer")
    layout = lowering.layout(data)
    source = lowering.read(data, layout)
    counts = [int(repeats[axis]) for axis in layout]
    lowering.op("TILE", [source, lowering.integers(counts)], [lowering.out(out, layout, source.quant)])


def last_axis(layout: Layout, axis: int) -> Layout:
    """A layout with one axis moved to the end."""
    return (*(a for a in layout if a != axis), axis)


RULES = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), reshape),
    "Transpose": transpose,
    "Concat": concat,
    "Split": split,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "Expand": expand,
    "Tile": tile,
}
