"""Register tiles of products: rows of codes times a block of weight columns, summed, rounded to codes and stored.

A tile computes `rows` output pixels x `16 * width` output channels. Row m reads its codes from the address in the m-th
word of a table, at the offset of each tap: filter taps are constant distances in a buffer that has its padding around
it, so there is no im2col. Weights lie as int8 [taps * k4][16 * width][4] (form `avx512vnni`), see `zc.kernels.packing`.

The forms `avx2` and `portable` multiply 16 bits by 16: pairs of neighbouring products, added in 32 bits, are one
instruction of AVX2 and two of NEON. Weights lie as int16 [taps * k4][2][16 * width][2], and the codes are a copy in 16
bits (`WIDEN`), so that a pair is one load into all lanes.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from zc.kernels import emit, lanes
from zc.kernels.cpu import FORM
from zc.kernels.emit import F16, H16, I32, I64, W16, Builder, Value, i64, load, loop, offset, scaled, splat, vector

HALF = vector(I32, 8)
"""Pairs are summed in half of 16 lanes at a time: one register of AVX2."""

ARGUMENTS = 11


Result = Literal["codes", "real", "sums"]


def tile(rows: int, width: int, result: Result = "codes") -> Callable[..., None]:
    """An intrinsic (inputs, outputs, shift, offsets, taps, k4, weights, bias, scale, zero_point, columns).

    inputs, outputs: addresses of `rows` words, the byte addresses of each row; shift: bytes added to each output's
    address; offsets: address of int64[taps]; k4: groups of four codes a tap; bias: address of int32[16 * width];
    scale: of float32[16 * width]; columns: how many of the 16 * width to store.
    result: "real" stores float32 accumulator * scale instead of codes, "sums" the int32 accumulators.
    """
    build, units = (_vnni, width) if FORM.vnni else (_in_pairs, 2 * width)
    return emit.kernel(lambda b, *args: build(b, rows, units, result, *args), ARGUMENTS)  # type: ignore[no-any-return]


def narrow_tile(rows: int) -> Callable[..., None]:
    """The same for at most 8 channels, whose weights are stored as of 16; for the forms that multiply pairs."""
    return emit.kernel(lambda b, *args: _in_pairs(b, rows, 1, "codes", *args), ARGUMENTS)  # type: ignore[no-any-return]


def _vnni(b: Builder, rows: int, width: int, result: Result, *args: Value) -> None:
    inputs, outputs, shift, offsets, taps, k4, weights, bias, scale, zero_point, columns = args
    first = [load(b, offset(b, bias, 64 * v), W16) for v in range(width)] * rows
    base = [load(b, offset(b, inputs, 8 * m), I64, 8) for m in range(rows)]
    step = 64 * width

    def tap(t: Value, sums: list[Value]) -> list[Value]:
        away = load(b, offset(b, offsets, scaled(b, t, 8)), I64, 8)
        starts = [b.add(address, away) for address in base]
        block = offset(b, weights, b.mul(t, scaled(b, k4, step)))

        def four(i: Value, acc: list[Value]) -> list[Value]:
            here = offset(b, block, scaled(b, i, step))
            columns_here = [load(b, offset(b, here, 64 * v), W16) for v in range(width)]
            new = []
            for m in range(rows):
                codes = splat(b, load(b, offset(b, starts[m], scaled(b, i, 4)), I32), 16)
                new += [lanes.dot4(b, acc[m * width + v], codes, columns_here[v]) for v in range(width)]
            return new

        return loop(b, k4, sums, four)

    acc = loop(b, taps, first, tap)
    targets = [offset(b, load(b, offset(b, outputs, 8 * m), I64, 8), shift) for m in range(rows)]
    if result == "sums":
        _store_words(b, acc, targets, columns)
        return
    scales = [load(b, offset(b, scale, 64 * v), F16) for v in range(width)]
    if result == "real":
        _store_words(b, _scaled(b, acc, scales), targets, columns)
    elif width == 4:
        zero = lanes.halves_of(b, zero_point)
        for m in range(rows):
            values = [lanes.rounded(b, acc[4 * m + v], scales[v]) for v in range(4)]
            emit.store_first(b, lanes.codes64(b, values, zero), targets[m], columns)
    else:
        zero = lanes.zero16_of(b, zero_point)
        for m in range(rows):
            for v in range(width):
                codes = lanes.codes16(b, lanes.rounded(b, acc[m * width + v], scales[v]), zero)
                emit.store_first(b, codes, offset(b, targets[m], 16 * v), b.sub(columns, i64(16 * v)))


def _in_pairs(b: Builder, rows: int, halves: int, result: Result, *args: Value) -> None:
    """halves: of 16 channels, that are computed; weights are stored as of an even number."""
    inputs, outputs, shift, offsets, taps, k4, weights, bias, scale, zero_point, columns = args
    stored = halves + halves % 2
    first = [load(b, offset(b, bias, 32 * v), HALF) for v in range(halves)] * rows
    base = [load(b, offset(b, inputs, 8 * m), I64, 8) for m in range(rows)]
    step = 64 * stored  # bytes of weights for four codes: 2 pairs x 8 lanes x 2 int16

    def tap(t: Value, sums: list[Value]) -> list[Value]:
        away = scaled(b, load(b, offset(b, offsets, scaled(b, t, 8)), I64, 8), 2)
        starts = [b.add(address, away) for address in base]
        block = offset(b, weights, b.mul(t, scaled(b, k4, step)))

        def four(i: Value, acc: list[Value]) -> list[Value]:
            here = offset(b, block, scaled(b, i, step))
            acc = list(acc)
            for pair in range(2):
                columns_here = [load(b, offset(b, here, 32 * (pair * stored + v)), H16) for v in range(halves)]
                for m in range(rows):
                    two = splat(b, load(b, offset(b, starts[m], scaled(b, i, 8), 4 * pair), I32), 8)
                    for v in range(halves):
                        at = m * halves + v
                        acc[at] = b.add(acc[at], lanes.pairs(b, b.bitcast(two, H16), columns_here[v]))
            return acc

        return loop(b, k4, sums, four)

    acc = loop(b, taps, first, tap)
    targets = [offset(b, load(b, offset(b, outputs, 8 * m), I64, 8), shift) for m in range(rows)]
    if result == "sums":
        _store_words(b, acc, targets, columns)
        return
    scales = [load(b, offset(b, scale, 32 * v), vector(emit.F32, 8)) for v in range(halves)]
    if result == "real":
        _store_words(b, _scaled(b, acc, scales), targets, columns)
        return
    zero = lanes.zero16_of(b, zero_point)
    for m in range(rows):
        for v in range(0, halves, 2):
            sums = acc[m * halves + v : m * halves + min(v + 2, halves)]
            values = [lanes.rounded(b, total, scales[v + h]) for h, total in enumerate(sums)]
            codes = lanes.codes16(b, emit.shuffle(b, values[0], values[-1], range(16)), zero)
            emit.store_first(b, codes, offset(b, targets[m], 8 * v), b.sub(columns, i64(8 * v)))


def _widen(b: Builder, *args: Value) -> None:
    x, y, count = args

    def body(i: Value, _: list[Value]) -> list[Value]:
        codes = load(b, offset(b, x, scaled(b, i, 32)), vector(emit.I8, 32))
        emit.store(b, b.zext(codes, emit.H32), offset(b, y, scaled(b, i, 64)))
        return []

    loop(b, b.sdiv(b.add(count, i64(31)), i64(32)), [], body)


WIDEN = emit.kernel(_widen, 3)
"""(x, y, count): codes as uint16. Reads and writes whole vectors of 32."""


def _scaled(b: Builder, acc: Sequence[Value], scales: Sequence[Value]) -> list[Value]:
    """Accumulators as float32, times the scales."""
    return [
        b.fmul(b.sitofp(total, scale.type), scale)
        for total, scale in zip(acc, [*scales] * (len(acc) // len(scales)), strict=True)
    ]


def _store_words(b: Builder, values: Sequence[Value], targets: Sequence[Value], columns: Value) -> None:
    """Write rows of 32-bit values, as many vectors to each target as they take."""
    width, size = len(values) // len(targets), values[0].type.count
    for m, target in enumerate(targets):
        for v in range(width):
            here = offset(b, target, 4 * size * v)
            emit.store_first(b, values[m * width + v], here, b.sub(columns, i64(size * v)))
