"""Convolutions and matrix products on codes: tiles over the output pixels and channels of one thread's share."""

from numba import njit

from zc.kernels.cpu import FORM
from zc.kernels.emit import set_word, word_at
from zc.kernels.tiles import tile

BLOCK_VECTORS = 4 if FORM.vnni else 1
"""Vectors of 16 channels in a full block of weights."""

WEIGHT_BYTES = 1 if FORM.vnni else 2

MOST_PIXELS = 2048
"""Pixels of a chunk, whose addresses are tabled once for all blocks of channels."""

SPARE = 16
"""Places behind a table: the last tile may be wider than what is left."""

OUTPUTS = 8 * (MOST_PIXELS + SPARE)
"""Where the table of outputs begins."""

SCRATCH_BYTES = 2 * OUTPUTS

ROWS = 6 if FORM.vnni else 4
"""Output pixels of a full block's tile: as many as the registers hold."""

REAL = tile(ROWS, 1, "real")
FULL, FULL_ONE = tile(ROWS, BLOCK_VECTORS), tile(1, BLOCK_VECTORS)

if FORM.vnni:
    THREE, TWO, ONE = tile(8, 3), tile(12, 2), tile(12, 1)

    @njit(nogil=True)
    def run_tiles(vectors, pixels, table, shift, offsets, taps, k4, weights, bias, scale, zero_point, columns):  # type: ignore[no-untyped-def]
        """One block of channels for all pixels of the table."""
        outputs = table + OUTPUTS
        if vectors == 4 and pixels == 1:
            FULL_ONE(table, outputs, shift, offsets, taps, k4, weights, bias, scale, zero_point, columns)
        elif vectors == 4:
            for m in range(0, 8 * pixels, 8 * 6):
                FULL(table + m, outputs + m, shift, offsets, taps, k4, weights, bias, scale, zero_point, columns)
        elif vectors == 3:
            for m in range(0, 8 * pixels, 8 * 8):
                THREE(table + m, outputs + m, shift, offsets, taps, k4, weights, bias, scale, zero_point, columns)
        elif vectors == 2:
            for m in range(0, 8 * pixels, 8 * 12):
                TWO(table + m, outputs + m, shift, offsets, taps, k4, weights, bias, scale, zero_point, columns)
        else:
            for m in range(0, 8 * pixels, 8 * 12):
                ONE(table + m, outputs + m, shift, offsets, taps, k4, weights, bias, scale, zero_point, columns)
else:

    @njit(nogil=True)
    def run_tiles(vectors, pixels, table, shift, offsets, taps, k4, weights, bias, scale, zero_point, columns):  # type: ignore[no-untyped-def]
        """One block of channels for all pixels of the table."""
        outputs = table + OUTPUTS
        if pixels == 1:
            FULL_ONE(table, outputs, shift, offsets, taps, k4, weights, bias, scale, zero_point, columns)
            return
        for m in range(0, 8 * pixels, 8 * ROWS):
            FULL(table + m, outputs + m, shift, offsets, taps, k4, weights, bias, scale, zero_point, columns)


@njit(nogil=True)
def share(count, unit, thread, threads):  # type: ignore[no-untyped-def]
    """The part (from, to) of `count` things that a thread takes, in steps of `unit`."""
    units = (count + unit - 1) // unit
    return min(units * thread // threads * unit, count), min(units * (thread + 1) // threads * unit, count)


@njit(nogil=True)
def fill_table(table, first, pixels, x, x_image, x_row, x_pixel, height, width, y, y_image, y_row, y_pixel):  # type: ignore[no-untyped-def]
    """Table the addresses of output pixels `first`.. in reading order, and repeat the last one behind them."""
    image, rest = divmod(first, height * width)
    row, column = divmod(rest, width)
    source = x + image * x_image + row * x_row + column * x_pixel
    target = y + image * y_image + row * y_row + column * y_pixel
    at = table
    for _ in range(pixels):
        set_word(at, source)
        set_word(at + OUTPUTS, target)
        at += 8
        column += 1
        source += x_pixel
        target += y_pixel
        if column == width:
            column = 0
            row += 1
            if row == height:
                row = 0
                image += 1
            source = x + image * x_image + row * x_row
            target = y + image * y_image + row * y_row
    for spare in range(SPARE):
        set_word(at + 8 * spare, word_at(at - 8))
        set_word(at + 8 * spare + OUTPUTS, word_at(at + OUTPUTS - 8))


@njit(nogil=True)
def convolve(  # type: ignore[no-untyped-def]
    thread,
    threads,
    scratch,
    x,
    x_image,
    x_row,
    x_pixel,
    x_group,
    y,
    y_image,
    y_row,
    y_pixel,
    y_group,
    images,
    height,
    width,
    groups,
    columns,
    offsets,
    taps,
    k4,
    weights,
    bias,
    scale,
    zero_point,
    chunk,
    by_columns,
    real,
):
    """Convolution or matrix product: codes, or float32 accumulator * scale if `real`. The rule: `rules.requantize`.

    Strides are bytes: x_row, x_pixel from one OUTPUT pixel to the next, *_group from one group of channels to the next.
    columns: output channels of a group. Weights, bias and scale as `packing.pack` makes them, group after group.
    chunk: pixels whose addresses are tabled at once; by_columns: threads share out the channels, not the pixels.
    """
    vectors = (columns + 15) // 16
    most = 1 if real else BLOCK_VECTORS
    blocks = (vectors + most - 1) // most
    vector_bytes = taps * k4 * 64 * WEIGHT_BYTES
    pixels = images * height * width
    first_block, last_block = 0, blocks
    first, last = 0, pixels
    if by_columns:
        first_block, last_block = share(blocks, 1, thread, threads)
    else:
        first, last = share(pixels, 1 if pixels < 4 * ROWS else ROWS, thread, threads)
    for start in range(first, last, chunk):
        count = min(chunk, last - start)
        for g in range(groups):
            fill_table(
                scratch, start, count, x + g * x_group, x_image, x_row, x_pixel, height, width,
                y + g * y_group, y_image, y_row, y_pixel,
            )  # fmt: skip
            for n in range(first_block, last_block):
                wide = min(most, vectors - n * most)
                at = g * vectors + n * most
                here = weights + at * vector_bytes
                left = columns - 16 * most * n
                if real:
                    for m in range(0, 8 * count, 8 * ROWS):
                        REAL(
                            scratch + m, scratch + OUTPUTS + m, 64 * n, offsets, taps, k4, here,
                            bias + 64 * at, scale + 64 * at, zero_point, left,
                        )  # fmt: skip
                else:
                    run_tiles(
                        wide, count, scratch, 16 * most * n, offsets, taps, k4, here,
                        bias + 64 * at, scale + 64 * at, zero_point, left,
                    )  # fmt: skip
