"""Operations as steps in TFLite's fixed point: those that round in it; all others are as ever (`lower_rest`)."""

from functools import singledispatch
from math import prod

import numpy as np

from zc.ir.graph import Array
from zc.kernels import fixedpoint, packing, program, tflite_rules
from zc.kernels.program import bits
from zc.runtime import lower_rest, shapes
from zc.runtime.lower import Lowering
from zc.runtime.lower_rest import look_up, sized, walked
from zc.runtime.lower_weighted import room_of, taps_of
from zc.runtime.memory import Place, View, dense
from zc.runtime.ops import Binary, Coding, Convolution, GlobalAverage, Op, Pool, Product, Quantize, Softmax
from zc.runtime.walk import walks

SOFTMAX_CODES = Coding(np.float32(1 / 256), 0)
"""How TFLite's SOFTMAX codes its result (zero point -128 in int8)."""


@singledispatch
def lower(op: Op, state: Lowering) -> None:
    """Append the steps of one operation."""
    lower_rest.lower(op, state)


def _rounded(state: Lowering, found: fixedpoint.Multiplier) -> dict[str, int]:
    """Operands of a multiplier."""
    return {"significand": found.significand, "shift": found.shift, "double": int(state.rounding == "double")}


@lower.register
def _(op: Quantize, state: Lowering) -> None:
    shape = state.shapes[op.inputs[0]]
    source = View(state.external(op.inputs[0], shape, 4), 0, shape, dense(shape, 4))
    y = state.fresh(op.output, shape)
    for walk in walks(shape, [y.strides, source.strides], 3):
        state.emit(
            program.FIXED_QUANTIZE,
            **walked("x", walk, 1, source),
            **walked("y", walk, 0, y),
            **sized(walk),
            y_step=walk.inner[0],
            scale=bits(op.y.scale),
            zero_point=op.y.zero,
        )


@lower.register
def _(op: Convolution, state: Lowering) -> None:
    shape = state.shapes[op.inputs[0]]
    weights = op.weights
    _, pads = shapes.window(op, weights.codes.shape[2:], shapes.image(shape))
    x = state.image(op.inputs[0], pads, op.x.zero)
    y = state.fresh(op.output, state.shapes[op.output], image=True)
    assert x.image is not None
    assert y.image is not None
    (n, c, _, _), (x_image, x_row, x_pixel) = x.image
    (_, m, height, width), (y_image, y_row, y_pixel) = y.image
    assert op.y is not None
    found = tflite_rules.multipliers(op.x.scale, weights.scale, op.y.scale)
    distances = taps_of(op, x_row, x_pixel)
    state.emit(
        program.FIXED_CONVOLVE,
        x=Place(x.buffer, x.start - pads[0] * x_row - pads[1] * x_pixel),
        x_image=x_image, x_row=op.strides[0] * x_row, x_pixel=op.strides[1] * x_pixel, x_group=c // op.group,
        y=y.place, y_image=y_image, y_row=y_row, y_pixel=y_pixel, y_group=m // op.group,
        images=n, height=height, width=width,
        offsets=state.constant(np.array(distances, np.int64)),
        room=room_of(distances, c + 4, op.strides[1] * x_pixel),
        **_weights(state, op, weights.codes.transpose(2, 3, 1, 0), op.group, found),
        zero_point=op.y.zero,
    )  # fmt: skip


@lower.register
def _(op: Product, state: Lowering) -> None:
    shape = state.shapes[op.inputs[0]]
    weights = op.weights
    k, n = weights.codes.shape
    rows = prod(shape[:-1])
    flat = state.matrix(state.codes(op.inputs[0]), rows, k)
    y = state.fresh(op.output, (*shape[:-1], n), image=False).reshaped((rows, n))
    assert y is not None
    assert op.y is not None
    if weights.per_channel:
        found = tflite_rules.multipliers(op.x.scale, weights.scale, op.y.scale)
    else:
        found = [tflite_rules.shared_multiplier(op.x.scale, weights.scale[0], op.y.scale)] * n
    state.emit(
        program.FIXED_CONVOLVE,
        x=flat.place, x_image=0, x_row=0, x_pixel=flat.strides[0], x_group=0,
        y=y.place, y_image=0, y_row=0, y_pixel=y.strides[0], y_group=0,
        images=1, height=1, width=rows,
        offsets=state.constant(np.zeros(1, np.int64)),
        room=room_of([0], k + 4, flat.strides[0]),
        **_weights(state, op, weights.codes[None, None], 1, found),
        zero_point=op.y.zero,
    )  # fmt: skip


def _weights(
    state: Lowering, op: Convolution | Product, codes: Array, groups: int, found: list[fixedpoint.Multiplier]
) -> dict[str, int | Place]:
    """Operands of weights [kh, kw, k, columns], packed once in a session."""
    kh, kw, k, columns = codes.shape
    each = columns // groups
    key = (id(op), 8)
    if key not in state.packed:
        bias = op.weights.bias.astype(np.int64) - op.x.zero * codes.astype(np.int64).sum((0, 1, 2))
        parts = [
            packing.pack(
                codes.reshape(kh * kw, k, columns)[:, :, own], bias[own].astype(np.int32), np.zeros(each), True
            )
            for own in (slice(g * each, (g + 1) * each) for g in range(groups))
        ]
        state.packed[key] = {
            "weights": state.constant(np.concatenate([p.weights for p in parts])),
            "bias": state.constant(np.concatenate([p.bias for p in parts])),
            "significands": state.constant(np.array([f.significand for f in found], np.int64)),
            "shifts": state.constant(np.array([f.shift for f in found], np.int64)),
            "taps": parts[0].taps,
            "k4": parts[0].k4,
        }
    packed = state.packed[key]
    assert isinstance(packed, dict)
    twice = state.rounding == "double" and isinstance(op, Convolution)  # see `tflite_rules.requantize`
    return {**packed, "groups": groups, "columns": each, "double": int(twice)}


@lower.register
def _(op: Binary, state: Lowering) -> None:
    assert state.rounding is not None
    terms: dict[str, int | Place]
    if op.kind == "add":
        found = tflite_rules.Sum.of(op.a.scale, op.a.zero, op.b.scale, op.b.zero, op.y.scale, state.rounding)
        terms = {"table_x": state.constant(found.a), "table_z": state.constant(found.b), **_rounded(state, found.y)}
    else:
        product = tflite_rules.product_multiplier(op.a.scale, op.b.scale, op.y.scale)
        terms = {"zero_x": op.a.zero, "zero_z": op.b.zero, **_rounded(state, product)}
    kernel = program.FIXED_ADD if op.kind == "add" else program.FIXED_MULTIPLY
    lower_rest.each_pair(state, op, kernel, {**terms, "zero_point": op.y.zero})


@lower.register
def _(op: Pool, state: Lowering) -> None:
    if op.x is None or op.y is None or op.kernel is None:
        lower_rest.lower(op, state)
        return
    x, y = state.image(op.inputs[0]), state.fresh(op.output, state.shapes[op.output], image=True)
    assert x.image is not None
    assert y.image is not None
    (n, c, h, w), (x_image, x_row, x_pixel) = x.image
    (_, _, height, width), (y_image, y_row, y_pixel) = y.image
    _, (top, left, bottom, right) = shapes.window(op, op.kernel, (h, w))
    state.emit(
        program.FIXED_AVERAGE,
        x=x.place, x_image=x_image, x_row=x_row, x_pixel=x_pixel, x_height=h, x_width=w,
        y=y.place, y_image=y_image, y_row=y_row, y_pixel=y_pixel,
        images=n, height=height, width=width, channels=c,
        kernel_h=op.kernel[0], kernel_w=op.kernel[1], stride_h=op.strides[0], stride_w=op.strides[1],
        top=top, left=left, bottom=bottom, right=right, counts_pad=int(op.counts_pad), zero_x=op.x.zero,
    )  # fmt: skip
    _recode(state, y, op.x, op.y)


def _recode(state: Lowering, y: View, made: Coding, wanted: Coding) -> None:
    """QUANTIZE behind an operator whose kernel does not choose its scale."""
    assert state.rounding is not None
    if (made.scale, made.zero) != (wanted.scale, wanted.zero):
        table = tflite_rules.rescale_table(made.scale, made.zero, wanted.scale, wanted.zero, state.rounding)
        look_up(state, y, y, table)


@lower.register
def _(op: GlobalAverage, state: Lowering) -> None:
    x, y = state.image(op.inputs[0]), state.fresh(op.output, state.shapes[op.output], image=True)
    assert x.image is not None
    assert y.image is not None
    (n, c, h, w), (x_image, x_row, x_pixel) = x.image
    state.emit(
        program.FIXED_MEAN,
        x=x.place, x_image=x_image, x_row=x_row, x_pixel=x_pixel, x_height=h, x_width=w,
        y=y.place, y_image=y.image[1][0], images=n, channels=c, start=-h * w * op.x.zero, zero_point=op.y.zero,
        **_rounded(state, tflite_rules.mean_multiplier(op.x.scale, op.y.scale, h * w)),
    )  # fmt: skip


@lower.register
def _(op: Softmax, state: Lowering) -> None:
    assert state.rounding is not None
    x, y, rows, length = lower_rest.softmax_rows(op, state)
    found = tflite_rules.exponentials(op.x.scale, state.rounding)
    state.emit(
        program.FIXED_SOFTMAX,
        x=x.place, x_row=length, y=y.place, y_row=length, rows=rows, length=length,
        terms=state.constant(found.terms), addends=state.constant(found.addends),
    )  # fmt: skip
    _recode(state, y, SOFTMAX_CODES, op.y)
    lower_rest.softmax_done(op, state, y)
