"""Convolutions and matrix products in the tile registers of AMX: 32 output pixels x 64 channels at a time.

A tile register holds 16 rows of 64 bytes. One instruction multiplies a tile of codes (16 pixels x 64 channels) by a
tile of weights (64 channels x 16 columns) and adds to a tile of 16 x 16 int32. Four of these are filled at once, so
that each tile read serves two products. Weights lie as for `avx512vnni`, [taps][k4][16 * width][4] with k4 a multiple
of 16: sixteen of its rows, 64 bytes wide, are a tile. Sums go through memory to the same rounding as elsewhere.

Pixels at even distances are tiles where they lie: those of a row; or those of a whole image with padding around it, if
the padding between two rows is computed along and thrown away. Others (small images, strides) are gathered first.
"""

from typing import Any

from llvmlite import ir
from numba import njit

from zc.kernels import emit, lanes
from zc.kernels.convolution import BLOCK_VECTORS, share
from zc.kernels.cpu import FORM
from zc.kernels.emit import B64, F16, I8, I64, W16, Builder, Value, i64, load, loop, offset, scaled, set_word, word_at

PIECE = 16
"""Pixels of a tile."""

GROUP = 2 * PIECE
"""Pixels that are computed together."""

MOST_PIECES = 128
"""Of a chunk, whose addresses are tabled once for all blocks of channels."""

GATHERED_BYTES = 384 * 1024
"""Room for gathered pixels: a part of the second cache."""

SUMS_BYTES = GROUP * 256
BASES = SUMS_BYTES
OUTPUTS = BASES + 8 * MOST_PIECES
NOUGHT = OUTPUTS + 8 * PIECE * MOST_PIECES
GATHERED = NOUGHT + 64
SCRATCH_BYTES = GATHERED + GATHERED_BYTES + 64
"""Scratch: sums; the address of each piece's codes; of all outputs (0: none); a zero; gathered pixels."""

SUMS, CODES, WEIGHTS = (0, 1, 2, 3), (4, 5), (6, 7)
"""Numbers of tile registers: sums by [pixels, columns]."""


def _do(b: Builder, name: str, *args: Value) -> None:
    emit.call(b, f"llvm.x86.{name}", ir.VoidType(), *args)


def _tile(number: int) -> Value:
    return emit.number(I8, number)


def _memory(b: Builder, address: Value) -> Value:
    return b.inttoptr(address, I8.as_pointer())


def _configure(b: Builder) -> None:
    """All eight tiles: 16 rows of 64 bytes."""
    shape = [1] + [0] * 15 + [64, 0] * 8 + [0] * 16 + [16] * 8 + [0] * 8
    place = emit.spilled(b, B64)
    b.store(emit.number(B64, shape), place)
    _do(b, "ldtilecfg", b.bitcast(place, I8.as_pointer()))


def _release(b: Builder) -> None:
    """Give the tiles back: threads without them are cheaper to switch."""
    _do(b, "tilerelease")


def _sums(width: int) -> Any:
    """An intrinsic (first, second, step, offsets, taps, k64, weights, weights_step, bias, sums): `width` x 16 columns.

    width: 1 or 2; first, second: addresses of 16 pixels each, `step` bytes apart; offsets: address of int64[taps];
    weights_step: bytes from four channels' weights to the next four's; sums: address of int32[32, 64].
    """

    def build(b: Builder, *args: Value) -> None:
        first, second, step, offsets, taps, k64, weights, weights_step, bias, sums = args
        for v in range(width):
            for m in range(2):  # sums begin with the bias: a tile whose rows are all the same
                _do(b, "tileloadd64", _tile(SUMS[2 * m + v]), _memory(b, offset(b, bias, 64 * v)), i64(0))

        def tap(t: Value, _: list[Value]) -> list[Value]:
            away = load(b, offset(b, offsets, scaled(b, t, 8)), I64, 8)
            block = offset(b, weights, b.mul(b.mul(t, k64), scaled(b, weights_step, 16)))

            def sixty_four(i: Value, _: list[Value]) -> list[Value]:
                at = offset(b, away, scaled(b, i, 64))
                here = offset(b, block, b.mul(i, scaled(b, weights_step, 16)))
                for v in range(width):
                    _do(b, "tileloadd64", _tile(WEIGHTS[v]), _memory(b, offset(b, here, 64 * v)), weights_step)
                for m, pixels in enumerate((first, second)):
                    _do(b, "tileloadd64", _tile(CODES[m]), _memory(b, b.add(pixels, at)), step)
                    for v in range(width):
                        _do(b, "tdpbusd", _tile(SUMS[2 * m + v]), _tile(CODES[m]), _tile(WEIGHTS[v]))
                return []

            loop(b, k64, [], sixty_four)
            return []

        loop(b, taps, [], tap)
        for m in range(2):
            for v in range(width):
                place = offset(b, sums, 16 * 256 * m + 64 * v)
                _do(b, "tilestored64", _tile(SUMS[2 * m + v]), _memory(b, place), i64(256))

    return emit.kernel(build, 10)


def _finish(width: int) -> Any:
    """An intrinsic (sums, outputs, shift, scale, zero_point, columns): 32 rows of `width` x 16 sums to codes.

    outputs: address of the addresses of 32 pixels, 0 where nothing is stored; shift: bytes added to them.
    """

    def build(b: Builder, *args: Value) -> None:
        sums, outputs, shift, scale, zero_point, columns = args
        scales = [load(b, offset(b, scale, 64 * v), F16) for v in range(width)]
        halves, words = lanes.halves_of(b, zero_point), lanes.zero16_of(b, zero_point)

        def row(i: Value, _: list[Value]) -> list[Value]:
            output = load(b, offset(b, outputs, scaled(b, i, 8)), I64, 8)
            with b.if_then(b.icmp_signed("!=", output, i64(0))):
                here, target = offset(b, sums, scaled(b, i, 256)), b.add(output, shift)
                values = [lanes.rounded(b, load(b, offset(b, here, 64 * v), W16), scales[v]) for v in range(width)]
                if width == BLOCK_VECTORS:
                    emit.store_first(b, lanes.codes64(b, values, halves), target, columns)
                else:
                    for v, value in enumerate(values):
                        codes = lanes.codes16(b, value, words)
                        emit.store_first(b, codes, offset(b, target, 16 * v), b.sub(columns, i64(16 * v)))
            return []

        loop(b, i64(GROUP), [], row)

    return emit.kernel(build, 6)


def _copy64(b: Builder, *args: Value) -> None:
    """(x, y): 64 bytes."""
    emit.store(b, load(b, args[0], B64), args[1])


@njit(nogil=True)
def gather(target, outputs, first, images, height, width, x, x_strides, y, y_strides, offsets, taps, k64):  # type: ignore[no-untyped-def]
    """Copy 16 pixels from number `first` on, tap after tap, and table where they are stored."""
    x_image, x_row, x_pixel = x_strides
    y_image, y_row, y_pixel = y_strides
    rest, column = divmod(first, width)
    image, row = divmod(rest, height)
    for m in range(PIECE):
        if image == images:
            set_word(outputs + 8 * m, 0)
            continue
        set_word(outputs + 8 * m, y + image * y_image + row * y_row + column * y_pixel)
        source = x + image * x_image + row * x_row + column * x_pixel
        for t in range(taps):
            at = source + word_at(offsets + 8 * t)
            for _ in range(k64):
                COPY64(at, target)
                at += 64
                target += 64
        column += 1
        if column == width:
            column = 0
            row += 1
        if row == height:
            row = 0
            image += 1


@njit(nogil=True)
def table_outputs(outputs, first, fresh, line, width, y, y_row, y_pixel):  # type: ignore[no-untyped-def]
    """Table where 16 pixels at even distances are stored, from number `first` on: none before `fresh` or in padding."""
    row, column = divmod(first, line)
    for m in range(PIECE):
        wanted = first + m >= fresh and column < width
        set_word(outputs + 8 * m, y + row * y_row + column * y_pixel if wanted else 0)
        column += 1
        if column == line:
            column = 0
            row += 1


if FORM.amx:
    CONFIGURE, RELEASE = emit.kernel(_configure, 0), emit.kernel(_release, 0)
    ONE, TWO = _sums(1), _sums(2)
    FINISH = [_finish(width) for width in range(1, BLOCK_VECTORS + 1)]
    FINISH_1, FINISH_2, FINISH_3, FINISH_4 = FINISH
    COPY64 = emit.kernel(_copy64, 2)

    @njit(nogil=True)
    def run_block(width, bases, step, offsets, taps, k64, weights, bias, scale, sums, outputs, shift, zero, columns):  # type: ignore[no-untyped-def]
        """Two pieces, one block of channels."""
        one, two = word_at(bases), word_at(bases + 8)
        for v in range(0, 64 * width, 128):
            if 64 * width - v > 64:
                TWO(one, two, step, offsets, taps, k64, weights + v, 64 * width, bias + v, sums + v)
            else:
                ONE(one, two, step, offsets, taps, k64, weights + v, 64 * width, bias + v, sums + v)
        if width == 4:
            FINISH_4(sums, outputs, shift, scale, zero, columns)
        elif width == 3:
            FINISH_3(sums, outputs, shift, scale, zero, columns)
        elif width == 2:
            FINISH_2(sums, outputs, shift, scale, zero, columns)
        else:
            FINISH_1(sums, outputs, shift, scale, zero, columns)

    @njit(nogil=True)
    def convolve_tiles(  # type: ignore[no-untyped-def]
        thread, threads, scratch, x, x_image, x_row, x_pixel, x_group, y, y_image, y_row, y_pixel, y_group,
        images, height, width, line, by_rows, groups, columns, offsets, taps, k64, weights, bias, scale, zero_point,
        chunk, by_columns,
    ):  # fmt: skip
        """`convolution.convolve` in tile registers; k64: groups of 64 codes a tap.

        line: pixels from one row to the next, all `x_pixel` apart, those behind `width` not wanted; 0: pixels are
        gathered. by_rows: only those of a row are `x_pixel` apart. What lies at even distances are at least 16 pixels.
        chunk: an even number of pieces, tabled at once.
        """
        vectors = (columns + 15) // 16
        blocks = (vectors + 3) // 4
        vector_bytes = taps * k64 * 1024
        whole = width if by_rows else (height - 1) * line + width
        per = (whole + 15) // 16
        lines = images * height if by_rows else images
        pieces = lines * per if line > 0 else (images * height * width + 15) // 16
        first_block, last_block = 0, blocks
        first, last = 0, pieces
        if by_columns:
            first_block, last_block = share(blocks, 1, thread, threads)
        else:
            first, last = share(pieces, 2, thread, threads)
        step, away, parts, depth = x_pixel, offsets, taps, k64
        if line == 0:  # gathered pixels have one tap
            step, away, parts, depth = 64 * taps * k64, scratch + NOUGHT, 1, taps * k64
            set_word(scratch + NOUGHT, 0)
        CONFIGURE()
        for start in range(first, last, chunk):
            count = min(chunk, last - start)
            for g in range(groups):
                here, there = x + g * x_group, y + g * y_group
                for u in range(count):
                    outputs = scratch + OUTPUTS + 128 * u
                    if line == 0:
                        base = scratch + GATHERED + u * 1024 * taps * k64
                        gather(
                            base, outputs, 16 * (start + u), images, height, width, here, (x_image, x_row, x_pixel),
                            there, (y_image, y_row, y_pixel), offsets, taps, k64,
                        )  # fmt: skip
                    else:
                        at, piece = divmod(start + u, per)
                        image, row = divmod(at, height) if by_rows else (at, 0)
                        pixel = min(16 * piece, whole - 16)  # the last ones are computed twice, stored once
                        base = here + image * x_image + row * x_row + pixel * x_pixel
                        table_outputs(
                            outputs,
                            pixel,
                            16 * piece,
                            line,
                            width,
                            there + image * y_image + row * y_row,
                            y_row,
                            y_pixel,
                        )
                    set_word(scratch + BASES + 8 * u, base)
                if count % 2 == 1:
                    set_word(scratch + BASES + 8 * count, word_at(scratch + BASES + 8 * count - 8))
                    for m in range(16):
                        set_word(scratch + OUTPUTS + 128 * count + 8 * m, 0)
                for n in range(first_block, last_block):
                    at = g * vectors + 4 * n
                    for u in range(0, count, 2):
                        run_block(
                            min(4, vectors - 4 * n), scratch + BASES + 8 * u, step, away, parts, depth,
                            weights + at * vector_bytes, bias + 64 * at, scale + 64 * at, scratch,
                            scratch + OUTPUTS + 128 * u, 64 * n, zero_point, columns - 64 * n,
                        )  # fmt: skip
        RELEASE()
else:

    @njit(nogil=True)
    def convolve_tiles(  # type: ignore[no-untyped-def]
        thread, threads, scratch, x, x_image, x_row, x_pixel, x_group, y, y_image, y_row, y_pixel, y_group,
        images, height, width, line, by_rows, groups, columns, offsets, taps, k64, weights, bias, scale, zero_point,
        chunk, by_columns,
    ):  # fmt: skip
        """Never planned in this form: `FORM.amx` is false."""
