"""Linear interpolation of images on codes."""

from numba import njit

from zc.kernels import emit, lanes
from zc.kernels.convolution import share
from zc.kernels.emit import B16, W16, Builder, Value, int_at, load_first, offset, word_at


def _blend(b: Builder, *args: Value) -> None:
    """(four pixels, y, channels, by_left, by_right, by_upper, by_lower, x_scale, zero_x, y_scale, zero_y).

    Pixels: addresses, in reading order.
    """
    *pixels, y, channels, by_left, by_right, by_upper, by_lower, x_scale, zero_x, y_scale, zero_y = args
    across, down = (
        (lanes.real_of(b, by_left), lanes.real_of(b, by_right)),
        (lanes.real_of(b, by_upper), lanes.real_of(b, by_lower)),
    )
    weights = [b.fmul(horizontal, vertical) for vertical in down for horizontal in across]
    factor, divisor, nought = lanes.real_of(b, x_scale), lanes.real_of(b, y_scale), lanes.words_of(b, zero_x)
    zero = lanes.zero16_of(b, zero_y)

    def body(at: Value, left: Value | None) -> None:
        total = None
        for pixel, weight in zip(pixels, weights, strict=True):
            codes = b.sub(b.zext(load_first(b, offset(b, pixel, at), B16, left), W16), nought)
            part = b.fmul(weight, b.fmul(b.sitofp(codes, emit.F16), factor))
            total = part if total is None else b.fadd(total, part)
        values = lanes.to_int(b, b.fdiv(total, divisor))
        emit.store_first(b, lanes.codes16(b, values, zero), offset(b, y, at), left)

    emit.in_steps(b, channels, 16, body)


BLEND = emit.kernel(_blend, 14)


@njit(nogil=True)
def interpolate(  # type: ignore[no-untyped-def]
    thread, threads, scratch, x, x_image, y, y_image, y_row, y_pixel, images, height, width, channels,
    rows, columns, by_rows, by_columns, x_scale, zero_x, y_scale, zero_y,
):  # fmt: skip
    """`rules.interpolate` of images whose channels are contiguous.

    rows, columns: addresses of int64[height, 2], int64[width, 2]: byte distances of both source rows (columns) of
    each output row (column); by_rows, by_columns: of float32 of those shapes, their weights.
    """
    first, last = share(images * height, 1, thread, threads)
    for line in range(first, last):
        image, row = divmod(line, height)
        upper, lower = (
            x + image * x_image + word_at(rows + 16 * row),
            x + image * x_image + word_at(rows + 16 * row + 8),
        )
        by_upper, by_lower = int_at(by_rows + 8 * row), int_at(by_rows + 8 * row + 4)
        target = y + image * y_image + row * y_row
        for column in range(width):
            left, right = word_at(columns + 16 * column), word_at(columns + 16 * column + 8)
            BLEND(
                upper + left, upper + right, lower + left, lower + right, target + column * y_pixel, channels,
                int_at(by_columns + 8 * column), int_at(by_columns + 8 * column + 4), by_upper, by_lower,
                x_scale, zero_x, y_scale, zero_y,
            )  # fmt: skip
