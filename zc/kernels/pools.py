"""Pools and softmax on codes."""

from collections.abc import Sequence

from numba import njit

from zc.kernels import emit, lanes
from zc.kernels.convolution import share
from zc.kernels.cpu import FORM
from zc.kernels.emit import (
    B16,
    F16,
    I32,
    I64,
    W16,
    Builder,
    Value,
    byte_at,
    float_at,
    float_of,
    i64,
    load,
    loop,
    offset,
    round_even,
    scaled,
    set_byte,
    vector,
)

WIDE = 64 if FORM.vnni else 16
"""Channels of a block of the maximum."""


def _largest(b: Builder, *args: Value) -> None:
    """(x, rows, x_row, columns, x_pixel, y, channels): the maximum over a window, one block of channels."""
    x, rows, x_row, columns, x_pixel, y, channels = args
    kind = vector(emit.I8, WIDE)

    def row(i: Value, best: Sequence[Value]) -> list[Value]:
        start = offset(b, x, b.mul(i, x_row))

        def column(j: Value, found: Sequence[Value]) -> list[Value]:
            codes = load(b, offset(b, start, b.mul(j, x_pixel)), kind)
            return [emit.call(b, f"llvm.umax.v{WIDE}i8", kind, found[0], codes)]

        return loop(b, columns, best, column)

    emit.store_first(b, loop(b, rows, [lanes.zeros(kind)], row)[0], y, channels)


def _average(b: Builder, *args: Value) -> None:
    """(x, rows, x_row, columns, x_pixel, y, channels, x_scale, zero_x, count, y_scale, zero_y, base): of a window."""
    x, rows, x_row, columns, x_pixel, y, channels, x_scale, zero_x, count, y_scale, zero_y, base = args
    factor, nought = lanes.real_of(b, x_scale), lanes.words_of(b, zero_x)

    def row(i: Value, best: Sequence[Value]) -> list[Value]:
        start = offset(b, x, b.mul(i, x_row))

        def column(j: Value, total: Sequence[Value]) -> list[Value]:
            codes = b.zext(load(b, offset(b, start, b.mul(j, x_pixel)), B16), W16)
            return [b.fadd(total[0], b.fmul(b.sitofp(b.sub(codes, nought), F16), factor))]

        return loop(b, columns, best, column)

    (total,) = loop(b, rows, [emit.same(F16, 0.0)], row)
    mean = b.fdiv(total, b.sitofp(lanes.words_of(b, count), F16))
    before = b.sitofp(lanes.words_of(b, b.sub(zero_y, base)), F16)
    values = lanes.to_int(b, b.fadd(b.fdiv(mean, lanes.real_of(b, y_scale)), before))
    emit.store_first(b, lanes.codes16(b, values, lanes.zero16_of(b, base)), y, channels)


def _global(b: Builder, *args: Value) -> None:
    """(x, rows, x_row, columns, x_pixel, y, channels, start, scale, zero_y): the mean of a whole image."""
    x, rows, x_row, columns, x_pixel, y, channels, start, scale, zero_y = args

    def row(i: Value, best: Sequence[Value]) -> list[Value]:
        begin = offset(b, x, b.mul(i, x_row))

        def column(j: Value, total: Sequence[Value]) -> list[Value]:
            return [b.add(total[0], b.zext(load(b, offset(b, begin, b.mul(j, x_pixel)), B16), W16))]

        return loop(b, columns, best, column)

    (total,) = loop(b, rows, [lanes.words_of(b, start)], row)
    values = lanes.rounded(b, total, lanes.real_of(b, scale))
    emit.store_first(b, lanes.codes16(b, values, lanes.zero16_of(b, zero_y)), y, channels)


def _sum(b: Builder, *args: Value) -> None:
    """(x, count, y): the sum of contiguous codes, as int32."""
    x, count, y = args
    kind = vector(I64, 8) if FORM.vnni else W16

    def plus(total: Value, codes: Value) -> Value:
        if FORM.vnni:
            codes = emit.call(b, "llvm.x86.avx512.psad.bw.512", kind, codes, lanes.zeros(lanes.CODES))
        else:
            codes = b.zext(codes, kind)
        return b.add(total, codes)

    def some(i: Value, total: Sequence[Value]) -> list[Value]:
        return [plus(total[0], load(b, offset(b, x, scaled(b, i, lanes.CODES.count)), lanes.CODES))]

    whole = b.sdiv(count, i64(lanes.CODES.count))
    (total,) = loop(b, whole, [lanes.zeros(kind)], some)
    at = scaled(b, whole, lanes.CODES.count)
    left = emit.load_first(b, offset(b, x, at), lanes.CODES, b.sub(count, at), lanes.zeros(lanes.CODES))
    name = f"llvm.vector.reduce.add.v{kind.count}i{kind.element.width}"
    found = emit.call(b, name, kind.element, plus(total, left))
    emit.store(b, b.trunc(found, I32) if FORM.vnni else found, y)


def _means(b: Builder, *args: Value) -> None:
    """(sums, start, scale, zero_y, y, channels): 16 sums of int32, plus `start`, to codes."""
    sums, start, scale, zero_y, y, channels = args
    total = b.add(load(b, sums, W16), lanes.words_of(b, start))
    values = lanes.rounded(b, total, lanes.real_of(b, scale))
    emit.store_first(b, lanes.codes16(b, values, lanes.zero16_of(b, zero_y)), y, channels)


SUM, MEANS = emit.kernel(_sum, 3), emit.kernel(_means, 6)
LARGEST, AVERAGE, GLOBAL = emit.kernel(_largest, 7), emit.kernel(_average, 13), emit.kernel(_global, 10)


@njit(nogil=True)
def pool(  # type: ignore[no-untyped-def]
    thread, threads, scratch, x, x_image, x_row, x_pixel, x_height, x_width, y, y_image, y_row, y_pixel,
    images, height, width, channels, kernel_h, kernel_w, stride_h, stride_w, top, left, dilation_h, dilation_w,
    average, counts_pad, bottom, right, x_scale, zero_x, y_scale, zero_y, base,
):  # fmt: skip
    """Maximum, or `rules.average_window`, over windows cut at the image's border.

    counts_pad: divide by the positions inside the image and its padding, not by those inside the image alone.
    """
    first, last = share(images * height, 1, thread, threads)
    for line in range(first, last):
        image, row = divmod(line, height)
        at_h = row * stride_h - top
        skip_h = (max(-at_h, 0) + dilation_h - 1) // dilation_h
        rows = min(kernel_h, (x_height - at_h + dilation_h - 1) // dilation_h) - skip_h
        padded_h = min(at_h + kernel_h, x_height + bottom) - at_h
        for column in range(width):
            at_w = column * stride_w - left
            skip_w = (max(-at_w, 0) + dilation_w - 1) // dilation_w
            columns = min(kernel_w, (x_width - at_w + dilation_w - 1) // dilation_w) - skip_w
            start = x + image * x_image + (at_h + skip_h * dilation_h) * x_row + (at_w + skip_w * dilation_w) * x_pixel
            target = y + image * y_image + row * y_row + column * y_pixel
            if average == 0:
                for c in range(0, channels, WIDE):
                    LARGEST(
                        start + c, rows, dilation_h * x_row, columns, dilation_w * x_pixel, target + c, channels - c
                    )
            else:
                padded_w = min(at_w + kernel_w, x_width + right) - at_w
                count = padded_h * padded_w if counts_pad != 0 else rows * columns
                for c in range(0, channels, 16):
                    AVERAGE(
                        start + c, rows, x_row, columns, x_pixel, target + c, channels - c,
                        x_scale, zero_x, count, y_scale, zero_y, base,
                    )  # fmt: skip


@njit(nogil=True)
def global_average(  # type: ignore[no-untyped-def]
    thread, threads, scratch, x, x_image, x_row, x_pixel, x_height, x_width, y, y_image, images, channels,
    start, scale, zero_y,
):  # fmt: skip
    """`rules.global_average`. start: -(positions) * zero point; scale: bits of `rules.average_scale`."""
    vectors = (channels + 15) // 16
    first, last = share(images * vectors, 1, thread, threads)
    for one in range(first, last):
        image, k = divmod(one, vectors)
        c = 16 * k
        GLOBAL(
            x + image * x_image + c, x_height, x_row, x_width, x_pixel, y + image * y_image + c, channels - c,
            start, scale, zero_y,
        )  # fmt: skip


@njit(nogil=True)
def average_planes(  # type: ignore[no-untyped-def]
    thread, threads, scratch, x, x_image, x_plane, y, y_image, images, channels, count, start, scale, zero_y
):
    """`global_average` of planes: the `count` pixels of a channel are contiguous."""
    vectors = (channels + 15) // 16
    first, last = share(images * vectors, 1, thread, threads)
    for one in range(first, last):
        image, k = divmod(one, vectors)
        c = 16 * k
        for i in range(min(16, channels - c)):
            SUM(x + image * x_image + (c + i) * x_plane, count, scratch + 4 * i)
        MEANS(scratch, start, scale, zero_y, y + image * y_image + c, channels - c)


@njit(nogil=True)
def softmax(thread, threads, scratch, x, x_row, y, y_row, rows, length, table, levels, zero_y):  # type: ignore[no-untyped-def]
    """`rules.softmax` over contiguous rows. table: address of float32[256]; levels: bits of `rules.softmax_levels`."""
    first, last = share(rows, 1, thread, threads)
    factor = float_of(levels)
    for row in range(first, last):
        source, target = x + row * x_row, y + row * y_row
        largest = 0
        for i in range(length):
            largest = max(largest, byte_at(source + i))
        shifted = table + 4 * (255 - largest)
        total = float_of(0)
        for i in range(length):
            total += float_at(shifted + 4 * byte_at(source + i))
        for i in range(length):
            value = round_even(factor * (float_at(shifted + 4 * byte_at(source + i)) / total)) + zero_y
            set_byte(target + i, min(max(value, 0), 255))
