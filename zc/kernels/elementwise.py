"""Element-wise operators on codes: add, multiply, tables; and between codes and float32.

Tensors are walked as rows of contiguous bytes: three outer counts with byte strides for each operand. A thread takes
some of the rows, or of one long row a part.
"""

from numba import njit

from zc.kernels import emit, lanes
from zc.kernels.convolution import share
from zc.kernels.cpu import FORM
from zc.kernels.emit import (
    B16,
    B32,
    B64,
    F16,
    W16,
    Builder,
    Value,
    byte_at,
    i64,
    load,
    offset,
    scaled,
    set_byte,
)

STEP = lanes.CODES.count
"""Elements of one turn of the loops."""


def _codes(b: Builder, address: Value, at: Value, left: Value | None) -> Value:
    return emit.load_first(b, offset(b, address, at), lanes.CODES, left)


def _add(b: Builder, *args: Value) -> None:
    x, z, y, count, ra, rb, fixed, base = args
    scale_x, scale_z, rest = lanes.real_of(b, ra), lanes.real_of(b, rb), lanes.real_of(b, fixed)

    def each(base: Value) -> None:
        shift, zero = lanes.shift_of(b, base), lanes.zero_of(b, base)

        def body(at: Value, left: Value | None) -> None:
            values = []
            for one, other in zip(*(lanes.floats(b, _codes(b, a, at, left), shift) for a in (x, z)), strict=True):
                inner = emit.call(b, "llvm.fma.v16f32", F16, other, scale_z, rest)
                values.append(lanes.nearest(b, emit.call(b, "llvm.fma.v16f32", F16, one, scale_x, inner)))
            emit.store_first(b, lanes.packed(b, values, zero), offset(b, y, at), left)

        emit.in_steps(b, count, STEP, body)

    if FORM.vnni:
        each(base)
        return
    with b.if_else(b.icmp_signed("==", base, i64(0))) as (nothing, something):
        with nothing:  # nothing to take away and to add, and LLVM sees it
            each(i64(0))
        with something:
            each(base)


def _multiply(b: Builder, *args: Value) -> None:
    x, z, y, count, zero_x, zero_z, scale, zero_y, base = args
    nought_x, nought_z, zero = (lanes.zero_of(b, one) for one in (zero_x, zero_z, base))
    factor, before = lanes.real_of(b, scale), b.sitofp(lanes.words_of(b, b.sub(zero_y, base)), F16)

    def body(at: Value, left: Value | None) -> None:
        products = lanes.products(b, _codes(b, x, at, left), _codes(b, z, at, left), nought_x, nought_z)
        values = [lanes.nearest(b, b.fadd(b.fmul(b.sitofp(p, F16), factor), before)) for p in products]
        emit.store_first(b, lanes.packed(b, values, zero), offset(b, y, at), left)

    emit.in_steps(b, count, STEP, body)


def _quantize(b: Builder, *args: Value) -> None:
    x, y, count, scale, zero_point = args
    divisor, zero = lanes.real_of(b, scale), lanes.zero_of(b, zero_point)

    def body(at: Value, left: Value | None) -> None:
        values = []
        for v in range(0, STEP, 16):
            mine = None if left is None else b.sub(left, i64(v))
            numbers = emit.load_first(b, offset(b, x, scaled(b, at, 4), 4 * v), F16, mine)
            values.append(lanes.to_int(b, b.fdiv(numbers, divisor)))
        emit.store_first(b, lanes.in_order(b, values, zero), offset(b, y, at), left)

    emit.in_steps(b, count, STEP, body)


def _dequantize(b: Builder, *args: Value) -> None:
    x, y, count, scale, zero_point = args
    factor, nought = lanes.real_of(b, scale), lanes.words_of(b, zero_point)

    def body(at: Value, left: Value | None) -> None:
        codes = b.sub(b.zext(emit.load_first(b, offset(b, x, at), B16, left), W16), nought)
        emit.store_first(b, b.fmul(b.sitofp(codes, F16), factor), offset(b, y, scaled(b, at, 4)), left)

    emit.in_steps(b, count, 16, body)


def _look_up(b: Builder, *args: Value) -> None:
    x, y, count, table = args
    quarters = [load(b, offset(b, table, 64 * q), B64) for q in range(4)]

    def body(at: Value, left: Value | None) -> None:
        codes = emit.load_first(b, offset(b, x, at), B64, left)
        low = emit.call(b, "llvm.x86.avx512.vpermi2var.qi.512", B64, quarters[0], codes, quarters[1])
        high = emit.call(b, "llvm.x86.avx512.vpermi2var.qi.512", B64, quarters[2], codes, quarters[3])
        chosen = b.select(b.icmp_signed("<", codes, lanes.zeros(B64)), high, low)
        emit.store_first(b, chosen, offset(b, y, at), left)

    emit.in_steps(b, count, 64, body)


def _look_up_nibbles(b: Builder, *args: Value) -> None:
    """The same with look-ups of 16 bytes, which give 0 where an index is negative.

    The index falls by 16 from one to the next, and each holds what its 16 codes have more (xor) than those before: so
    the last one whose index is not negative decides. First for codes below 128, then for those above.
    """
    x, y, count, table = args
    loaded = [load(b, offset(b, table, 16 * q), B16) for q in range(16)]
    sixteens = [emit.shuffle(b, part, part, [*range(16)] * 2) for part in loaded]
    more = [part if q % 8 == 0 else b.xor(sixteens[q - 1], part) for q, part in enumerate(sixteens)]

    def body(at: Value, left: Value | None) -> None:
        codes = emit.load_first(b, offset(b, x, at), B64, left)
        found = []
        for half in (0, 32):
            mine = emit.shuffle(b, codes, codes, range(half, half + 32))
            chosen = lanes.zeros(B32)
            for first, index in ((0, mine), (8, b.xor(mine, emit.same(B32, 128)))):
                for q in range(first, first + 8):
                    chosen = b.xor(chosen, emit.call(b, "llvm.x86.avx2.pshuf.b", B32, more[q], index))
                    index = emit.call(b, "llvm.ssub.sat.v32i8", B32, index, emit.same(B32, 16))
            found.append(chosen)
        emit.store_first(b, emit.shuffle(b, found[0], found[1], range(64)), offset(b, y, at), left)

    emit.in_steps(b, count, 64, body)


def _copy(b: Builder, *args: Value) -> None:
    x, y, count = args

    def body(at: Value, left: Value | None) -> None:
        emit.store_first(b, _codes(b, x, at, left), offset(b, y, at), left)

    emit.in_steps(b, count, STEP, body)


ADD, MULTIPLY = emit.kernel(_add, 8), emit.kernel(_multiply, 9)
QUANTIZE, DEQUANTIZE = emit.kernel(_quantize, 5), emit.kernel(_dequantize, 5)
COPY = emit.kernel(_copy, 3)

if FORM.permute or FORM.avx2 or FORM.vnni:
    LOOK_UP = emit.kernel(_look_up if FORM.permute else _look_up_nibbles, 4)
else:

    @njit(nogil=True)
    def LOOK_UP(x, y, count, table):  # type: ignore[no-untyped-def]  # noqa: N802
        """Codes through a table of 256."""
        for i in range(count):
            set_byte(y + i, byte_at(table + byte_at(x + i)))


@njit(nogil=True)
def part(rows, length, thread, threads):  # type: ignore[no-untyped-def]
    """A thread's rows (from, to) and its part (from, to) of each row."""
    if rows >= threads:
        first, last = share(rows, 1, thread, threads)
        return first, last, 0, length
    start, stop = share(length, 64, thread, threads)
    return 0, rows, start, stop


@njit(nogil=True)
def place(row, n1, n2, s0, s1, s2):  # type: ignore[no-untyped-def]
    """Byte distance of a row, by its number."""
    rest, k = divmod(row, n2)
    i, j = divmod(rest, n1)
    return i * s0 + j * s1 + k * s2


@njit(nogil=True)
def add(  # type: ignore[no-untyped-def]
    thread, threads, scratch, x, x0, x1, x2, z, z0, z1, z2, y, y0, y1, y2, n0, n1, n2, length, ra, rb, fixed, base
):
    """`rules.add`. ra, rb, fixed: bits of float32; base: 128 for int8 codes, else 0."""
    first, last, start, stop = part(n0 * n1 * n2, length, thread, threads)
    for row in range(first, last):
        source = x + place(row, n1, n2, x0, x1, x2) + start
        other = z + place(row, n1, n2, z0, z1, z2) + start
        ADD(source, other, y + place(row, n1, n2, y0, y1, y2) + start, stop - start, ra, rb, fixed, base)


@njit(nogil=True)
def multiply(  # type: ignore[no-untyped-def]
    thread, threads, scratch, x, x0, x1, x2, z, z0, z1, z2, y, y0, y1, y2, n0, n1, n2, length,
    zero_x, zero_z, scale, zero_y, base,
):  # fmt: skip
    """`rules.multiply`. scale: bits of float32; base: 128 for int8 codes, else 0."""
    first, last, start, stop = part(n0 * n1 * n2, length, thread, threads)
    for row in range(first, last):
        source = x + place(row, n1, n2, x0, x1, x2) + start
        other = z + place(row, n1, n2, z0, z1, z2) + start
        target = y + place(row, n1, n2, y0, y1, y2) + start
        MULTIPLY(source, other, target, stop - start, zero_x, zero_z, scale, zero_y, base)


@njit(nogil=True)
def look_up(thread, threads, scratch, x, x0, x1, x2, y, y0, y1, y2, n0, n1, n2, length, table):  # type: ignore[no-untyped-def]
    """Y = table[x]: any operator of one argument. table: address of uint8[256]."""
    first, last, start, stop = part(n0 * n1 * n2, length, thread, threads)
    for row in range(first, last):
        source = x + place(row, n1, n2, x0, x1, x2) + start
        LOOK_UP(source, y + place(row, n1, n2, y0, y1, y2) + start, stop - start, table)


@njit(nogil=True)
def quantize(  # type: ignore[no-untyped-def]
    thread, threads, scratch, x, x0, x1, x2, y, y0, y1, y2, y_step, n0, n1, n2, length, scale, zero_point
):
    """`rules.quantize`. x: rows of contiguous float32; y_step: bytes from one code of a row to the next."""
    first, last, start, stop = part(n0 * n1 * n2, length, thread, threads)
    for row in range(first, last):
        source = x + place(row, n1, n2, x0, x1, x2)
        target = y + place(row, n1, n2, y0, y1, y2)
        if y_step == 1:
            QUANTIZE(source + 4 * start, target + start, stop - start, scale, zero_point)
        else:
            for at in range(start, stop, 1024):
                count = min(1024, stop - at)
                QUANTIZE(source + 4 * at, scratch, count, scale, zero_point)
                for i in range(count):
                    set_byte(target + (at + i) * y_step, byte_at(scratch + i))


@njit(nogil=True)
def dequantize(  # type: ignore[no-untyped-def]
    thread, threads, scratch, x, x0, x1, x2, x_step, y, y0, y1, y2, n0, n1, n2, length, scale, zero_point
):
    """`rules.dequantize`. y: rows of contiguous float32; x_step: bytes from one code of a row to the next."""
    first, last, start, stop = part(n0 * n1 * n2, length, thread, threads)
    for row in range(first, last):
        source = x + place(row, n1, n2, x0, x1, x2)
        target = y + place(row, n1, n2, y0, y1, y2)
        if x_step == 1:
            DEQUANTIZE(source + start, target + 4 * start, stop - start, scale, zero_point)
        else:
            for at in range(start, stop, 1024):
                count = min(1024, stop - at)
                for i in range(count):
                    set_byte(scratch + i, byte_at(source + (at + i) * x_step))
                DEQUANTIZE(scratch, target + 4 * at, count, scale, zero_point)
