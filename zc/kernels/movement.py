"""Moving codes about: strided copies, fills, padding around images, pixels chosen by tables."""

from numba import njit

from zc.kernels import emit, lanes, turning
from zc.kernels.convolution import share
from zc.kernels.elementwise import COPY
from zc.kernels.emit import I8, Builder, Value, byte_at, offset, set_byte, word_at


@njit(nogil=True)
def move(  # type: ignore[no-untyped-def]
    thread, threads, scratch, x, x0, x1, x2, x3, x_step, y, y0, y1, y2, y3, y_step, n0, n1, n2, n3, length, flip
):
    """Strided copy of bytes in five dimensions, the innermost `length` long; flip: xor each with it (128: sign)."""
    if flip == 0 and y_step == 1 and x3 == 1 and x_step != 1:
        together = n2 if x2 == n3 else 1  # rows of pixels that follow each other are turned as one
        lines, rows = n0 * n1 * (n2 // together), together * n3
        jump = y2 - n3 * y3 if together > 1 else 0
        first, last = share(lines, 1, thread, threads)
        start, stop = 0, rows
        if lines < threads:
            first, last = 0, lines
            start, stop = share(rows, turning.BLOCK, thread, threads)
        for line in range(first, last):
            rest, k2 = divmod(line, n2 // together)
            k0, k1 = divmod(rest, n1)
            source = x + k0 * x0 + k1 * x1 + k2 * x2 + start
            target = y + k0 * y0 + k1 * y1 + k2 * y2 + start * y3 + start // n3 * jump
            turning.turn(source, x_step, length, target, y3, start, stop - start, n3, jump)
        return
    first, last = share(n0 * n1 * n2 * n3, 1, thread, threads)
    for row in range(first, last):
        rest, k3 = divmod(row, n3)
        rest, k2 = divmod(rest, n2)
        k0, k1 = divmod(rest, n1)
        source = x + k0 * x0 + k1 * x1 + k2 * x2 + k3 * x3
        target = y + k0 * y0 + k1 * y1 + k2 * y2 + k3 * y3
        if x_step == 1 and y_step == 1 and flip == 0:
            COPY(source, target, length)
        else:
            for i in range(length):
                set_byte(target + i * y_step, byte_at(source + i * x_step) ^ flip)


def _set_bytes(b: Builder, *args: Value) -> None:
    """(start, count, value): fill with a code."""
    start, count, value = args
    codes = emit.splat(b, b.trunc(value, I8), lanes.CODES.count)

    def body(at: Value, left: Value | None) -> None:
        emit.store_first(b, codes, offset(b, start, at), left)

    emit.in_steps(b, count, lanes.CODES.count, body)


SET_BYTES = emit.kernel(_set_bytes, 3)


@njit(nogil=True)
def fill(thread, threads, scratch, y, length, value):  # type: ignore[no-untyped-def]
    """Fill contiguous bytes with a code."""
    first, last = share(length, 64, thread, threads)
    SET_BYTES(y + first, last - first, value)


@njit(nogil=True)
def surround(thread, threads, scratch, y, y_image, y_row, images, height, before, after, left, inner, right, value):  # type: ignore[no-untyped-def]
    """Fill the padding of images with a code. y: address of the padding's first byte.

    before, after: bytes of the rows above and below; left, inner, right: bytes of a row of the image and its padding.
    """
    first, last = share(images, 1, thread, threads)
    for image in range(first, last):
        start = y + image * y_image
        SET_BYTES(start, before + left, value)
        for row in range(height - 1):
            SET_BYTES(start + before + row * y_row + left + inner, right + left, value)
        SET_BYTES(start + before + (height - 1) * y_row + left + inner, right + after, value)


@njit(nogil=True)
def choose_pixels(  # type: ignore[no-untyped-def]
    thread, threads, scratch, x, x_image, y, y_image, y_row, y_pixel, images, height, width, channels, rows, columns
):
    """Resize without interpolation. rows, columns: int64 byte distances of each output row's and column's source."""
    first, last = share(images * height, 1, thread, threads)
    for line in range(first, last):
        image, row = divmod(line, height)
        source = x + image * x_image + word_at(rows + 8 * row)
        target = y + image * y_image + row * y_row
        for column in range(width):
            COPY(source + word_at(columns + 8 * column), target + column * y_pixel, channels)
