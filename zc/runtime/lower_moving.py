"""Operations that move codes about as steps: other views of the same bytes where that is possible."""

from functools import singledispatch
from math import prod

import numpy as np

from zc.errors import ZcError
from zc.ir.graph import Array
from zc.kernels import program
from zc.runtime import shapes
from zc.runtime.lower import Lowering
from zc.runtime.memory import Place, View
from zc.runtime.ops import (
    Blocks,
    Expand,
    Gather,
    Op,
    Pad,
    Reshape,
    Resize,
    Slice,
    Split,
    Tile,
    Transpose,
)


@singledispatch
def lower(op: Op, state: Lowering) -> None:
    """Append the steps of one operation."""
    raise ZcError(f"{state.where()}: {type(op).__name__} has no kernel")


@lower.register
def _(op: Reshape, state: Lowering) -> None:
    _reshape(state, op.output, state.codes(op.inputs[0]), state.shapes[op.output])


def _reshape(state: Lowering, name: str, x: View, shape: tuple[int, ...]) -> None:
    view = x.reshaped(shape)
    state.views[name] = view if view is not None else _reshaped(state.rows(x), shape)


def _reshaped(view: View, shape: tuple[int, ...]) -> View:
    found = view.reshaped(shape)
    assert found is not None
    return found


@lower.register
def _(op: Transpose, state: Lowering) -> None:
    state.views[op.output] = state.codes(op.inputs[0]).transposed(op.order)


@lower.register
def _(op: Slice, state: Lowering) -> None:
    view = state.codes(op.inputs[0])
    for axis, first, count, step in shapes.cuts(op, view.shape):
        view = view.part(axis, first, count, step)
    state.check(op.output, view.shape)
    state.views[op.output] = view


@lower.register
def _(op: Split, state: Lowering) -> None:
    view, start = state.codes(op.inputs[0]), 0
    axis = op.axis % len(view.shape)
    for name in op.outputs:
        size = state.shapes[name][axis]
        state.views[name] = view.part(axis, start, size)
        start += size


@lower.register
def _(op: Gather, state: Lowering) -> None:
    x, positions = state.codes(op.inputs[0]), op.positions.reshape(-1)
    axis = op.axis % len(x.shape)
    shape = state.shapes[op.output]
    state.check(op.output, shape)
    runs = _runs(positions)
    if len(runs) == 1:
        _, first, step, count = runs[0]
        _reshape(state, op.output, x.part(axis, first, count, step), shape)
        return
    y = state.fresh(op.output, shape)
    flat = (*x.shape[:axis], len(positions), *x.shape[axis + 1 :])
    target = y if y.shape == flat else state.allocate(flat, image=False)
    for start, first, step, count in runs:
        state.move(x.part(axis, first, count, step), target.part(axis, start, count))
    if target is not y:
        state.move(_reshaped(target, shape), y)


def _runs(positions: Array) -> list[tuple[int, int, int, int]]:
    """(start, first position, step, count) of the longest stretches of positions that lie evenly."""
    found, start = [], 0
    while start < len(positions):
        stop = start + 1
        step = int(positions[stop] - positions[start]) if stop < len(positions) else 1
        while stop < len(positions) and positions[stop] - positions[stop - 1] == step:
            stop += 1
        found.append((start, int(positions[start]), step, stop - start))
        start = stop
    return found


@lower.register
def _(op: Expand, state: Lowering) -> None:
    shape = state.shapes[op.output]
    state.move(state.codes(op.inputs[0]).spread(shape), state.fresh(op.output, shape))


@lower.register
def _(op: Tile, state: Lowering) -> None:
    x, shape = state.codes(op.inputs[0]), state.shapes[op.output]
    state.check(op.output, shape)
    pairs = [size for r, n in zip(op.repeats, x.shape, strict=True) for size in (r, n)]
    strides = [stride for s in x.strides for stride in (0, s)]
    y = state.fresh(op.output, shape)
    target = y.reshaped(pairs) if y.image is None else None
    copy = target if target is not None else state.allocate(tuple(pairs), image=False)
    state.move(View(x.buffer, x.start, tuple(pairs), tuple(strides)), copy)
    if target is None:
        state.move(_reshaped(copy, shape), y)


@lower.register
def _(op: Pad, state: Lowering) -> None:
    x = state.codes(op.inputs[0])
    if op.mode != "constant":
        _mirrored(op, state, x)
        return
    y = state.like(op.output, state.shapes[op.output], x)
    inside = y
    for axis, (before, after) in enumerate(zip(op.before, op.after, strict=True)):
        x = x.part(axis, max(-before, 0), x.shape[axis] + min(before, 0) + min(after, 0))
        inside = inside.part(axis, max(before, 0), x.shape[axis])
    if any(y.halo) or y.buffer.size != prod(y.shape):
        whole = state.allocate(y.shape, image=y.image is not None)
        state.emit(program.FILL, y=Place(whole.buffer), length=whole.buffer.size, value=op.value)
        state.move(whole, y)
    else:
        state.emit(program.FILL, y=y.place, length=y.buffer.size, value=op.value)
    if min(x.shape) > 0:
        state.move(x, inside)


def _mirrored(op: Pad, state: Lowering, x: View) -> None:
    """Padding with codes of the value itself, one axis after another."""
    axes = [a for a, pads in enumerate(zip(op.before, op.after, strict=True)) if any(pads)]
    for axis in axes or [0]:
        positions = np.pad(np.arange(x.shape[axis]), (op.before[axis], op.after[axis]), op.mode)
        shape = (*x.shape[:axis], len(positions), *x.shape[axis + 1 :])
        last = axis == (axes or [0])[-1]
        y = state.like(op.output, shape, x) if last else state.allocate(shape, image=x.image is not None)
        for start, first, step, count in _runs(positions):
            state.move(x.part(axis, first, count, step), y.part(axis, start, count))
        x = y


@lower.register
def _(op: Blocks, state: Lowering) -> None:
    n, c, h, w = state.shapes[op.inputs[0]]
    size = op.size
    x = state.codes(op.inputs[0])
    if op.mode == "space":
        split, order = (n, c, h // size, size, w // size, size), (0, 3, 5, 1, 2, 4)
    elif op.mode == "DCR":
        split, order = (n, size, size, c // (size * size), h, w), (0, 3, 4, 1, 5, 2)
    else:
        split, order = (n, c // (size * size), size, size, h, w), (0, 1, 4, 2, 5, 3)
    view = x.reshaped(split)
    turned = (view if view is not None else _reshaped(state.rows(x), split)).transposed(order)
    shape = state.shapes[op.output]
    y = state.fresh(op.output, shape)
    target = y.reshaped(turned.shape)
    if target is None:  # its padding, or its place in a Concat, keeps the axes apart
        copy = state.allocate(turned.shape, image=False)
        state.move(turned, copy)
        state.move(_reshaped(copy, shape), y)
    else:
        state.move(turned, target)


@lower.register
def _(op: Resize, state: Lowering) -> None:
    x, y = state.image(op.inputs[0]), state.fresh(op.output, state.shapes[op.output], image=True)
    assert x.image is not None
    assert y.image is not None
    (_, c, h, w), (x_image, x_row, x_pixel) = x.image
    (n, _, height, width), (y_image, y_row, y_pixel) = y.image
    scales = op.scales or (None, None)
    if (height, width) == (h, w):  # onnxruntime copies, whatever the scales say
        scales = (1.0, 1.0)
    state.emit(
        program.CHOOSE_PIXELS,
        x=x.place, x_image=x_image, y=y.place, y_image=y_image, y_row=y_row, y_pixel=y_pixel,
        images=n, height=height, width=width, channels=c,
        rows=state.constant(x_row * shapes.nearest(op, h, height, scales[0])),
        columns=state.constant(x_pixel * shapes.nearest(op, w, width, scales[1])),
    )  # fmt: skip
