"""Sizes of every value, once those of the inputs are known."""

from collections.abc import Mapping
from functools import singledispatch
from math import ceil, floor, prod

import numpy as np

from zc.errors import ZcError
from zc.ir.graph import Array, Node, attribute, fixed_value
from zc.kernels import rules
from zc.runtime.ops import (
    BatchedProduct,
    Binary,
    Blocks,
    Concatenate,
    Convolution,
    Expand,
    Gather,
    GlobalAverage,
    Interpolate,
    LookUpPairs,
    Op,
    Pad,
    Pool,
    Product,
    Reshape,
    Resize,
    Slice,
    Split,
    Tile,
    Transpose,
)

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Pads = tuple[int, int, int, int]


@singledispatch
def sizes(op: Op, shapes: Shapes) -> list[Shape]:
    """The shape of each output. By default that of the first input. ZcError where the inputs do not fit."""
    return [shapes[op.inputs[0]]] * len(op.outputs)


def window(op: Convolution | Pool, kernel: tuple[int, int], size: tuple[int, int]) -> tuple[tuple[int, int], Pads]:
    """Output height and width, and the padding (top, left, bottom, right)."""
    spans = [d * (k - 1) + 1 for d, k in zip(op.dilations, kernel, strict=True)]
    if op.pads is None:
        out = (-(-size[0] // op.strides[0]), -(-size[1] // op.strides[1]))
        total = [max((o - 1) * s + k - n, 0) for o, s, k, n in zip(out, op.strides, spans, size, strict=True)]
        less = [t // 2 if op.same == "upper" else t - t // 2 for t in total]
        return out, (less[0], less[1], total[0] - less[0], total[1] - less[1])
    found = []
    for i in range(2):
        room = size[i] + op.pads[i] + op.pads[i + 2] - spans[i]
        steps = -(-room // op.strides[i]) if isinstance(op, Pool) and op.ceil else room // op.strides[i]
        if isinstance(op, Pool) and op.ceil and steps * op.strides[i] >= size[i] + op.pads[i]:
            steps -= 1  # a window must begin inside the image or the padding in front of it
        found.append(steps + 1)
    return (found[0], found[1]), op.pads


def image(shape: Shape) -> tuple[int, int]:
    """Height and width; a value of three axes has height 1."""
    return (1, shape[2]) if len(shape) == 3 else (shape[2], shape[3])


def _spatial(shape: Shape, channels: int, out: tuple[int, int]) -> Shape:
    return (shape[0], channels, out[1]) if len(shape) == 3 else (shape[0], channels, *out)


@sizes.register
def _(op: Convolution, shapes: Shapes) -> list[Shape]:
    shape, codes = shapes[op.inputs[0]], op.weights.codes
    if len(shape) not in (3, 4) or shape[1] != codes.shape[1] * op.group or codes.shape[0] % op.group:
        raise ZcError(f"a convolution with weights {list(codes.shape)} does not take codes of shape {list(shape)}")
    out, _ = window(op, codes.shape[2:], image(shape))
    return [_spatial(shape, codes.shape[0], out)]


@sizes.register
def _(op: Pool, shapes: Shapes) -> list[Shape]:
    shape = shapes[op.inputs[0]]
    if len(shape) not in (3, 4):
        raise ZcError(f"a pool does not take codes of shape {list(shape)}")
    if not op.keeps_axes:
        return [shape[:2]]
    return [_spatial(shape, shape[1], window(op, op.kernel or image(shape), image(shape))[0])]


@sizes.register
def _(op: GlobalAverage, shapes: Shapes) -> list[Shape]:
    shape = shapes[op.inputs[0]]
    if len(shape) < 3:
        raise ZcError(f"codes of shape {list(shape)} are no image")
    return [(*shape[:2], *[1] * (len(shape) - 2))]


@sizes.register
def _(op: Product, shapes: Shapes) -> list[Shape]:
    shape, (k, n) = shapes[op.inputs[0]], op.weights.codes.shape
    if not shape or shape[-1] != k:
        raise ZcError(f"a product with weights [{k},{n}] does not take codes of shape {list(shape)}")
    return [(*shape[:-1], n)]


@sizes.register
def _(op: BatchedProduct, shapes: Shapes) -> list[Shape]:
    a, b = (shapes[name] for name in op.inputs)
    try:
        if min(len(a), len(b)) >= 2 and a[-1] == b[-2]:
            return [(*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])]
    except ValueError:
        pass
    raise ZcError(f"codes of shapes {list(a)} and {list(b)} have no product")


@sizes.register
def _(op: Binary, shapes: Shapes) -> list[Shape]:
    try:
        return [np.broadcast_shapes(shapes[op.inputs[0]], shapes[op.inputs[1]])]
    except ValueError:
        raise ZcError(f"shapes {[list(shapes[n]) for n in op.inputs]} do not go together") from None


@sizes.register
def _(op: LookUpPairs, shapes: Shapes) -> list[Shape]:
    both = [shapes[name] for name in op.inputs] + ([] if op.places is None else [op.places.shape])
    try:
        return [np.broadcast_shapes(*both)]
    except ValueError:
        raise ZcError(f"shapes {[list(s) for s in both]} do not go together") from None


@sizes.register
def _(op: Gather, shapes: Shapes) -> list[Shape]:
    shape = shapes[op.inputs[0]]
    axis = op.axis % len(shape)
    if op.positions.size and int(op.positions.max()) >= shape[axis]:
        raise ZcError(f"codes of shape {list(shape)} have no position {int(op.positions.max())} along axis {axis}")
    return [(*shape[:axis], *op.positions.shape, *shape[axis + 1 :])]


@sizes.register
def _(op: Expand, shapes: Shapes) -> list[Shape]:
    try:
        return [np.broadcast_shapes(shapes[op.inputs[0]], op.shape)]
    except ValueError:
        raise ZcError(f"codes of shape {list(shapes[op.inputs[0]])} cannot be broadcast to {list(op.shape)}") from None


@sizes.register
def _(op: Tile, shapes: Shapes) -> list[Shape]:
    shape = shapes[op.inputs[0]]
    if len(op.repeats) != len(shape):
        raise ZcError(f"codes of shape {list(shape)} cannot be repeated {list(op.repeats)} times")
    return [tuple(n * r for n, r in zip(shape, op.repeats, strict=True))]


@sizes.register
def _(op: Concatenate, shapes: Shapes) -> list[Shape]:
    found = [shapes[name] for name in op.inputs]
    axis = op.axis % len(found[0])
    return [(*found[0][:axis], sum(s[axis] for s in found), *found[0][axis + 1 :])]


@sizes.register
def _(op: Transpose, shapes: Shapes) -> list[Shape]:
    return [tuple(shapes[op.inputs[0]][a] for a in op.order)]


@sizes.register
def _(op: Blocks, shapes: Shapes) -> list[Shape]:
    n, c, h, w = shapes[op.inputs[0]]
    size = op.size
    if op.mode == "space":
        return [(n, c * size * size, h // size, w // size)]
    return [(n, c // (size * size), h * size, w * size)]


def _numbers(node: Node, position: int, key: str) -> list[int] | None:
    """A list given as an attribute or as a constant input."""
    if len(node.inputs) > position and node.inputs[position].name:
        values = fixed_value(node.inputs[position])
        return None if values is None else [int(v) for v in values.reshape(-1)]
    found = attribute(node, key, None)
    return None if found is None else [int(v) for v in (found if isinstance(found, list) else [found])]


@sizes.register
def _(op: Reshape, shapes: Shapes) -> list[Shape]:
    node, shape = op.nodes[0], shapes[op.inputs[0]]
    rank = len(shape)
    if node.op in ("Identity", "Dropout"):
        return [shape]
    if node.op == "Flatten":
        axis = int(attribute(node, "axis", 1))
        axis = axis + rank if axis < 0 else axis
        return [(prod(shape[:axis]), prod(shape[axis:]))]
    if node.op == "Squeeze":
        axes = _numbers(node, 1, "axes")
        gone = {a for a in range(rank) if shape[a] == 1} if axes is None else {a % rank for a in axes}
        return [tuple(n for a, n in enumerate(shape) if a not in gone)]
    if node.op == "Unsqueeze":
        axes = _numbers(node, 1, "axes") or []
        new = {a % (rank + len(axes)) for a in axes}
        rest = iter(shape)
        return [tuple(1 if a in new else next(rest) for a in range(rank + len(axes)))]
    wanted = _numbers(node, 1, "shape") or []
    keep = not attribute(node, "allowzero", 0)
    sized = [shape[a] if n == 0 and keep else n for a, n in enumerate(wanted)]
    known = prod(n for n in sized if n >= 0)
    if -1 in sized:
        sized[sized.index(-1)] = prod(shape) // max(known, 1)
    if prod(sized) != prod(shape):
        raise ZcError(f"codes of shape {list(shape)} cannot take shape {wanted}")
    return [tuple(sized)]


def cuts(op: Slice, shape: Shape) -> list[tuple[int, int, int, int]]:
    """(axis, first position, number of positions, step) of each axis that is cut."""
    node = op.nodes[0]
    ends = _numbers(node, 2, "ends") if "ends" not in node.attrs else [int(v) for v in node.attrs["ends"]]
    found = []
    for (axis, start, step), end in zip(op.cuts, ends or [], strict=True):
        size = shape[axis]
        first, last, stride = slice(start, end, step).indices(size)
        if step < 0 and end < -size:
            last = -1
        found.append((axis % len(shape), first, len(range(first, last, stride)), stride))
    return found


@sizes.register
def _(op: Slice, shapes: Shapes) -> list[Shape]:
    shape = list(shapes[op.inputs[0]])
    for axis, _, count, _ in cuts(op, tuple(shape)):
        shape[axis] = count
    return [tuple(shape)]


@sizes.register
def _(op: Split, shapes: Shapes) -> list[Shape]:
    shape, node = shapes[op.inputs[0]], op.nodes[0]
    axis = op.axis % len(shape)
    parts = _numbers(node, 1, "split")
    if parts is None:
        count = len(op.outputs)
        each = -(-shape[axis] // count)
        parts = [min(each, shape[axis] - i * each) for i in range(count)]
    return [(*shape[:axis], n, *shape[axis + 1 :]) for n in parts]


@sizes.register
def _(op: Pad, shapes: Shapes) -> list[Shape]:
    shape = shapes[op.inputs[0]]
    if len(op.before) != len(shape):
        raise ZcError(f"codes of shape {list(shape)} have other axes than the {len(op.before)} that are padded")
    if op.mode == "reflect" and any(max(a, b) >= n for n, a, b in zip(shape, op.before, op.after, strict=True)):
        raise ZcError(f"codes of shape {list(shape)} are too small to be reflected by {[*op.before, *op.after]}")
    return [tuple(n + a + b for n, a, b in zip(shape, op.before, op.after, strict=True))]


@sizes.register(Resize)
@sizes.register(Interpolate)
def _(op: Resize | Interpolate, shapes: Shapes) -> list[Shape]:
    if len(shapes[op.inputs[0]]) != 4:
        raise ZcError(f"codes of shape {list(shapes[op.inputs[0]])} are no image to resize")
    n, c, h, w = shapes[op.inputs[0]]
    if op.scales is None:
        target = _numbers(op.nodes[0], 3, "sizes") or []
        if len(target) != 4 or target[:2] not in ([n, c], [1, c]):
            raise ZcError(f"codes of shape {[n, c, h, w]} cannot be resized to {target}")
        return [(n, c, target[2], target[3])]
    return [(n, c, floor(h * np.float32(op.scales[0])), floor(w * np.float32(op.scales[1])))]


def nearest(op: Resize, size: int, out: int, scale: float | None) -> Array:
    """int64[out]: which position each output position of an axis takes."""
    how, rounding = op.source.split("/")
    rounded = {
        "round_prefer_floor": lambda v: ceil(v - 0.5),
        "round_prefer_ceil": lambda v: floor(v + 0.5),
        "floor": floor,
        "ceil": ceil,
    }[rounding]
    at = rules.coordinates(how, size, out, scale)
    return np.array([min(max(rounded(float(v)), 0), size - 1) for v in at], np.int64)
