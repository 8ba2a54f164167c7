"""Steps that several kernels share: sums of products of bytes, accumulators to codes, bytes spread over lanes."""

from collections.abc import Sequence

import numpy as np

from zc.kernels import emit
from zc.kernels.cpu import FORM
from zc.kernels.emit import B64, F16, H16, H32, I8, I16, I32, W16, Builder, Value, call, number, vector

PACKED = np.array([16 * quarter + 4 * v + j for v in range(4) for quarter in range(4) for j in range(4)])
"""Packing four vectors of int32 to bytes works in quarters of 128 bits: lane 4 q + j of vector v ends up as this byte.
Weights, biases and scales of a block of 64 channels are stored in this order, so that the bytes come out in theirs."""

ORDER = PACKED if FORM.vnni else np.arange(16)
"""The channels of a full block, in the order in which this process's form keeps them."""


def dot4(b: Builder, acc: Value, codes: Value, weights: Value) -> Value:
    """Acc + four products of uint8 codes and int8 weights in each of 16 lanes, exact. Needs AVX512-VNNI."""
    return call(b, "llvm.x86.avx512.vpdpbusd.512", W16, acc, b.bitcast(codes, B64), b.bitcast(weights, B64))


def rounded(b: Builder, acc: Value, scale: Value) -> Value:
    """rne(f32(acc) * scale) as int32."""
    return nearest(b, b.fmul(b.sitofp(acc, vector(emit.F32, acc.type.count)), scale))


def nearest(b: Builder, values: Value) -> Value:
    """Rne of floats that fit into int32."""
    lanes = values.type.count
    return call(b, f"llvm.lrint.v{lanes}i32.v{lanes}f32", vector(I32, lanes), values)


def codes64(b: Builder, values: Sequence[Value], zero_point: Value) -> Value:
    """Four vectors of 16 rounded values, plus the zero point (<32 x i16>), to 64 codes in order `PACKED`."""
    halves = [call(b, "llvm.x86.avx512.packssdw.512", H32, values[i], values[i + 1]) for i in (0, 2)]
    halves = [call(b, "llvm.sadd.sat.v32i16", H32, half, zero_point) for half in halves]
    return call(b, "llvm.x86.avx512.packuswb.512", B64, *halves)


def codes16(b: Builder, values: Value, zero_point: Value) -> Value:
    """16 rounded values to codes in order. zero_point: from `zero16_of`."""
    if FORM.vnni:
        bounded = call(b, "llvm.smin.v16i32", W16, values, emit.same(W16, 1 << 20))  # the sum must not wrap
        moved = b.add(bounded, zero_point)
        moved = call(b, "llvm.smax.v16i32", W16, moved, emit.same(W16, 0))
        return b.trunc(call(b, "llvm.smin.v16i32", W16, moved, emit.same(W16, 255)), emit.B16)
    return _from_halves(b, _halves(b, values), zero_point)


def _halves(b: Builder, values: Value) -> Value:
    """16 integers as int16, saturated; like what follows one instruction of AVX2 and of NEON, and LLVM knows it."""
    return _bounded(b, values, -(1 << 15), (1 << 15) - 1, H16)


def _from_halves(b: Builder, halves: Value, zero_point: Value) -> Value:
    return _bounded(b, call(b, "llvm.sadd.sat.v16i16", H16, halves, zero_point), 0, 255, emit.B16)


def _bounded(b: Builder, values: Value, least: int, most: int, kind: emit.Type) -> Value:
    """Integers within bounds, in a narrower type."""
    wide = values.type
    name = f"v{wide.count}i{wide.element.width}"
    values = call(b, f"llvm.smax.{name}", wide, values, emit.same(wide, least))
    return b.trunc(call(b, f"llvm.smin.{name}", wide, values, emit.same(wide, most)), kind)


def pairs(b: Builder, x: Value, y: Value) -> Value:
    """Sums of neighbouring products: <16 x i16> twice to <8 x i32>."""
    if FORM.avx2:
        return call(b, "llvm.x86.avx2.pmadd.wd", vector(I32, 8), x, y)
    wide = vector(I32, 16)
    products = b.mul(b.sext(x, wide), b.sext(y, wide))
    even = emit.shuffle(b, products, products, range(0, 16, 2))
    return b.add(even, emit.shuffle(b, products, products, range(1, 16, 2)))


SPREAD = np.arange(16).reshape(2, 2, 4).transpose(1, 0, 2).reshape(-1)
"""Interleaving two rows of 16 int16 works in halves of 128 bits: the channels, in the order of the lanes that come out
as two vectors of 8. It is its own inverse."""


def interleave2(b: Builder, x: Value, y: Value) -> list[Value]:
    """Two rows of 16 codes as int16 to two vectors: 32 bits have one channel's two, channels in order `SPREAD`."""
    low = [lane for start in (0, 8) for j in range(start, start + 4) for lane in (j, j + 16)]
    return [emit.shuffle(b, x, y, [lane + 4 * high for lane in low]) for high in (0, 1)]


def spread16(b: Builder, values: Sequence[Value], zero_point: Value) -> Value:
    """Two vectors of 8 rounded values, channels in order `SPREAD`, to 16 codes in theirs. For forms without VNNI."""
    halves = _halves(b, emit.shuffle(b, values[0], values[1], range(16)))
    return _from_halves(b, emit.shuffle(b, halves, halves, SPREAD.tolist()), zero_point)


def interleave4(b: Builder, rows: Sequence[Value]) -> list[Value]:
    """Four rows of 64 bytes to four vectors: a lane has one channel's four bytes, channels in order `PACKED`."""
    pairs = [[_unpack(b, rows[i], rows[i + 1], 8, high) for high in (0, 1)] for i in (0, 2)]
    spread = [_unpack(b, pairs[0][v >> 1], pairs[1][v >> 1], 16, v & 1) for v in range(4)]
    return [b.bitcast(s, W16) for s in spread]


def _unpack(b: Builder, x: Value, y: Value, width: int, high: int) -> Value:
    """Interleave elements of `width` bits from the low or high halves of each quarter."""
    count, per = 512 // width, 128 // width
    kind = vector(I8 if width == 8 else I16, count)
    lanes = []
    for quarter in range(4):
        for j in range(per // 2):
            at = quarter * per + j + high * (per // 2)
            lanes += [at, at + count]
    return emit.shuffle(b, b.bitcast(x, kind), b.bitcast(y, kind), lanes)


def halves_of(b: Builder, zero_point: Value, lanes: int = 32) -> Value:
    """The zero point (int64) as a vector of int16, by default for `codes64`."""
    return emit.splat(b, b.trunc(zero_point, I16), lanes)


def words_of(b: Builder, zero_point: Value, lanes: int = 16) -> Value:
    """The zero point (int64) as a vector of int32."""
    return emit.splat(b, b.trunc(zero_point, I32), lanes)


def real_of(b: Builder, bits: Value) -> Value:
    """A float32, as the low half of an int64, in 16 lanes."""
    return emit.splat(b, b.bitcast(b.trunc(bits, I32), emit.F32), 16)


def widened(b: Builder, codes: Value) -> Value:
    """16 unsigned bytes as float32."""
    return b.sitofp(b.zext(codes, W16), F16)


CODES = B64 if FORM.vnni else vector(I8, 16)
"""What element-wise kernels read at a time. Their values are as many vectors of 16, in the order of `packed`."""


def shift_of(b: Builder, base: Value) -> Value:
    """What `floats` takes away: base (int64), and in the form of 64 codes the number that they are made beside."""
    return b.fadd(b.sitofp(words_of(b, base), F16), emit.same(F16, 2.0**23 if FORM.vnni else 0.0))


def floats(b: Builder, codes: Value, shift: Value) -> list[Value]:
    """`CODES` less a base as float32, exact. shift: from `shift_of`.

    The float32 with the bits 0x4b0000xx is 2**23 + xx: two rounds of interleaving make it.
    """
    if not FORM.vnni:
        return [b.fsub(widened(b, codes), shift)]
    nothing = zeros(B64)
    spread = interleave4(b, [codes, nothing, nothing, emit.same(B64, 0x4B)])
    return [b.fsub(b.bitcast(s, F16), shift) for s in spread]


def products(b: Builder, x: Value, y: Value, zero_x: Value, zero_y: Value) -> list[Value]:
    """(x - zero_x) * (y - zero_y) of `CODES` as int32. Zero points: from `zero_of`."""
    if not FORM.vnni:
        left, right = (b.sub(b.zext(codes, H16), zero) for codes, zero in ((x, zero_x), (y, zero_y)))
        return [b.mul(b.sext(left, W16), b.sext(right, W16))]
    found = []
    for upper in (0, 1):
        left, right = (
            b.sub(b.bitcast(_unpack(b, codes, zeros(B64), 8, upper), H32), zero)
            for codes, zero in ((x, zero_x), (y, zero_y))
        )
        low, high = b.mul(left, right), call(b, "llvm.x86.avx512.pmulh.w.512", H32, left, right)
        found += [b.bitcast(_unpack(b, low, high, 16, half), W16) for half in (0, 1)]
    return found


def zero_of(b: Builder, zero_point: Value) -> Value:
    """A zero point (int64) as `products` and `packed` take it."""
    return halves_of(b, zero_point, 32 if FORM.vnni else 16)


def zero16_of(b: Builder, zero_point: Value) -> Value:
    """A zero point (int64) as `codes16` takes it."""
    return words_of(b, zero_point) if FORM.vnni else halves_of(b, zero_point, 16)


def packed(b: Builder, values: Sequence[Value], zero_point: Value) -> Value:
    """Rounded values, as `floats` and `products` spread them, to `CODES`."""
    return codes64(b, values, zero_point) if FORM.vnni else codes16(b, values[0], zero_point)


def zeros(kind: emit.Type) -> Value:
    """A vector of zeros."""
    return number(kind, [0] * kind.count)


def in_order(b: Builder, values: Sequence[Value], zero_point: Value) -> Value:
    """Rounded values in their order to codes: four vectors to 64, or one to 16. zero_point: from `zero_of`."""
    if len(values) == 1:
        return codes16(b, values[0], zero_point)
    words = b.bitcast(codes64(b, values, zero_point), W16)
    return b.bitcast(emit.shuffle(b, words, words, [4 * (at % 4) + at // 4 for at in range(16)]), B64)


def to_int(b: Builder, values: Value) -> Value:
    """Rne of 16 floats; what does not fit becomes the nearest bound, NaN the lowest."""
    low, high = emit.same(F16, -(2.0**30)), emit.same(F16, 2.0**30)
    if FORM.vnni:  # too low or NaN: the instruction itself gives the lowest integer
        values = b.select(b.fcmp_ordered("<", high, values), high, values)
        return call(b, "llvm.lrint.v16i32.v16f32", W16, values)
    values = b.select(b.fcmp_ordered(">", values, low), values, low)
    values = b.select(b.fcmp_ordered("<", values, high), values, high)
    return call(b, "llvm.lrint.v16i32.v16f32", W16, values)
