"""Codes that are computed at run time as the second factor of a product: turned into weights as the tiles read them."""

from numba import njit

from zc.kernels.convolution import BLOCK_VECTORS, WEIGHT_BYTES, share
from zc.kernels.emit import byte_at, int_at, set_half, set_int, word_at

SIGNS = 0x80808080 - (1 << 32)
"""Four sign bits: uint8 codes become int8, 128 lower."""


@njit(nogil=True)
def put(target, pitch, values, inside):  # type: ignore[no-untyped-def]
    """Four codes of one column, 128 lower, at their place in `packing.pack`'s order; pitch: bytes to the next two."""
    if WEIGHT_BYTES == 1:
        set_int(target, values)
        return
    for j in range(4):
        value = ((values >> (8 * j)) & 255) if j < inside else 0
        set_half(target + (j >> 1) * pitch + 2 * (j & 1), value - ((value & 128) << 1))


@njit(nogil=True)
def last_codes(source, count):  # type: ignore[no-untyped-def]
    """Fewer than four codes, 128 lower, the others 0."""
    word = 0
    for j in range(count):
        word |= (byte_at(source + j) ^ 128) << (8 * j)
    return word


@njit(nogil=True)
def pack_columns(  # type: ignore[no-untyped-def]
    thread, threads, scratch, x, x_column, length, columns, y, bias, k4, taps, most, order, zero_x, zero_z
):
    """Weights and biases of a matrix [length, columns] whose columns are contiguous, `x_column` bytes apart.

    sum (a - zero_x) (x - zero_z) = sum a (x - 128) + sum a (128 - zero_z) + a bias for each column. The second sum is
    over further taps that read the same codes: none if zero_z is 128, two if 128 - zero_z does not fit into int8.
    y: as `packing.pack` has [taps, k, columns] in blocks of `most` vectors; bias: int32[...], in its order; order:
    address of int64[16 * BLOCK_VECTORS], the channels of a full block.
    """
    wide = 16 * most
    more = (128 - zero_z) // max(taps - 1, 1)
    weight = (more & 255) * 0x01010101
    whole, left = length // 4, length % 4
    first, last = share(columns, wide, thread, threads)
    for start in range(first, last, wide):
        width = 16 * min(most, (columns - start + 15) // 16)
        step = 4 * width * WEIGHT_BYTES  # from four codes of all columns to the next four
        pitch = 2 * width * WEIGHT_BYTES
        block = y + start * taps * k4 * 4 * WEIGHT_BYTES
        for p in range(width):
            c = start + (word_at(order + 8 * p) if width == 16 * BLOCK_VECTORS and most > 1 else p)
            target = block + 4 * p
            source = x + c * x_column
            total = 0
            if c < columns:
                for i in range(length):
                    total += byte_at(source + i)
                for i in range(whole):
                    put(target + i * step, pitch, int_at(source + 4 * i) ^ SIGNS, 4)
                if left != 0:
                    put(target + whole * step, pitch, last_codes(source + 4 * whole, left), left)
            else:
                for i in range(k4):
                    put(target + i * step, pitch, 0, 4)
            for t in range(1, taps):
                here = target + t * k4 * step
                for i in range(whole):
                    put(here + i * step, pitch, weight, 4)
                if left != 0:
                    put(here + whole * step, pitch, weight & ((1 << (8 * left)) - 1), left)
            set_int(bias + 4 * (start + p), zero_x * (length * zero_z - total))
