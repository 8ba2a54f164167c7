"""Parts of values by position: Slice, Pad, Gather."""

from collections.abc import Sequence
from typing import cast

import numpy as np

from zc.backends.tflite.elementwise import Rule
from zc.backends.tflite.flat import FlatTensor
from zc.backends.tflite.layout import Layout
from zc.backends.tflite.lowering import Lowering
from zc.ir.graph import Array, Node, attribute

_END = 2**31 - 1


def numbers(lowering: Lowering, node: Node, position: int, name: str) -> list[int] | None:
    """Whole numbers that are an attribute in old operator sets and a constant input in later ones."""
    if name in node.attrs:
        return [int(v) for v in attribute(node, name, [])]
    if len(node.inputs) <= position or not node.inputs[position].name:
        return None
    values = lowering.constant(node.inputs[position])
    if values is None:
        raise lowering.fail(
            f"its {name} are computed at run time", "make them an initializer, or fix sizes with --shape"
        )
    return [int(v) for v in values.reshape(-1)]


def slice_(lowering: Lowering, node: Node) -> None:
    """Slice: STRIDED_SLICE, along whatever dimensions the axes are."""
    data, out = node.inputs[0], node.outputs[0]
    shape = lowering.shape(data)
    starts, stops = numbers(lowering, node, 1, "starts") or [], numbers(lowering, node, 2, "ends") or []
    axes = numbers(lowering, node, 3, "axes") or list(range(len(starts)))
    steps = numbers(lowering, node, 4, "steps") or [1] * len(starts)
    layout = lowering.layout(data)
    source = lowering.read(data, layout)
    begin, end, stride = [0] * len(shape), list(source.shape), [1] * len(shape)
    begin_mask = end_mask = (1 << len(shape)) - 1
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        size, place = shape[axis % len(shape)], layout.index(axis % len(shape))
        bit = 1 << place
        begin_mask, end_mask = begin_mask & ~bit, end_mask & ~bit
        stride[place] = step
        if size >= 0:
            first, last, _ = slice(start, stop, step).indices(size)
            begin[place], end[place] = first, last
            if last < 0:
                end_mask |= bit
                end[place] = 0
        else:
            begin[place], end[place] = max(-_END, min(start, _END)), max(-_END, min(stop, _END))
    made = lowering.out(out, layout, source.quant)
    ends = [
        lowering.integers(one)
        for one in (begin, [max(e, 0) if shape[layout[i]] >= 0 else e for i, e in enumerate(end)], stride)
    ]
    lowering.op("STRIDED_SLICE", [source, *ends], [made], beginMask=begin_mask, endMask=end_mask)


def pad(lowering: Lowering, node: Node) -> None:
    """Pad: PAD, PADV2 or MIRROR_PAD; of the edge or around, GATHERs; negative pads are slices."""
    data, out = node.inputs[0], node.outputs[0]
    rank, mode = lowering.rank(data), attribute(node, "mode", "constant")
    given = numbers(lowering, node, 1, "pads")
    if given is None:
        raise lowering.fail("it has no pads")
    axes = [a % rank for a in numbers(lowering, node, 3, "axes") or list(range(rank))]
    pairs = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        pairs[axis] = (given[i], given[len(axes) + i])
    layout = lowering.layout(data)
    source = lowering.read(data, layout)
    placed = [pairs[axis] for axis in layout]
    if mode != "constant":
        _repeat(lowering, node, source, placed, layout, mode)
        return
    if min(min(p) for p in placed) < 0:
        source = _cropped(lowering, source, placed)
        placed = [(max(a, 0), max(b, 0)) for a, b in placed]
    made = lowering.out(out, layout, source.quant)
    widths = lowering.array(np.array(placed, np.int32), "pads")
    fill = _fill(lowering, node, source)
    if fill is None:
        lowering.op("PAD", [source, widths], [made])
    else:
        lowering.op("PADV2", [source, widths, fill], [made])


def _fill(lowering: Lowering, node: Node, source: FlatTensor) -> FlatTensor | None:
    """What to pad with, or None for zero."""
    if "value" in node.attrs:
        value: Array | None = np.array(attribute(node, "value", 0.0), np.float32)
    elif len(node.inputs) > 2 and node.inputs[2].name:
        value = lowering.constant(node.inputs[2])
        if value is None:
            return lowering.reshape(lowering.read(node.inputs[2]), (1,))
    else:
        return None
    assert value is not None
    if source.quant is not None:
        zero = int(source.quant.zero[0])
        if value.dtype.kind == "f":
            value = np.rint(value / source.quant.scale) + zero
        elif value.dtype == np.uint8:
            value = value.astype(np.int16) - 128
        if int(value.reshape(-1)[0]) == zero:
            return None
    elif not value.any():
        return None
    return lowering.array(value.reshape(1).astype(source.dtype), "fill", source.quant)


def _cropped(lowering: Lowering, source: FlatTensor, pairs: Sequence[tuple[int, int]]) -> FlatTensor:
    begin = [max(-a, 0) for a, _ in pairs]
    shape = tuple(d if d < 0 else d - max(-a, 0) - max(-b, 0) for d, (a, b) in zip(source.shape, pairs, strict=True))
    end = [b + d for b, d in zip(begin, shape, strict=True)]
    mask = sum(1 << i for i, pair in enumerate(pairs) if min(pair) >= 0)
    out = lowering.like(source, shape)
    parts = [lowering.integers(one) for one in (begin, end, [1] * len(begin))]
    lowering.op("STRIDED_SLICE", [source, *parts], [out], beginMask=mask, endMask=mask)
    return out


def _repeat(
    lowering: Lowering, node: Node, source: FlatTensor, pairs: Sequence[tuple[int, int]], layout: Layout, mode: str
) -> None:
    """Pads of numbers that are there: MIRROR_PAD by reflection, else a GATHER along each axis."""
    modes = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
    if mode not in modes:
        raise lowering.fail(f"mode is {mode}")
    made = lowering.out(node.outputs[0], layout, source.quant)
    small = all(0 <= a < d and 0 <= b < d for (a, b), d in zip(pairs, source.shape, strict=True) if (a, b) != (0, 0))
    if mode == "reflect" and small and len(source.shape) <= 4:
        lowering.op("MIRROR_PAD", [source, lowering.array(np.array(pairs, np.int32), "pads")], [made], mode="REFLECT")
        return
    moved = [i for i, pair in enumerate(pairs) if pair != (0, 0)]
    for i in moved:
        if source.shape[i] < 0:
            raise lowering.open_size("pads an open size")
        before, after = pairs[i]
        spots = np.arange(-before, source.shape[i] + after)
        index = np.pad(np.arange(source.shape[i]), (max(before, 0), max(after, 0)), modes[mode])  # type: ignore[call-overload]
        index = index[max(-before, 0) : index.size - max(-after, 0)]
        source = gathered(lowering, source, index[: spots.size], i, made if i == moved[-1] else None)
    if not moved:
        lowering.bind(node.outputs[0], source, layout)


def gathered(
    lowering: Lowering, source: FlatTensor, index: Array, place: int, out: FlatTensor | None = None
) -> FlatTensor:
    """Emit a GATHER of constant positions along one dimension."""
    shape = (*source.shape[:place], index.size, *source.shape[place + 1 :])
    made = lowering.like(source, shape) if out is None else out
    lowering.op("GATHER", [source, lowering.integers(index.tolist(), "index")], [made], axis=place)
    return made


def gather(lowering: Lowering, node: Node) -> None:
    """Gather along whatever dimension the axis is."""
    data, index, out = node.inputs[0], node.inputs[1], node.outputs[0]
    rank = lowering.rank(data)
    axis = int(attribute(node, "axis", 0)) % rank
    layout = lowering.layout(data)
    place, count = layout.index(axis), lowering.rank(index)
    left: list[int] = []
    for one in layout:
        left.extend(range(axis, axis + count) if one == axis else [one if one < axis else one + count - 1])
    if lowering.known(index):
        spots = cast(Array, lowering.constant(index))
        size = lowering.shape(data)[axis]
        if (spots < 0).any() and size < 0:
            raise lowering.open_size("counts from the end of an open size")
        places = lowering.array(np.where(spots < 0, spots + size, spots).astype(np.int32), "index")
    else:
        places = lowering.read(index)
    source = _table(lowering, node, layout)
    made = lowering.out(out, tuple(left), source.quant)
    if source.quant is not None and made.quant is None:
        raw = lowering.like(source, made.shape)
        lowering.op("GATHER", [source, places], [raw], axis=place)
        lowering.op("DEQUANTIZE", [raw], [made])
    else:
        lowering.op("GATHER", [source, places], [made], axis=place)


def _table(lowering: Lowering, node: Node, layout: Layout) -> FlatTensor:
    """What is gathered from; a constant table of codes stays codes."""
    data = node.inputs[0]
    if id(data) in lowering.coded:
        codes, quant = lowering.coded[id(data)]
        if codes.dtype == np.int8 and not quant.per_channel:
            return lowering.array(codes.transpose(layout), data.name, quant)
    return lowering.read(data, layout)


def gather_nd(lowering: Lowering, node: Node) -> None:
    """GatherND without batch dimensions."""
    if attribute(node, "batch_dims", 0):
        raise lowering.fail("batch dimensions; GATHER_ND has none")
    data, index = node.inputs
    spots = lowering.constant(index) if lowering.known(index) else None
    places = lowering.read(index)
    if spots is not None and (spots < 0).any():
        sizes = np.array(lowering.sizes(data)[: spots.shape[-1]])
        places = lowering.array(np.where(spots < 0, spots + sizes, spots).astype(np.int32), "index")
    lowering.op("GATHER_ND", [lowering.read(data), places], [lowering.out(node.outputs[0])])


RULES: dict[str, Rule] = {
    "Slice": slice_,
    "Pad": pad,
    "Gather": gather,
    "GatherND": gather_nd,
}
