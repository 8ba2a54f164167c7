"""Moving codes about: strided copies, fills, padding around images, pixels chosen by tables."""

from numba import njit

from zc.kernels import emit
from zc.kernels.convolution import share
from zc.kernels.elementwise import COPY
from zc.kernels.emit import B16, Builder, Value, byte_at, i64, load, offset, set_byte, word_at


def _transpose16(b: Builder, *args: Value) -> None:
    """(x, x_step, y, y_step): 16 rows of 16 bytes, turned. Four rounds of pairwise interleaving."""
    x, x_step, y, y_step = args
    rows = [load(b, offset(b, x, b.mul(i64(i), x_step)), B16) for i in range(16)]
    low, high = [k for i in range(8) for k in (i, 16 + i)], [k for i in range(8, 16) for k in (i, 16 + i)]
    for _ in range(4):
        rows = [emit.shuffle(b, rows[i], rows[i + 8], half) for i in range(8) for half in (low, high)]
    for i, row in enumerate(rows):
        emit.store(b, row, offset(b, y, b.mul(i64(i), y_step)))


TRANSPOSE16 = emit.kernel(_transpose16, 4)


@njit(nogil=True)
def transpose(x, x_step, y, y_step, rows, columns):  # type: ignore[no-untyped-def]
    """y[r, c] = x[c, r] for bytes: x has rows contiguous, x_step from one column to the next; y the other way round."""
    whole_rows, whole_columns = rows // 16 * 16, columns // 16 * 16
    for r in range(0, whole_rows, 16):
        for c in range(0, whole_columns, 16):
            TRANSPOSE16(x + c * x_step + r, x_step, y + r * y_step + c, y_step)
        for k in range(r, r + 16):
            for c in range(whole_columns, columns):
                set_byte(y + k * y_step + c, byte_at(x + c * x_step + k))
    for k in range(whole_rows, rows):
        for c in range(columns):
            set_byte(y + k * y_step + c, byte_at(x + c * x_step + k))


@njit(nogil=True)
def move(  # type: ignore[no-untyped-def]
    thread, threads, scratch, x, x0, x1, x2, x3, x_step, y, y0, y1, y2, y3, y_step, n0, n1, n2, n3, length, flip
):
    """Strided copy of bytes in five dimensions, the innermost `length` long; flip: xor each with it (128: sign)."""
    if flip == 0 and y_step == 1 and x3 == 1 and x_step != 1:
        first, last = share(n0 * n1 * n2, 1, thread, threads)
        start, stop = 0, n3
        if n0 * n1 * n2 < threads:
            first, last = 0, n0 * n1 * n2
            start, stop = share(n3, 16, thread, threads)
        for row in range(first, last):
            rest, k2 = divmod(row, n2)
            k0, k1 = divmod(rest, n1)
            source = x + k0 * x0 + k1 * x1 + k2 * x2 + start
            target = y + k0 * y0 + k1 * y1 + k2 * y2 + start * y3
            transpose(source, x_step, target, y3, stop - start, length)
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


@njit(nogil=True)
def set_bytes(start, count, value):  # type: ignore[no-untyped-def]
    """Fill with a code."""
    for i in range(count):
        set_byte(start + i, value)


@njit(nogil=True)
def fill(thread, threads, scratch, y, length, value):  # type: ignore[no-untyped-def]
    """Fill contiguous bytes with a code."""
    first, last = share(length, 64, thread, threads)
    set_bytes(y + first, last - first, value)


@njit(nogil=True)
def surround(thread, threads, scratch, y, y_image, y_row, images, height, before, after, left, inner, right, value):  # type: ignore[no-untyped-def]
    """Fill the padding of images with a code. y: address of the padding's first byte.

    before, after: bytes of the rows above and below; left, inner, right: bytes of a row of the image and its padding.
    """
    first, last = share(images, 1, thread, threads)
    for image in range(first, last):
        start = y + image * y_image
        set_bytes(start, before + left, value)
        for row in range(height - 1):
            set_bytes(start + before + row * y_row + left + inner, right + left, value)
        set_bytes(start + before + (height - 1) * y_row + left + inner, right + after, value)


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
