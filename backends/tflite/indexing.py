"""Parts of values by position: Slice, Pad, Gather, Resize to the nearest."""

from collections.abc import Sequence
from typing import cast

import numpy as np

from zc.backends.tflite.elementwise import Rule
from zc.backends.tflite.flat import FlatTensor
from zc.backends.tflite.layout import Layout, channels_last, permuted
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


def resize(lowering: Lowering, node: Node) -> None:
    """Resize and Upsample along the axes of space: RESIZE_BILINEAR, RESIZE_NEAREST_NEIGHBOR, or GATHERs."""
    data, out = node.inputs[0], node.outputs[0]
    old, new = lowering.shape(data), lowering.shape(out)
    mode, how = attribute(node, "mode", "nearest"), attribute(node, "coordinate_transformation_mode", "half_pixel")
    if node.op == "Upsample":
        how = "asymmetric"
    layout = lowering.layout(data)
    if mode == "nearest":
        if _nearest(lowering, node, how):
            return
        _nearest_by_index(lowering, node, layout, how)
        return
    moved = [i for i in range(len(old)) if old[i] != new[i]]
    if any(old[i] >= 0 and abs(_scale(lowering, node, i) * old[i] - new[i]) > 1e-3 for i in moved):
        raise lowering.fail(
            "its scale does not give a whole number of positions", "state the size instead of the scale"
        )
    if mode not in {"linear", "bilinear"} or attribute(node, "antialias", 0) or attribute(node, "exclude_outside", 0):
        raise lowering.fail(f"mode {mode} with what it asks for; RESIZE_BILINEAR is plain linear interpolation")
    if (
        len(old) != 4
        or any(i < 2 for i in moved)
        or how not in {"half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"}
    ):
        raise lowering.fail(f"linear interpolation ({how}) of data that is no image")
    if how == "pytorch_half_pixel" and 1 in new[2:]:
        raise lowering.fail("pytorch_half_pixel to one position")
    source = lowering.read(data, channels_last(4))
    made = lowering.out(out, channels_last(4), source.quant)
    if -1 in new[2:]:
        raise lowering.open_size("to an open size")
    size = lowering.integers(new[2:])
    lowering.op(
        "RESIZE_BILINEAR",
        [source, size],
        [made],
        alignCorners=how == "align_corners",
        halfPixelCenters="half_pixel" in how,
    )


def _nearest(lowering: Lowering, node: Node, how: str) -> bool:
    """Emit RESIZE_NEAREST_NEIGHBOR where it picks the same positions."""
    data, out = node.inputs[0], node.outputs[0]
    old, new = lowering.shape(data), lowering.shape(out)
    if len(old) != 4 or old[:2] != new[:2] or -1 in old[2:] + new[2:]:
        return False
    for half in (False, True):
        spots = [_kernel_spots(o, n, half) for o, n in zip(old[2:], new[2:], strict=True)]
        wanted = [positions(lowering, node, axis, how) for axis in (2, 3)]
        if all(np.array_equal(a, b) for a, b in zip(spots, wanted, strict=True)):
            source = lowering.read(data, channels_last(4))
            made = lowering.out(out, channels_last(4), source.quant)
            size = lowering.integers(new[2:])
            lowering.op("RESIZE_NEAREST_NEIGHBOR", [source, size], [made], halfPixelCenters=half)
            return True
    return False


def _kernel_spots(old: int, new: int, half: bool) -> Array:
    """The positions that RESIZE_NEAREST_NEIGHBOR picks."""
    offset = np.float32(0.5 if half else 0.0)
    scaled = (np.arange(new, dtype=np.float32) + offset) * (np.float32(old) / np.float32(new))
    return np.asarray(np.minimum(np.floor(scaled), old - 1), np.int64)


def positions(lowering: Lowering, node: Node, axis: int, how: str) -> Array:
    """The positions along one axis that ONNX's Resize (nearest) picks."""
    old, new = lowering.shape(node.inputs[0])[axis], lowering.shape(node.outputs[0])[axis]
    scale = _scale(lowering, node, axis)
    at = np.arange(new, dtype=np.float64)
    formulas = {
        "half_pixel": lambda: (at + 0.5) / scale - 0.5,
        "half_pixel_symmetric": lambda: old / 2 * (1 - new / (scale * old)) + (at + 0.5) / scale - 0.5,
        "pytorch_half_pixel": lambda: (at + 0.5) / scale - 0.5 if new > 1 else at * 0,
        "align_corners": lambda: at * (old - 1) / (new - 1) if new > 1 else at * 0,
        "asymmetric": lambda: at / scale,
    }
    if how not in formulas:
        raise lowering.fail(f"coordinate_transformation_mode is {how}")
    spots = np.asarray(formulas[how]())
    rounding = "floor" if node.op == "Upsample" else attribute(node, "nearest_mode", "round_prefer_floor")
    rounded = {
        "round_prefer_floor": lambda: np.ceil(spots - 0.5),
        "round_prefer_ceil": lambda: np.floor(spots + 0.5),
        "floor": lambda: np.floor(spots),
        "ceil": lambda: np.ceil(spots),
    }[rounding]()
    return np.asarray(np.clip(rounded, 0, old - 1), np.int64)


def _scale(lowering: Lowering, node: Node, axis: int) -> float:
    old, new = lowering.shape(node.inputs[0])[axis], lowering.shape(node.outputs[0])[axis]
    if "scales" in node.attrs:
        return float(attribute(node, "scales", [])[axis])
    position = 1 if node.op == "Upsample" or len(node.inputs) == 2 else 2
    if len(node.inputs) > position and node.inputs[position].name:
        scales = lowering.constant(node.inputs[position])
        if scales is None:
            raise lowering.fail("its scales are computed at run time", "make them an initializer")
        axes = attribute(node, "axes", list(range(lowering.rank(node.inputs[0]))))
        if scales is not None and scales.size:
            places = [a % lowering.rank(node.inputs[0]) for a in axes]
            return float(scales[places.index(axis)]) if axis in places else 1.0
    return new / old


def _nearest_by_index(lowering: Lowering, node: Node, layout: Layout, how: str) -> None:
    data, out = node.inputs[0], node.outputs[0]
    source = lowering.read(data, layout)
    old, new = permuted(lowering.shape(data), layout), permuted(lowering.shape(out), layout)
    for place, axis in enumerate(layout):
        if old[place] == new[place]:
            continue
        if -1 in (old[place], new[place]):
            raise lowering.open_size("an open size")
        source = gathered(lowering, source, positions(lowering, node, axis, how), place)
    lowering.bind(out, source, layout)


RULES: dict[str, Rule] = {
    "Slice": slice_,
    "Pad": pad,
    "Gather": gather,
    "GatherND": gather_nd,
    "Resize": resize,
    "Upsample": resize,
}
