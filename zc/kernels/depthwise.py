"""Depthwise convolutions on codes: every channel has a filter of its own, so the lanes are the channels."""

from collections.abc import Callable

from numba import njit

from zc.kernels import emit, lanes
from zc.kernels.convolution import share
from zc.kernels.cpu import FORM
from zc.kernels.emit import F16, H16, I64, W16, Builder, Value, i64, load, loop, offset, scaled, vector
from zc.kernels.packing import BLOCK

Vectors = list[Value]


def _row3(stride: int) -> Callable[..., None]:
    """An intrinsic for one output row of a 3 x 3 filter, one block: each input column is read and spread once.

    (x, x_row, x_pixel, width, weights, bias, scale, zero_point, y, y_pixel, channels)
    """

    def build(b: Builder, *args: Value) -> None:
        x, x_row, x_pixel, width, weights, bias, scale, zero_point, y, y_pixel, channels = args
        first, scales, put_codes = _ends(b, bias, scale, zero_point)
        taps = [_taps(b, offset(b, weights, j * TAP_BYTES)) for j in range(3)]
        n = len(first)

        def column(at: Value) -> Vectors:
            rows = [_codes(b, offset(b, at, *[x_row] * i)) for i in range(3)]
            return _spread(b, [*rows, lanes.zeros(rows[0].type)])

        def plus(acc: Vectors, codes: Vectors, j: int) -> Vectors:
            return _plus(b, acc, codes, taps[j])

        def put(acc: Vectors, i: Value) -> None:
            values = [lanes.rounded(b, a, s) for a, s in zip(acc, scales, strict=True)]
            emit.store_first(b, put_codes(values), offset(b, y, b.mul(i, y_pixel)), channels)

        def step1(i: Value, carried: Vectors) -> Vectors:
            codes = column(offset(b, x, b.mul(b.add(i, i64(2)), x_pixel)))
            put(plus(carried[:n], codes, 2), i)
            return plus(carried[n:], codes, 1) + plus(first, codes, 0)

        def step2(i: Value, carried: Vectors) -> Vectors:
            at = offset(b, x, b.mul(b.add(scaled(b, i, 2), i64(1)), x_pixel))
            middle, right = column(at), column(offset(b, at, x_pixel))
            put(plus(plus(carried, middle, 1), right, 2), i)
            return plus(first, right, 0)

        left = column(x)
        if stride == 2:
            loop(b, width, plus(first, left, 0), step2)
        else:
            second = column(offset(b, x, x_pixel))
            loop(b, width, plus(plus(first, left, 0), second, 1) + plus(first, second, 0), step1)

    return emit.kernel(build, 11)  # type: ignore[no-any-return]


def _row() -> Callable[..., None]:
    """An intrinsic for one output row of any filter, one block of channels.

    (x, x_step, width, offsets, groups, weights, bias, scale, zero_point, y, y_pixel, channels): offsets:
    int64[4 * groups], byte distances of the taps; x_step: bytes from one output pixel to the next.
    """

    def build(b: Builder, *args: Value) -> None:
        x, x_step, width, offsets, groups, weights, bias, scale, zero_point, y, y_pixel, channels = args
        first, scales, put_codes = _ends(b, bias, scale, zero_point)

        def pixel(i: Value, _: Vectors) -> Vectors:
            here = offset(b, x, b.mul(i, x_step))

            def four(g: Value, acc: Vectors) -> Vectors:
                at = offset(b, offsets, scaled(b, g, 32))
                away = [load(b, offset(b, at, 8 * j), I64, 8) for j in range(4)]
                codes = _spread(b, [_codes(b, offset(b, here, one)) for one in away])
                return _plus(b, acc, codes, _taps(b, offset(b, weights, scaled(b, g, TAP_BYTES))))

            acc = loop(b, groups, first, four)
            values = [lanes.rounded(b, a, s) for a, s in zip(acc, scales, strict=True)]
            emit.store_first(b, put_codes(values), offset(b, y, b.mul(i, y_pixel)), channels)
            return []

        loop(b, width, [], pixel)

    return emit.kernel(build, 12)  # type: ignore[no-any-return]


# ---- what the forms do differently: 64 channels as 4 vectors of 16 lanes, or 16 channels as 2 of 8

TAP_BYTES = 4 * BLOCK if FORM.vnni else 8 * BLOCK
"""Weights of four taps of a block: as bytes, or as 16 bits."""


def _ends(b: Builder, bias: Value, scale: Value, zero_point: Value) -> tuple[Vectors, Vectors, Callable[..., Value]]:
    """Of one block: accumulators at the start, multipliers, and what makes codes of rounded values."""
    kinds = (W16, F16) if FORM.vnni else (vector(emit.I32, 8), vector(emit.F32, 8))
    count = BLOCK // kinds[0].count
    first, scales = (
        [load(b, offset(b, address, 4 * kind.count * v), kind) for v in range(count)]
        for address, kind in zip((bias, scale), kinds, strict=True)
    )
    if FORM.vnni:
        zero = lanes.halves_of(b, zero_point)
        return first, scales, lambda values: lanes.codes64(b, values, zero)
    zero = lanes.zero16_of(b, zero_point)
    return first, scales, lambda values: lanes.spread16(b, values, zero)


def _codes(b: Builder, address: Value) -> Value:
    """One tap's codes of a block."""
    codes = load(b, address, vector(emit.I8, BLOCK))
    return codes if FORM.vnni else b.zext(codes, H16)


def _spread(b: Builder, rows: Vectors) -> Vectors:
    """Four taps' codes, so that a lane has those of one channel: all four, or first two and then two."""
    if FORM.vnni:
        return lanes.interleave4(b, rows)
    return [*lanes.interleave2(b, rows[0], rows[1]), *lanes.interleave2(b, rows[2], rows[3])]


def _taps(b: Builder, address: Value) -> Vectors:
    """Weights of four taps, as `packing.pack_depthwise` puts them beside the codes."""
    kind, size = (W16, 64) if FORM.vnni else (H16, 32)
    return [load(b, offset(b, address, size * v), kind) for v in range(4)]


def _plus(b: Builder, acc: Vectors, codes: Vectors, taps: Vectors) -> Vectors:
    """Add four taps to the accumulators of a block."""
    if FORM.vnni:
        return [lanes.dot4(b, a, c, t) for a, c, t in zip(acc, codes, taps, strict=True)]
    both = [lanes.pairs(b, c, t) for c, t in zip(codes, taps, strict=True)]
    return [b.add(acc[v], b.add(both[v], both[v + 2])) for v in (0, 1)]


ROW, ROW3, ROW3_STRIDE2 = _row(), _row3(1), _row3(2)


@njit(nogil=True)
def depthwise(  # type: ignore[no-untyped-def]
    thread,
    threads,
    scratch,
    x,
    x_image,
    x_row,
    x_pixel,
    y,
    y_image,
    y_row,
    y_pixel,
    images,
    height,
    width,
    channels,
    stride_h,
    stride_w,
    offsets,
    groups,
    weights,
    bias,
    scale,
    zero_point,
):
    """Depthwise convolution, one filter a channel. The rule: `rules.requantize`.

    Strides are bytes between neighbours of the input (x_*) and the output (y_*). offsets: int64[4 * groups], distances
    of the taps. Weights, bias and scale as `packing.pack_depthwise` makes them.
    """
    blocks = (channels + BLOCK - 1) // BLOCK
    first, last = share(images * height, 1, thread, threads)
    for line in range(first, last):
        image, row = divmod(line, height)
        source = x + image * x_image + row * stride_h * x_row
        target = y + image * y_image + row * y_row
        for k in range(blocks):
            at = k * BLOCK
            ROW(
                source + at, stride_w * x_pixel, width, offsets, groups, weights + k * groups * TAP_BYTES,
                bias + 4 * at, scale + 4 * at, zero_point, target + at, y_pixel, channels - at,
            )  # fmt: skip


@njit(nogil=True)
def depthwise3(  # type: ignore[no-untyped-def]
    thread,
    threads,
    scratch,
    x,
    x_image,
    x_row,
    x_pixel,
    y,
    y_image,
    y_row,
    y_pixel,
    images,
    height,
    width,
    channels,
    stride,
    weights,
    bias,
    scale,
    zero_point,
):
    """`depthwise` for 3 x 3 filters with stride 1 or 2, no dilation, weights packed columnwise."""
    blocks = (channels + BLOCK - 1) // BLOCK
    first, last = share(images * height, 1, thread, threads)
    for line in range(first, last):
        image, row = divmod(line, height)
        source = x + image * x_image + row * stride * x_row
        target = y + image * y_image + row * y_row
        for k in range(blocks):
            at = BLOCK * k
            if stride == 1:
                ROW3(
                    source + at, x_row, x_pixel, width, weights + 3 * TAP_BYTES * k, bias + 4 * at, scale + 4 * at,
                    zero_point, target + at, y_pixel, channels - at,
                )  # fmt: skip
            else:
                ROW3_STRIDE2(
                    source + at, x_row, x_pixel, width, weights + 3 * TAP_BYTES * k, bias + 4 * at, scale + 4 * at,
                    zero_point, target + at, y_pixel, channels - at,
                )  # fmt: skip
