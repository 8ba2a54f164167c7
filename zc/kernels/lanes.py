"""Steps that several kernels share: sums of products of bytes, accumulators to codes, bytes spread over lanes."""

from collections.abc import Sequence

import numpy as np

from zc.kernels import emit
from zc.kernels.cpu import FORM
from zc.kernels.emit import B64, F16, H32, I8, I16, I32, W16, Builder, Value, call, number, vector

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
    lanes = acc.type.count
    product = b.fmul(b.sitofp(acc, vector(emit.F32, lanes)), scale)
    return call(b, f"llvm.lrint.v{lanes}i32.v{lanes}f32", vector(I32, lanes), product)


def codes64(b: Builder, values: Sequence[Value], zero_point: Value) -> Value:
    """Four vectors of 16 rounded values, plus the zero point (<32 x i16>), to 64 codes in order `PACKED`."""
    halves = [call(b, "llvm.x86.avx512.packssdw.512", H32, values[i], values[i + 1]) for i in (0, 2)]
    halves = [call(b, "llvm.sadd.sat.v32i16", H32, half, zero_point) for half in halves]
    return call(b, "llvm.x86.avx512.packuswb.512", B64, *halves)


def codes16(b: Builder, values: Value, zero_point: Value) -> Value:
    """Rounded values, any number of lanes, to codes in order. zero_point: vector of int32."""
    kind = values.type
    name = f"v{kind.count}i32"
    bounded = call(b, f"llvm.smin.{name}", kind, values, emit.same(kind, 1 << 20))  # the sum must not wrap
    moved = b.add(bounded, zero_point)
    moved = call(b, f"llvm.smax.{name}", kind, moved, emit.same(kind, 0))
    moved = call(b, f"llvm.smin.{name}", kind, moved, emit.same(kind, 255))
    return b.trunc(moved, vector(I8, kind.count))


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


def halves_of(b: Builder, zero_point: Value) -> Value:
    """The zero point (int64) as <32 x i16>, for `codes64`."""
    return emit.splat(b, b.trunc(zero_point, I16), 32)


def words_of(b: Builder, zero_point: Value, lanes: int = 16) -> Value:
    """The zero point (int64) as a vector of int32."""
    return emit.splat(b, b.trunc(zero_point, I32), lanes)


def widened(b: Builder, codes: Value) -> Value:
    """16 unsigned bytes as float32."""
    return b.sitofp(b.zext(codes, W16), F16)


def zeros(kind: emit.Type) -> Value:
    """A vector of zeros."""
    return number(kind, [0] * kind.count)


def in_order(b: Builder, values: Sequence[Value], zero_point: Value) -> Value:
    """Rounded values to codes in the lanes' order: four vectors to 64 (zero_point from `halves_of`), or one to 16."""
    if len(values) == 1:
        return codes16(b, values[0], zero_point)
    words = b.bitcast(codes64(b, values, zero_point), W16)
    return b.bitcast(emit.shuffle(b, words, words, [4 * (at % 4) + at // 4 for at in range(16)]), B64)


def to_int(b: Builder, values: Value) -> Value:
    """Rne of 16 floats; what does not fit becomes the nearest bound, NaN the lowest."""
    low, high = emit.same(F16, -(2.0**30)), emit.same(F16, 2.0**30)
    values = b.select(b.fcmp_ordered(">", values, low), values, low)
    values = b.select(b.fcmp_ordered("<", values, high), values, high)
    return call(b, "llvm.lrint.v16i32.v16f32", W16, values)
