"""Operations without weights as steps."""

from collections.abc import Mapping
from functools import singledispatch
from math import prod

import numpy as np

from zc.errors import ZcError
from zc.ir.graph import Array
from zc.kernels import program, rules
from zc.kernels.program import bits
from zc.runtime import lower_batched, lower_weighted, shapes
from zc.runtime.lower import Lowering
from zc.runtime.memory import Place, View, dense
from zc.runtime.ops import (
    BatchedProduct,
    Binary,
    Blocks,
    Concatenate,
    Convolution,
    Dequantize,
    GlobalAverage,
    LookUp,
    Op,
    Pad,
    Pool,
    Product,
    Quantize,
    Reshape,
    Resize,
    Slice,
    Softmax,
    Split,
    Transpose,
)
from zc.runtime.walk import Walk, walks


@singledispatch
def lower(op: Op, state: Lowering) -> None:
    """Append the steps of one operation."""
    raise ZcError(f"{state.where()}: {type(op).__name__} has no kernel")


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
    shape = state.shapes[op.output]
    views = [state.codes(name) for name in op.inputs]
    widest = next((v for v in views if v.shape == shape), views[0])
    y = state.like(op.output, shape, widest)
    left, right = (state.along(v, y) for v in views)
    for walk in walks(shape, [left.strides, right.strides, y.strides], 3):
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
    for walk in walks(y.shape, [x.strides, y.strides], 3):
        state.emit(
            program.LOOK_UP,
            **walked("x", walk, 0, x),
            **walked("y", walk, 1, y),
            **sized(walk),
            table=state.constant(table),
        )


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
    x, y = state.image(op.inputs[0]), state.fresh(op.output, state.shapes[op.output], image=True)
    assert x.image is not None
    assert y.image is not None
    (n, c, h, w), (x_image, x_row, x_pixel) = x.image
    (_, _, height, width), (y_image, y_row, y_pixel) = y.image
    _, (top, left, bottom, right) = shapes.window(op, op.kernel, (h, w))
    if op.x is not None and op.y is not None and (height, width) == (1, 1) and op.kernel == (h, w) and not top + left:
        _global(state, x, y, GlobalAverage(op.nodes, op.inputs, op.outputs, x=op.x, y=op.y))
        return
    average = op.x is not None
    state.emit(
        program.POOL,
        x=x.place, x_image=x_image, x_row=x_row, x_pixel=x_pixel, x_height=h, x_width=w,
        y=y.place, y_image=y_image, y_row=y_row, y_pixel=y_pixel,
        images=n, height=height, width=width, channels=c,
        kernel_h=op.kernel[0], kernel_w=op.kernel[1], stride_h=op.strides[0], stride_w=op.strides[1],
        top=top, left=left, bottom=bottom, right=right, dilation_h=op.dilations[0], dilation_w=op.dilations[1],
        average=int(average), counts_pad=int(op.counts_pad),
        x_scale=bits(op.x.scale) if op.x else 0, zero_x=op.x.zero if op.x else 0,
        y_scale=bits(op.y.scale) if op.y else 0, zero_y=op.y.zero if op.y else 0, base=op.y.base if op.y else 0,
    )  # fmt: skip


@lower.register
def _(op: GlobalAverage, state: Lowering) -> None:
    x, shape = state.codes(op.inputs[0]), state.shapes[op.output]
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


def softmax_rows(op: Softmax, state: Lowering) -> tuple[View, View, int, int]:
    """Codes and result as matrices in C order, their rows and the length of one."""
    shape = state.shapes[op.inputs[0]]
    axis = op.axis % len(shape)
    length = prod(shape[axis:]) if op.flat else shape[axis]
    if not op.flat and axis != len(shape) - 1:
        raise ZcError(f"{state.where()}: Softmax along axis {axis} of {len(shape)} has no kernel on codes")
    rows = prod(shape) // length
    x = state.rows(state.codes(op.inputs[0])).reshaped((rows, length))
    y = state.fresh(op.output, shape, image=False).reshaped((rows, length))
    assert x is not None
    assert y is not None
    return x, y, rows, length


# ---- other views of the same codes


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
def _(op: Pad, state: Lowering) -> None:
    x = state.codes(op.inputs[0])
    y = state.like(op.output, state.shapes[op.output], x)
    inside = y
    for axis, before in enumerate(op.before):
        inside = inside.part(axis, before, x.shape[axis])
    if any(y.halo) or y.buffer.size != prod(y.shape):
        whole = state.allocate(y.shape, image=y.image is not None)
        state.emit(program.FILL, y=Place(whole.buffer), length=whole.buffer.size, value=op.value)
        state.move(whole, y)
    else:
        state.emit(program.FILL, y=y.place, length=y.buffer.size, value=op.value)
    state.move(x, inside)


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
    state.emit(
        program.CHOOSE_PIXELS,
        x=x.place, x_image=x_image, y=y.place, y_image=y_image, y_row=y_row, y_pixel=y_pixel,
        images=n, height=height, width=width, channels=c,
        rows=state.constant(x_row * shapes.nearest(op, h, height, scales[0])),
        columns=state.constant(x_pixel * shapes.nearest(op, w, width, scales[1])),
    )  # fmt: skip
