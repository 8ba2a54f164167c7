"""Depthwise convolutions on codes: every channel has a filter of its own, so the lanes are the channels."""

from collections.abc import Callable

from numba import njit

from zc.kernels import emit, lanes
from zc.kernels.convolution import share
from zc.kernels.cpu import FORM
from zc.kernels.emit import B64, F16, I64, W16, Builder, Value, i64, load, loop, offset, scaled, vector
from zc.kernels.packing import BLOCK

Vectors = list[Value]


def _row3(stride: int) -> Callable[..., None]:
    """An intrinsic for one output row of a 3 x 3 filter, 64 channels: each input column is read and spread once.

    (x, x_row, x_pixel, width, weights, bias, scale, zero_point, y, y_pixel, channels)
    """

    def build(b: Builder, *args: Value) -> None:
        x, x_row, x_pixel, width, weights, bias, scale, zero_point, y, y_pixel, channels = args
        taps = [[load(b, offset(b, weights, 64 * (4 * j + v)), W16) for v in range(4)] for j in range(3)]
        first = [load(b, offset(b, bias, 64 * v), W16) for v in range(4)]
        scales = [load(b, offset(b, scale, 64 * v), F16) for v in range(4)]
        zero = lanes.halves_of(b, zero_point)
        nothing = lanes.zeros(B64)

        def column(at: Value) -> Vectors:
            rows = [load(b, offset(b, at, *[x_row] * i), B64) for i in range(3)]
            return lanes.interleave4(b, [*rows, nothing])

        def plus(acc: Vectors, codes: Vectors, j: int) -> Vectors:
            return [lanes.dot4(b, acc[v], codes[v], taps[j][v]) for v in range(4)]

        def put(acc: Vectors, i: Value) -> None:
            values = [lanes.rounded(b, a, s) for a, s in zip(acc, scales, strict=True)]
            emit.store_first(b, lanes.codes64(b, values, zero), offset(b, y, b.mul(i, y_pixel)), channels)

        def step1(i: Value, carried: Vectors) -> Vectors:
            codes = column(offset(b, x, b.mul(b.add(i, i64(2)), x_pixel)))
            put(plus(carried[:4], codes, 2), i)
            return plus(carried[4:], codes, 1) + plus(first, codes, 0)

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
        vectors = BLOCK // 16
        first = [load(b, offset(b, bias, 64 * v), W16) for v in range(vectors)]
        scales = [load(b, offset(b, scale, 64 * v), F16) for v in range(vectors)]
        block = vector(emit.I8, BLOCK)

        def pixel(i: Value, _: Vectors) -> Vectors:
            here = offset(b, x, b.mul(i, x_step))

            def four(g: Value, acc: Vectors) -> Vectors:
                at = offset(b, offsets, scaled(b, g, 32))
                away = [load(b, offset(b, at, 8 * j), I64, 8) for j in range(4)]
                rows = [load(b, offset(b, here, one), block) for one in away]
                return _plus_four(b, acc, rows, offset(b, weights, scaled(b, g, 4 * BLOCK)))

            acc = loop(b, groups, first, four)
            values = [lanes.rounded(b, a, s) for a, s in zip(acc, scales, strict=True)]
            if FORM.vnni:
                codes = lanes.codes64(b, values, lanes.halves_of(b, zero_point))
            else:
                codes = lanes.codes16(b, values[0], lanes.words_of(b, zero_point))
            emit.store_first(b, codes, offset(b, y, b.mul(i, y_pixel)), channels)
            return []

        loop(b, width, [], pixel)

    return emit.kernel(build, 12)  # type: ignore[no-any-return]


def _plus_four(b: Builder, acc: Vectors, rows: Vectors, weights: Value) -> Vectors:
    """Add four taps to the accumulators of one block; weights lie as [channels][4]."""
    if FORM.vnni:
        codes = lanes.interleave4(b, rows)
        return [lanes.dot4(b, acc[v], codes[v], load(b, offset(b, weights, 64 * v), W16)) for v in range(4)]
    together = load(b, weights, vector(emit.I8, 64))
    total = acc[0]
    for j, row in enumerate(rows):
        mine = emit.shuffle(b, together, together, range(j, 64, 4))
        total = b.add(total, b.mul(b.zext(row, W16), b.sext(mine, W16)))
    return [total]


ROW = _row()
ROW3, ROW3_STRIDE2 = (_row3(1), _row3(2)) if FORM.vnni else (ROW, ROW)

COLUMNWISE = FORM.vnni
"""Are there kernels for 3 x 3 filters that read each column once?"""


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
                source + at, stride_w * x_pixel, width, offsets, groups, weights + k * groups * 4 * BLOCK,
                bias + 4 * at, scale + 4 * at, zero_point, target + at, y_pixel, channels - at,
            )  # fmt: skip


if FORM.vnni:

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
        blocks = (channels + 63) // 64
        first, last = share(images * height, 1, thread, threads)
        for line in range(first, last):
            image, row = divmod(line, height)
            source = x + image * x_image + row * stride * x_row
            target = y + image * y_image + row * y_row
            for k in range(blocks):
                at = 64 * k
                if stride == 1:
                    ROW3(
                        source + at, x_row, x_pixel, width, weights + 768 * k, bias + 4 * at, scale + 4 * at,
                        zero_point, target + at, y_pixel, channels - at,
                    )  # fmt: skip
                else:
                    ROW3_STRIDE2(
                        source + at, x_row, x_pixel, width, weights + 768 * k, bias + 4 * at, scale + 4 * at,
                        zero_point, target + at, y_pixel, channels - at,
                    )  # fmt: skip
else:

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
        """Never planned in this form: `COLUMNWISE` is false."""
