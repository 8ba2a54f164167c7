"""Transposes of bytes: planes to pixels and back, in blocks that fit the registers."""

from collections.abc import Sequence

from numba import njit

from zc.kernels import emit
from zc.kernels.cpu import FORM
from zc.kernels.emit import B16, B64, I8, Builder, Value, i64, load, offset

BLOCK = 64 if FORM.vnni else 16
"""Rows of a block; it has 16 columns."""

ROW = emit.vector(I8, BLOCK)


def _turned(b: Builder, lines: Sequence[Value]) -> list[Value]:
    """16 lines of 16 bytes, in each 128 bits of a register, transposed: four rounds of pairwise interleaving."""
    size = lines[0].type.count
    low, high = [], []
    for start in range(0, size, 16):
        low += [at for i in range(start, start + 8) for at in (i, size + i)]
        high += [at for i in range(start + 8, start + 16) for at in (i, size + i)]
    rows = list(lines)
    for _ in range(4):
        rows = [emit.shuffle(b, rows[i], rows[i + 8], half) for i in range(8) for half in (low, high)]
    return rows


def _pieces(b: Builder, rows: Sequence[Value]) -> list[Value]:
    """The 16 bytes of each row of the block, row after row."""
    if BLOCK == 16:
        return list(rows)
    return [emit.shuffle(b, row, row, range(16 * q, 16 * q + 16)) for q in range(BLOCK // 16) for row in rows]


def _whole(b: Builder, *args: Value) -> None:
    """(x, x_step, y, y_step): y[r, c] = x[c, r] for a whole block; 16 bytes of each row of y."""
    x, x_step, y, y_step = args
    lines = [load(b, offset(b, x, b.mul(i64(i), x_step)), ROW) for i in range(16)]
    target = y
    for piece in _pieces(b, _turned(b, lines)):
        emit.store(b, piece, target)
        target = b.add(target, y_step)


def _part(b: Builder, *args: Value) -> None:
    """(x, x_step, columns, y, rows, y_step, column, width, y_jump): a block cut to `rows` and `columns`.

    Rows of y are pixels of an image: its next row begins `y_jump` further, behind `width`; column: of the first pixel.
    """
    x, x_step, columns, y, rows, y_step, column, width, y_jump = args
    nothing = emit.spilled(b, ROW)
    lines = []
    for i in range(16):
        there = b.icmp_signed("<", i64(i), columns)
        wanted = b.select(there, rows, i64(0))
        if FORM.vnni:
            lines.append(emit.load_first(b, offset(b, x, b.mul(i64(i), x_step)), ROW, wanted))
        else:  # without masks: what is not there is read from elsewhere
            address = b.select(there, offset(b, x, b.mul(i64(i), x_step)), b.ptrtoint(nothing, emit.I64))
            lines.append(emit.load_first(b, address, ROW, b.select(there, rows, i64(16))))
    spill = emit.spilled(b, emit.vector(I8, 16 * BLOCK))
    start = b.ptrtoint(spill, emit.I64)
    for r, piece in enumerate(_pieces(b, _turned(b, lines))):
        emit.store(b, piece, offset(b, start, 16 * r))

    def row(i: Value, carried: list[Value]) -> list[Value]:
        target, at = carried
        emit.store_first(b, load(b, offset(b, start, emit.scaled(b, i, 16)), B16), target, columns)
        following = b.add(at, i64(1))
        wraps = b.icmp_signed("==", following, width)
        further = b.add(target, b.select(wraps, b.add(y_step, y_jump), y_step))
        return [further, b.select(wraps, i64(0), following)]

    emit.loop(b, rows, [y, column], row)


def _three(b: Builder, *args: Value) -> None:
    """(x, x_step, y, pixels): three planes to pixels of three bytes."""
    x, x_step, y, pixels = args

    def body(at: Value, left: Value | None) -> None:
        planes = [emit.load_first(b, offset(b, x, at, *[x_step] * i), B64, left) for i in range(3)]
        for k in range(3):
            places = [64 * k + i for i in range(64)]
            two = emit.shuffle(b, planes[0], planes[1], [p // 3 + 64 * (p % 3 == 1) for p in places])
            out = emit.shuffle(b, two, planes[2], [64 + p // 3 if p % 3 == 2 else i for i, p in enumerate(places)])
            count = None if left is None else b.sub(emit.scaled(b, left, 3), i64(64 * k))
            emit.store_first(b, out, offset(b, y, emit.scaled(b, at, 3), 64 * k), count)

    emit.in_steps(b, pixels, 64, body)


WHOLE, PART, THREE = emit.kernel(_whole, 4), emit.kernel(_part, 9), emit.kernel(_three, 4)


@njit(nogil=True)
def turn(x, x_step, columns, y, y_step, first, rows, width, y_jump):  # type: ignore[no-untyped-def]
    """y[r, c] = x[c, r] for bytes: rows of x are contiguous, `x_step` from one column to the next.

    x, y: addresses of row `first` and those behind it; rows of y are `y_step` apart, and `y_jump` more behind every
    `width` of them.
    """
    if columns == 3 and y_step == 3:
        done = 0
        while done < rows:
            line, column = divmod(first + done, width)
            count = min(rows - done, width - column)
            THREE(x + done, x_step, y + 3 * done + (line - first // width) * y_jump, count)
            done += count
        return
    for block in range(0, rows, BLOCK):
        r = max(min(block, rows - BLOCK), 0)  # the last block overlaps the one before it
        line, column = divmod(first + r, width)
        target = y + r * y_step + (line - first // width) * y_jump
        whole = rows >= BLOCK and (y_jump == 0 or column + BLOCK <= width) and columns >= 16
        for start in range(0, columns, 16):
            c = max(min(start, columns - 16), 0)
            if whole:
                WHOLE(x + c * x_step + r, x_step, target + c, y_step)
            else:
                PART(
                    x + c * x_step + r,
                    x_step,
                    columns - c,
                    target + c,
                    min(BLOCK, rows - r),
                    y_step,
                    column,
                    width,
                    y_jump,
                )
