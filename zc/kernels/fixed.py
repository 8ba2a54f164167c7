"""Operators on codes in fixed point, as TFLite's reference kernels compute them: `tflite_rules.py` says what.

They serve to compare, not to be fast: plain loops, but for the sums of products, which the tiles compute.
"""

from numba import njit

from zc.kernels.convolution import OUTPUTS, ROWS, SPARE, WEIGHT_BYTES, WIDE, bring, move_table, share
from zc.kernels.elementwise import part, place
from zc.kernels.emit import byte_at, float_at, float_of, int_at, set_byte, set_word, word_at
from zc.kernels.tiles import tile

SUMS = tile(ROWS, 1, "sums")

CHUNK = 960
"""Pixels whose addresses are tabled at once: a multiple of every tile's rows."""

SUM_TABLE = 8 * (CHUNK + SPARE)
"""Where in the scratch the addresses of a tile's rows of sums begin; the rows themselves lie behind."""

SUM_ROWS = SUM_TABLE + 8 * SPARE

LIMIT, HALF = 0x4E800000, 0x3F000000
"""Bits of the float32 2**30 and 0.5."""


@njit(nogil=True)
def high_mul(a, b):  # type: ignore[no-untyped-def]
    """`fixedpoint.high_mul`."""
    product = a * b
    total = product + ((1 << 30) if product >= 0 else 1 - (1 << 30))
    return min((total + ((total >> 63) & ((1 << 31) - 1))) >> 31, (1 << 31) - 1)


@njit(nogil=True)
def divide_by_power(x, exponent):  # type: ignore[no-untyped-def]
    """`fixedpoint.divide_by_power`."""
    mask = (1 << exponent) - 1
    return (x >> exponent) + (1 if (x & mask) > (mask >> 1) + (1 if x < 0 else 0) else 0)


@njit(nogil=True)
def times(x, significand, shift, double):  # type: ignore[no-untyped-def]
    """`fixedpoint.times`; double: round twice."""
    if double:
        return divide_by_power(high_mul(x << max(shift, 0), significand), max(-shift, 0))
    return (x * significand + (1 << (30 - shift))) >> (31 - shift)


@njit(nogil=True)
def code(value, zero_point):  # type: ignore[no-untyped-def]
    """A rounded value as a code."""
    return min(max(value + zero_point, 0), 255)


@njit(nogil=True)
def convolve(  # type: ignore[no-untyped-def]
    thread, threads, scratch, x, x_image, x_row, x_pixel, x_group, y, y_image, y_row, y_pixel, y_group,
    images, height, width, groups, columns, offsets, taps, k4, weights, bias, significands, shifts, zero_point, double,
    room,
):  # fmt: skip
    """Convolution or matrix product, `tflite_rules.requantize`. Operands as of `convolution.convolve`.

    Weights and bias in blocks of 16 channels; significands, shifts: addresses of int64[groups * columns].
    """
    vectors = (columns + 15) // 16
    near = offsets if WEIGHT_BYTES == 1 else scratch + WIDE
    vector_bytes = taps * k4 * 64 * WEIGHT_BYTES
    for row in range(ROWS):
        set_word(scratch + SUM_TABLE + 8 * row, scratch + SUM_ROWS + 64 * row)
    first, last = share(images * height * width, ROWS, thread, threads)
    start = first
    while start < last:
        count = bring(
            scratch, start, min(CHUNK, last - start), x, x_image, x_row, x_pixel, height, width,
            y, y_image, y_row, y_pixel, offsets, taps, (groups - 1) * x_group + 4 * k4, room,
        )  # fmt: skip
        start += count
        for g in range(groups):
            if g != 0:
                move_table(scratch, count, x_group * WEIGHT_BYTES, y_group)
            for n in range(vectors):
                at = g * vectors + n
                left = min(columns - 16 * n, 16)
                channel = 8 * (g * columns + 16 * n)
                for m in range(0, count, ROWS):
                    SUMS(
                        scratch + 8 * m, scratch + SUM_TABLE, 0, near, taps, k4, weights + at * vector_bytes,
                        bias + 64 * at, 0, 0, left,
                    )  # fmt: skip
                    for row in range(min(ROWS, count - m)):
                        sums = scratch + SUM_ROWS + 64 * row
                        target = word_at(scratch + 8 * (m + row) + OUTPUTS) + 16 * n
                        for c in range(left):
                            significand, shift = (
                                word_at(significands + channel + 8 * c),
                                word_at(shifts + channel + 8 * c),
                            )
                            set_byte(
                                target + c, code(times(int_at(sums + 4 * c), significand, shift, double), zero_point)
                            )


@njit(nogil=True)
def add(  # type: ignore[no-untyped-def]
    thread, threads, scratch, x, x0, x1, x2, z, z0, z1, z2, y, y0, y1, y2, n0, n1, n2, length,
    table_x, table_z, significand, shift, zero_point, double,
):  # fmt: skip
    """`tflite_rules.add`. table_x, table_z: addresses of int32[256], what the codes of each input stand for."""
    first, last, start, stop = part(n0 * n1 * n2, length, thread, threads)
    for row in range(first, last):
        source, other = x + place(row, n1, n2, x0, x1, x2), z + place(row, n1, n2, z0, z1, z2)
        target = y + place(row, n1, n2, y0, y1, y2)
        for i in range(start, stop):
            total = int_at(table_x + 4 * byte_at(source + i)) + int_at(table_z + 4 * byte_at(other + i))
            set_byte(target + i, code(times(total, significand, shift, double), zero_point))


@njit(nogil=True)
def multiply(  # type: ignore[no-untyped-def]
    thread, threads, scratch, x, x0, x1, x2, z, z0, z1, z2, y, y0, y1, y2, n0, n1, n2, length,
    zero_x, zero_z, significand, shift, zero_point, double,
):  # fmt: skip
    """`tflite_rules.multiply`."""
    first, last, start, stop = part(n0 * n1 * n2, length, thread, threads)
    for row in range(first, last):
        source, other = x + place(row, n1, n2, x0, x1, x2), z + place(row, n1, n2, z0, z1, z2)
        target = y + place(row, n1, n2, y0, y1, y2)
        for i in range(start, stop):
            product = (byte_at(source + i) - zero_x) * (byte_at(other + i) - zero_z)
            set_byte(target + i, code(times(product, significand, shift, double), zero_point))


@njit(nogil=True)
def quantize(  # type: ignore[no-untyped-def]
    thread, threads, scratch, x, x0, x1, x2, y, y0, y1, y2, y_step, n0, n1, n2, length, scale, zero_point
):
    """`tflite_rules.quantize`. Operands as of `elementwise.quantize`."""
    first, last, start, stop = part(n0 * n1 * n2, length, thread, threads)
    divisor = float_of(scale)
    limit, half, none = float_of(LIMIT), float_of(HALF), float_of(0)
    for row in range(first, last):
        source, target = x + place(row, n1, n2, x0, x1, x2), y + place(row, n1, n2, y0, y1, y2)
        for i in range(start, stop):
            value = float_at(source + 4 * i) / divisor
            value = min(max(value, -limit), limit) if value == value else -limit  # noqa: PLR0124
            whole = int(value)
            rest = value - whole
            whole += 1 if rest >= half else (-1 if rest <= none - half else 0)
            set_byte(target + i * y_step, code(whole, zero_point))


@njit(nogil=True)
def average(  # type: ignore[no-untyped-def]
    thread, threads, scratch, x, x_image, x_row, x_pixel, x_height, x_width, y, y_image, y_row, y_pixel,
    images, height, width, channels, kernel_h, kernel_w, stride_h, stride_w, top, left, bottom, right,
    counts_pad, zero_x,
):  # fmt: skip
    """`tflite_rules.average_window` over windows cut at the image's border; counts_pad: the padding holds zero_x."""
    first, last = share(images * height, 1, thread, threads)
    for line in range(first, last):
        image, row = divmod(line, height)
        h = row * stride_h - top
        from_h, to_h = max(h, 0), min(h + kernel_h, x_height)
        for column in range(width):
            w = column * stride_w - left
            from_w, to_w = max(w, 0), min(w + kernel_w, x_width)
            inside = (to_h - from_h) * (to_w - from_w)
            count = inside
            if counts_pad != 0:
                count = (min(h + kernel_h, x_height + bottom) - h) * (min(w + kernel_w, x_width + right) - w)
            target = y + image * y_image + row * y_row + column * y_pixel
            for c in range(channels):
                total = (count - inside) * (zero_x - 128)
                for i in range(from_h, to_h):
                    at = x + image * x_image + i * x_row + c
                    for j in range(from_w, to_w):
                        total += byte_at(at + j * x_pixel) - 128
                mean = (total + count // 2) // count if total > 0 else -((count // 2 - total) // count)
                set_byte(target + c, code(mean, 128))


@njit(nogil=True)
def mean(  # type: ignore[no-untyped-def]
    thread, threads, scratch, x, x_image, x_row, x_pixel, x_height, x_width, y, y_image, images, channels,
    start, significand, shift, zero_point, double,
):  # fmt: skip
    """`tflite_rules.mean`. start: -(positions) * zero point."""
    first, last = share(images * channels, 1, thread, threads)
    for one in range(first, last):
        image, c = divmod(one, channels)
        total = start
        for i in range(x_height):
            for j in range(x_width):
                total += byte_at(x + image * x_image + i * x_row + j * x_pixel + c)
        set_byte(y + image * y_image + c, code(times(total, significand, shift, double), zero_point))


@njit(nogil=True)
def reciprocal(x):  # type: ignore[no-untyped-def]
    """`fixedpoint.reciprocal`."""
    half = (x + (1 << 31)) >> 1
    found = 1515870810 + high_mul(half, -1010580540)
    for _ in range(3):
        found += min(max(high_mul(found, (1 << 29) - high_mul(half, found)) << 2, -(1 << 31)), (1 << 31) - 1)
    return min(found << 1, (1 << 31) - 1)


@njit(nogil=True)
def softmax(thread, threads, scratch, x, x_row, y, y_row, rows, length, terms, addends):  # type: ignore[no-untyped-def]
    """`tflite_rules.softmax` over contiguous rows. terms, addends: addresses of int32[256]."""
    first, last = share(rows, 1, thread, threads)
    for row in range(first, last):
        source, target = x + row * x_row, y + row * y_row
        largest, total, headroom = 0, 0, 0
        for i in range(length):
            largest = max(largest, byte_at(source + i))
        for i in range(length):
            total += int_at(addends + 4 * (largest - byte_at(source + i)))
        while total << headroom < 1 << 31:
            headroom += 1
        scale = reciprocal((total << headroom) - (1 << 31))
        for i in range(length):
            term = int_at(terms + 4 * (largest - byte_at(source + i)))
            set_byte(target + i, code(divide_by_power(high_mul(scale, term), 12 - headroom + 31 - 8), 0))
