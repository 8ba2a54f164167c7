"""Operations without weights as steps."""

from collections.abc import Mapping, Sequence
from functools import singledispatch
from math import prod

import numpy as np

from zc.ir.graph import Array
from zc.kernels import program, rules
from zc.kernels.program import bits
from zc.runtime import lower_batched, lower_moving, lower_weighted, shapes
from zc.runtime.lower import Lowering
from zc.runtime.memory import Place, View, dense
from zc.runtime.ops import (
    BatchedProduct,
    Binary,
    Concatenate,
    Convolution,
    Dequantize,
    GlobalAverage,
    Interpolate,
    LookUp,
    LookUpPairs,
    Op,
    Pool,
    Product,
    Quantize,
    Softmax,
)
from zc.runtime.walk import Walk, walks


@singledispatch
def lower(op: Op, state: Lowering) -> None:
    """Append the steps of one operation; those that move codes about are `lower_moving`'s."""
    lower_moving.lower(op, state)


@lower.register
def _(op: Convolution, state: Lowering) -> None:
    lower_weighted.convolution(state, op)


@lower.register
def _(op: BatchedProduct, state: Lowering) -> None:
    lower_batched.batched_product(state, op)


@lower.register
def _(op: Product, state: Lowering) -> None:
    lower_weighted.product(state, op)


def sized(walk: Walk) -> dict[str, int]:
    """Operands of the sizes of a walk."""
    return {**{f"n{i}": n for i, n in enumerate(walk.sizes)}, "length": walk.length}


def walked(label: str, walk: Walk, operand: int, view: View) -> dict[str, int | Place]:
    """Address and outer strides of one operand."""
    found: dict[str, int | Place] = {label: Place(view.buffer, view.start + walk.starts[operand])}
    found.update({f"{label}{i}": s for i, s in enumerate(walk.outer[operand])})
    return found


@lower.register
def _(op: Quantize, state: Lowering) -> None:
    shape = state.shapes[op.inputs[0]]
    source = View(state.external(op.inputs[0], shape, 4), 0, shape, dense(shape, 4))
    y = state.fresh(op.output, shape)
    target = y if y.in_order else state.allocate(shape, image=False)  # planes become pixels in a step of their own
    for walk in walks(shape, [target.strides, source.strides], 3):
        state.emit(
            program.QUANTIZE,
            **walked("x", walk, 1, source),
            **walked("y", walk, 0, target),
            **sized(walk),
            y_step=walk.inner[0],
            scale=bits(op.y.scale),
            zero_point=op.y.zero,
        )
    if target is not y:
        state.move(target, y)


@lower.register
def _(op: Dequantize, state: Lowering) -> None:
    x = state.codes(op.inputs[0])
    if not x.in_order:
        planes = state.allocate(x.shape, image=False)
        state.move(x, planes)
        x = planes
    target = View(state.external(op.output, x.shape, 4), 0, x.shape, dense(x.shape, 4))
    for walk in walks(x.shape, [x.strides, target.strides], 3):
        state.emit(
            program.DEQUANTIZE,
            **walked("x", walk, 0, x),
            **walked("y", walk, 1, target),
            **sized(walk),
            x_step=walk.inner[0],
            scale=bits(op.x.scale),
            zero_point=op.x.zero,
        )


@lower.register
def _(op: Binary, state: Lowering) -> None:
    if op.kind == "add":
        ra, rb, fixed = rules.add_terms(op.a.scale, op.a.zero, op.b.scale, op.b.zero, op.y.scale, op.y.zero, op.y.base)
        each_pair(state, op, program.ADD, {"ra": bits(ra), "rb": bits(rb), "fixed": bits(fixed), "base": op.y.base})
        return
    factor = np.float32(np.float32(op.a.scale * op.b.scale) / op.y.scale)
    terms = {"zero_x": op.a.zero, "zero_z": op.b.zero, "scale": bits(factor), "zero_y": op.y.zero, "base": op.y.base}
    each_pair(state, op, program.MULTIPLY, terms)


def each_pair(state: Lowering, op: Binary, kernel: int, terms: Mapping[str, int | Place]) -> None:
    """The steps of a kernel on two broadcast values; terms: its other operands."""
    pair(state, kernel, [state.codes(name) for name in op.inputs], _beside(state, op), terms)


def _beside(state: Lowering, op: Binary | LookUpPairs) -> View:
    """A place for the result, in the layout of the input that has its shape."""
    shape = state.shapes[op.output]
    views = [state.codes(name) for name in op.inputs]
    return state.like(op.output, shape, next((v for v in views if v.shape == shape), views[0]))


def pair(state: Lowering, kernel: int, views: Sequence[View], y: View, terms: Mapping[str, int | Place]) -> None:
    """The steps of a kernel on two views, broadcast to that of the result."""
    left, right = (state.along(v, y) for v in views)
    for walk in walks(y.shape, [left.strides, right.strides, y.strides], 3, contiguous=True):
        state.emit(
            kernel,
            **walked("x", walk, 0, left),
            **walked("z", walk, 1, right),
            **walked("y", walk, 2, y),
            **sized(walk),
            **terms,
        )


@lower.register
def _(op: LookUp, state: Lowering) -> None:
    x = state.codes(op.inputs[0])
    look_up(state, x, state.like(op.output, x.shape, x), op.table)


def look_up(state: Lowering, x: View, y: View, table: Array) -> None:
    """The codes of x through a table, into y; both may be one place."""
    x = state.along(x, y)
    for walk in walks(y.shape, [x.strides, y.strides], 3, contiguous=True):
        state.emit(
            program.LOOK_UP,
            **walked("x", walk, 0, x),
            **walked("y", walk, 1, y),
            **sized(walk),
            table=state.constant(table),
        )


@lower.register
def _(op: LookUpPairs, state: Lowering) -> None:
    x, y = state.codes(op.inputs[0]), _beside(state, op)
    if op.places is None:
        pair(state, program.LOOK_UP_PAIRS, [x, state.codes(op.inputs[1])], y, {"table": state.constant(op.table)})
        return
    places = op.places
    if len(op.table) <= 256:
        z = state.constants_view(places.astype(np.uint8))
        pair(state, program.LOOK_UP_PAIRS, [x, z], y, {"table": state.constant(op.table)})
        return
    axis = next(a for a in range(-places.ndim, 0) if places.shape[a] > 1)  # all others are 1
    x = x.spread(y.shape)
    for start in range(0, places.size, 256):
        some = places.reshape(-1)[start : start + 256]
        own = [len(some) if a == axis else 1 for a in range(-places.ndim, 0)]
        z = state.constants_view(np.arange(len(some), dtype=np.uint8).reshape(own))
        parts = [v.part(axis % len(y.shape), start, len(some)) for v in (x, y)]
        pair(state, program.LOOK_UP_PAIRS, [parts[0], z], parts[1], {"table": state.constant(op.table[some])})


@lower.register
def _(op: Concatenate, state: Lowering) -> None:
    shape = state.shapes[op.output]
    axis = op.axis % len(shape)
    y = state.views.get(op.output) or state.like(op.output, shape, state.codes(op.inputs[0]))
    start = 0
    for name, table in zip(op.inputs, op.tables, strict=True):
        x = state.codes(name)
        target = y.part(axis, start, x.shape[axis])
        start += x.shape[axis]
        if (x.buffer, x.start) == (target.buffer, target.start):
            continue  # it was made in its place
        if table is None:
            state.move(x, target)
        else:
            look_up(state, x, target, table)


@lower.register
def _(op: Pool, state: Lowering) -> None:
    x = state.image(op.inputs[0])
    assert x.image is not None
    (n, c, h, w), (x_image, x_row, x_pixel) = x.image
    kernel = op.kernel or (h, w)
    (height, width), (top, left, bottom, right) = shapes.window(op, kernel, (h, w))
    shape = state.shapes[op.output]
    if op.keeps_axes:
        y = state.fresh(op.output, shape, image=True)
    else:
        y = state.allocate((n, c, 1, 1), image=True)
    assert y.image is not None
    _, (y_image, y_row, y_pixel) = y.image
    if op.x is not None and op.y is not None and (height, width) == (1, 1) and kernel == (h, w) and not top + left:
        _global(state, x, y, GlobalAverage(op.nodes, op.inputs, op.outputs, x=op.x, y=op.y))
        return
    average = op.x is not None
    state.emit(
        program.POOL,
        x=x.place, x_image=x_image, x_row=x_row, x_pixel=x_pixel, x_height=h, x_width=w,
        y=y.place, y_image=y_image, y_row=y_row, y_pixel=y_pixel,
        images=n, height=height, width=width, channels=c,
        kernel_h=kernel[0], kernel_w=kernel[1], stride_h=op.strides[0], stride_w=op.strides[1],
        top=top, left=left, bottom=bottom, right=right, dilation_h=op.dilations[0], dilation_w=op.dilations[1],
        average=int(average), counts_pad=int(op.counts_pad),
        x_scale=bits(op.x.scale) if op.x else 0, zero_x=op.x.zero if op.x else 0,
        y_scale=bits(op.y.scale) if op.y else 0, zero_y=op.y.zero if op.y else 0, base=op.y.base if op.y else 0,
    )  # fmt: skip
    if not op.keeps_axes:
        state.move(View(y.buffer, y.start, shape, y.strides[:2]), state.fresh(op.output, shape))


@lower.register
def _(op: GlobalAverage, state: Lowering) -> None:
    x, shape = state.codes(op.inputs[0]), state.shapes[op.output]
    if len(x.shape) > 4:
        _volume(state, op, state.rows(x))
        return
    if x.planes is None or (x.image is not None and x.buffer.planned):
        _global(state, state.image(op.inputs[0]), state.fresh(op.output, shape, image=True), op)
        return
    y = state.fresh(op.output, shape, image=False)
    assert y.image is not None
    (n, c, count), (x_image, x_plane) = x.planes
    state.emit(
        program.AVERAGE_PLANES,
        x=x.place, x_image=x_image, x_plane=x_plane, y=y.place, y_image=y.image[1][0], images=n, channels=c,
        count=count, start=-count * op.x.zero, scale=bits(rules.average_scale(op.x.scale, op.y.scale, count)),
        zero_y=op.y.zero,
    )  # fmt: skip


def _volume(state: Lowering, op: GlobalAverage, x: View) -> None:
    """Of more than two dimensions: the same as of an image of as many pixels."""
    n, c, *size = x.shape
    y = state.allocate((n, c, 1, 1), image=True)
    flat = x.reshaped((n, c, 1, prod(size)))
    assert flat is not None
    pixels = state.allocate(flat.shape, image=True)
    state.move(flat, pixels)
    _global(state, pixels, y, op)
    target = state.fresh(op.output, state.shapes[op.output], image=False)
    state.move(View(y.buffer, y.start, target.shape, (*y.strides[:2], *[1] * len(size))), target)


def _global(state: Lowering, x: View, y: View, op: GlobalAverage) -> None:
    assert x.image is not None
    assert y.image is not None
    (n, c, h, w), (x_image, x_row, x_pixel) = x.image
    state.emit(
        program.GLOBAL_AVERAGE,
        x=x.place, x_image=x_image, x_row=x_row, x_pixel=x_pixel, x_height=h, x_width=w,
        y=y.place, y_image=y.image[1][0], images=n, channels=c, start=-h * w * op.x.zero,
        scale=bits(rules.average_scale(op.x.scale, op.y.scale, h * w)), zero_y=op.y.zero,
    )  # fmt: skip


@lower.register
def _(op: Softmax, state: Lowering) -> None:
    x, y, rows, length = softmax_rows(op, state)
    state.emit(
        program.SOFTMAX,
        x=x.place, x_row=length, y=y.place, y_row=length, rows=rows, length=length,
        table=state.constant(rules.softmax_table(op.x.scale, length)),
        levels=bits(rules.softmax_levels(op.y.scale)), zero_y=op.y.zero,
    )  # fmt: skip
    softmax_done(op, state, y)


def softmax_rows(op: Softmax, state: Lowering) -> tuple[View, View, int, int]:
    """Codes and result as matrices in C order, their rows and the length of one. See `softmax_done`."""
    shape = state.shapes[op.inputs[0]]
    axis = op.axis % len(shape)
    length = prod(shape[axis:]) if op.flat else shape[axis]
    rows = prod(shape) // length
    x = state.codes(op.inputs[0])
    order = _axis_last(op, len(shape))
    x = state.rows(x if order is None else x.transposed(order)).reshaped((rows, length))  # type: ignore[assignment]
    if order is None:
        y = state.fresh(op.output, shape, image=False).reshaped((rows, length))
    else:
        y = state.allocate((rows, length), image=False)
    assert x is not None
    assert y is not None
    return x, y, rows, length


def _axis_last(op: Softmax, rank: int) -> list[int] | None:
    """The order of axes with that of an inner Softmax behind the others; None where it is, or all from it on count."""
    axis = op.axis % rank
    return None if op.flat or axis == rank - 1 else [*(a for a in range(rank) if a != axis), axis]


def softmax_done(op: Softmax, state: Lowering, y: View) -> None:
    """Turn the result of a Softmax along an inner axis back."""
    shape = state.shapes[op.output]
    order = _axis_last(op, len(shape))
    if order is not None:
        turned = y.reshaped([shape[a] for a in order])
        assert turned is not None
        state.move(turned, state.fresh(op.output, shape).transposed(order))


@lower.register
def _(op: Interpolate, state: Lowering) -> None:
    x, y = state.image(op.inputs[0]), state.fresh(op.output, state.shapes[op.output], image=True)
    assert x.image is not None
    assert y.image is not None
    (n, c, *size), (x_image, x_row, x_pixel) = x.image
    (_, _, height, width), (y_image, y_row, y_pixel) = y.image
    scales = op.scales or (None, None)
    if [height, width] == size:  # onnxruntime copies, whatever the scales say
        scales = (1.0, 1.0)
    rows, by_rows = rules.between(op.source, size[0], height, scales[0])
    columns, by_columns = rules.between(op.source, size[1], width, scales[1])
    state.emit(
        program.INTERPOLATE,
        x=x.place, x_image=x_image, y=y.place, y_image=y_image, y_row=y_row, y_pixel=y_pixel,
        images=n, height=height, width=width, channels=c,
        rows=state.constant(x_row * rows), columns=state.constant(x_pixel * columns),
        by_rows=state.constant(by_rows), by_columns=state.constant(by_columns),
        x_scale=bits(op.x.scale), zero_x=op.x.zero, y_scale=bits(op.y.scale), zero_y=op.y.zero,
    )  # fmt: skip
