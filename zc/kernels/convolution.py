"""Convolutions and matrix products on codes: tiles over the output pixels and channels of one thread's share."""

from numba import njit

from zc.kernels.cpu import FORM
from zc.kernels.emit import set_word, word_at
from zc.kernels.tiles import WIDEN, narrow_tile, tile

BLOCK_VECTORS = 4 if FORM.vnni else 1
"""Vectors of 16 channels in a full block of weights."""

WEIGHT_BYTES = 1 if FORM.vnni else 2
"""Of one weight, and of one code beside it."""

MOST_PIXELS = 2048
"""Pixels of a chunk, whose addresses are tabled once for all blocks of channels."""

SPARE = 16
"""Places behind a table: the last tile may be wider than what is left."""

OUTPUTS = 8 * (MOST_PIXELS + SPARE)
"""Where the table of outputs begins."""

WIDE = 2 * OUTPUTS
"""Where the codes of a chunk begin as 16 bits, in the form that multiplies these."""

SCRATCH_BYTES = WIDE
"""Of scratch; `room` more where codes become 16 bits."""

ROWS = 6
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
    NARROW = narrow_tile(2 * ROWS)

    @njit(nogil=True)
    def run_tiles(vectors, pixels, table, shift, offsets, taps, k4, weights, bias, scale, zero_point, columns):  # type: ignore[no-untyped-def]
        """One block of channels for all pixels of the table."""
        outputs = table + OUTPUTS
        if columns <= 8 and pixels > 1:
            for m in range(0, 8 * pixels, 8 * 2 * ROWS):
                NARROW(table + m, outputs + m, shift, offsets, taps, k4, weights, bias, scale, zero_point, columns)
            return
        left = pixels % ROWS if pixels % ROWS <= 2 else 0  # so few cost less one by one
        for m in range(0, 8 * (pixels - left), 8 * ROWS):
            FULL(table + m, outputs + m, shift, offsets, taps, k4, weights, bias, scale, zero_point, columns)
        for m in range(8 * (pixels - left), 8 * pixels, 8):
            FULL_ONE(table + m, outputs + m, shift, offsets, taps, k4, weights, bias, scale, zero_point, columns)


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
def move_table(table, pixels, inputs, outputs):  # type: ignore[no-untyped-def]
    """Add bytes to the addresses of all pixels, and of those behind them."""
    for at in range(table, table + 8 * (pixels + SPARE), 8):
        set_word(at, word_at(at) + inputs)
        set_word(at + OUTPUTS, word_at(at + OUTPUTS) + outputs)


@njit(nogil=True)
def widen(table, pixels, offsets, taps, more, room):  # type: ignore[no-untyped-def]
    """Copy what the pixels of a table read as 16 bits, and table where it lies there; false if it needs more room.

    Taps that read the same bytes share a copy; others, as the rows of a filter on a wide image, have their own, so that
    nothing between them is copied. WIDE holds the distances of the taps there, in codes, and behind them the codes.
    more: bytes read behind the first of a tap, in all groups; room: bytes from WIDE on.
    """
    low = high = word_at(table)
    for at in range(table + 8, table + 8 * pixels, 8):
        low, high = min(low, word_at(at)), max(high, word_at(at))
    span = high - low + more
    near = table + WIDE
    codes = near + (8 * taps + 63) // 64 * 64
    start = stop = word_at(offsets)
    place = 0
    for t in range(taps):
        distance = word_at(offsets + 8 * t)
        if not start <= distance <= stop:
            place += (stop - start + 31) // 32 * 32
            start = stop = distance
        stop = max(stop, distance + span)
        set_word(near + 8 * t, place + distance - start)
        if codes - near + 2 * (place + stop - start) + 64 > room:
            return False
    start = stop = word_at(offsets)
    place = 0
    for t in range(taps):
        distance = word_at(offsets + 8 * t)
        if not start <= distance <= stop:
            WIDEN(low + start, codes + 2 * place, stop - start)
            place += (stop - start + 31) // 32 * 32
            start = stop = distance
        stop = max(stop, distance + span)
    WIDEN(low + start, codes + 2 * place, stop - start)
    for at in range(table, table + 8 * (pixels + SPARE), 8):
        set_word(at, codes + 2 * (word_at(at) - low))
    return True


@njit(nogil=True)
def bring(  # type: ignore[no-untyped-def]
    scratch, first, pixels, x, x_image, x_row, x_pixel, height, width, y, y_image, y_row, y_pixel,
    offsets, taps, more, room,
):  # fmt: skip
    """Table a chunk of at most so many pixels, of the first group, as the tiles read them; how many there are now."""
    while True:
        fill_table(scratch, first, pixels, x, x_image, x_row, x_pixel, height, width, y, y_image, y_row, y_pixel)
        if WEIGHT_BYTES == 1 or widen(scratch, pixels, offsets, taps, more, room):
            return pixels
        pixels = max(pixels // 2 // ROWS * ROWS, 1 if pixels <= ROWS else ROWS)


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
    room,
    by_columns,
    real,
):
    """Convolution or matrix product: codes, or float32 accumulator * scale if `real`. The rule: `rules.requantize`.

    Strides are bytes: x_row, x_pixel from one OUTPUT pixel to the next, *_group from one group of channels to the next.
    columns: output channels of a group. Weights, bias and scale as `packing.pack` makes them, group after group.
    chunk: pixels whose addresses are tabled at once; room: bytes of scratch for codes as 16 bits;
    by_columns: threads share out the channels, not the pixels.
    """
    vectors = (columns + 15) // 16
    near = offsets if WEIGHT_BYTES == 1 else scratch + WIDE
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
    start = first
    while start < last:
        count = bring(
            scratch, start, min(chunk, last - start), x, x_image, x_row, x_pixel, height, width,
            y, y_image, y_row, y_pixel, offsets, taps, (groups - 1) * x_group + 4 * k4, room,
        )  # fmt: skip
        start += count
        for g in range(groups):
            if g != 0:
                move_table(scratch, count, x_group * WEIGHT_BYTES, y_group)
            for n in range(first_block, last_block):
                wide = min(most, vectors - n * most)
                at = g * vectors + n * most
                here = weights + at * vector_bytes
                left = columns - 16 * most * n
                if real:
                    for m in range(0, 8 * count, 8 * ROWS):
                        REAL(
                            scratch + m, scratch + OUTPUTS + m, 64 * n, near, taps, k4, here,
                            bias + 64 * at, scale + 64 * at, zero_point, left,
                        )  # fmt: skip
                else:
                    run_tiles(
                        wide, count, scratch, 16 * most * n, near, taps, k4, here,
                        bias + 64 * at, scale + 64 * at, zero_point, left,
                    )  # fmt: skip
