"""What int8 operators compute, to the bit, in TFLite's reference kernels: the specification of the modes `tflite-*`.

Codes are as in `rules.py`: uint8 in memory, TFLite's int8 code plus 128, zero points likewise. `rounding`: see
`fixedpoint.py`. Sources: TFLite's kernels/internal/reference (integer_ops/conv.h, add.h, mul.h, pooling.h, mean.h,
softmax.h, leaky_relu.h, hard_swish.h, quantize.h, requantize.h) and what prepares them (kernel_util.cc, add.cc, ...).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import floor

import numpy as np
import numpy.typing as npt

from zc.kernels import fixedpoint
from zc.kernels.fixedpoint import Multiplier, Rounding, divide_by_power, high_mul, round_half_away, times
from zc.kernels.rules import Codes, Floats, Ints, dequantize, saturate

F32 = np.float32
ALL = np.arange(256, dtype=np.uint8)


def multipliers(x_scale: np.float32, w_scale: npt.NDArray[np.float32], y_scale: np.float32) -> list[Multiplier]:
    """Of the accumulators of each output channel: products and quotients of the scales in double precision."""
    return [Multiplier.of(float(x_scale) * float(w) / float(y_scale)) for w in w_scale]


def shared_multiplier(x_scale: np.float32, w_scale: np.float32, y_scale: np.float32) -> Multiplier:
    """Of FULLY_CONNECTED whose weights have one scale: the product of the scales is rounded to float32."""
    return Multiplier.of(float(F32(x_scale) * F32(w_scale)) / float(y_scale))


def requantize(acc: Ints, found: list[Multiplier], zero_point: int, rounding: Rounding) -> Codes:
    """Accumulators to codes. acc: [..., channels], one multiplier a channel.

    LiteRT's FULLY_CONNECTED rounds once even where its convolutions round twice.
    """
    significands, shifts = ([getattr(m, name) for m in found] for name in ("significand", "shift"))
    return saturate(fixedpoint.times_each(acc, significands, shifts, rounding) + zero_point)


def rescale_table(x_scale: np.float32, x_zero: int, y_scale: np.float32, y_zero: int, rounding: Rounding) -> Codes:
    """QUANTIZE from codes to codes: the 256 codes that one scale's become in another."""
    found = Multiplier.of(float(x_scale) / float(y_scale))
    return saturate(times(ALL.astype(np.int64) - x_zero, found, rounding) + y_zero)


def quantize(x: Floats, scale: np.float32, zero_point: int) -> Codes:
    """QUANTIZE from float32: round(x / scale), halves away from zero, + zero_point."""
    with np.errstate(over="ignore", invalid="ignore"):
        return saturate(round_half_away((x / F32(scale)).astype(np.float32)).astype(np.float64) + zero_point)


@dataclass(frozen=True)
class Sum:
    """ADD: both inputs in units of a common scale, 20 bits to the left; the sum in units of the output's."""

    a: Ints
    """int32[256]: the first input's codes, scaled."""
    b: Ints
    y: Multiplier

    @staticmethod
    def of(
        a_scale: np.float32, a_zero: int, b_scale: np.float32, b_zero: int, y_scale: np.float32, rounding: Rounding
    ) -> "Sum":
        """The constants of an addition."""
        twice = 2 * max(float(a_scale), float(b_scale))
        scaled = [
            times((ALL.astype(np.int64) - zero) << LEFT, Multiplier.of(float(scale) / twice), rounding)
            for scale, zero in ((a_scale, a_zero), (b_scale, b_zero))
        ]
        found = Multiplier.of(twice / ((1 << LEFT) * float(y_scale)))
        return Sum(scaled[0].astype(np.int32), scaled[1].astype(np.int32), found)


LEFT = 20


def add(a: Codes, b: Codes, terms: Sum, y_zero: int, rounding: Rounding) -> Codes:
    """ADD."""
    return saturate(times(terms.a[a].astype(np.int64) + terms.b[b], terms.y, rounding) + y_zero)


def product_multiplier(a_scale: np.float32, b_scale: np.float32, y_scale: np.float32) -> Multiplier:
    """Of MUL: the scales' product over the output's, in float32."""
    return Multiplier.of(float(F32(F32(a_scale) * F32(b_scale)) / F32(y_scale)))


def multiply(a: Codes, a_zero: int, b: Codes, b_zero: int, found: Multiplier, y_zero: int, rounding: Rounding) -> Codes:
    """MUL."""
    product = (a.astype(np.int64) - a_zero) * (b.astype(np.int64) - b_zero)
    return saturate(times(product, found, rounding) + y_zero)


def average_window(x: Codes, count: int) -> Codes:
    """AVERAGE_POOL_2D of one window: the mean of the int8 codes, halves away from zero. One scale in and out.

    x: [positions of the window inside the image, ...].
    """
    total = (x.astype(np.int64) - 128).sum(0)
    half = np.where(total > 0, count // 2, -(count // 2))
    moved = total + half
    return saturate(np.sign(moved) * (np.abs(moved) // count) + 128)


def mean_multiplier(x_scale: np.float32, y_scale: np.float32, count: int) -> Multiplier:
    """Of MEAN: that of the scales, with the division by the number of elements in its significand."""
    found = Multiplier.of(float(x_scale) / float(y_scale))
    shift = min(count.bit_length() - 1, 32, 31 + found.shift)
    return Multiplier((found.significand << shift) // count, found.shift - shift)


def mean(x: Codes, x_zero: int, found: Multiplier, y_zero: int, rounding: Rounding) -> Codes:
    """MEAN over the axes after the first two."""
    axes = tuple(range(2, x.ndim))
    count = int(np.prod(x.shape[2:], dtype=np.int64))
    total = x.astype(np.int64).sum(axes, keepdims=True) - count * x_zero
    return saturate(times(total, found, rounding) + y_zero)


# ---- tables


def float_table(
    function: Callable[[Floats], Floats], x_scale: np.float32, x_zero: int, y_scale: np.float32, y_zero: int
) -> Codes:
    """A function of one argument by way of float32: LOGISTIC, TANH."""
    with np.errstate(over="ignore"):
        values = np.asarray(function(dequantize(ALL, x_scale, x_zero).astype(np.float64)), np.float32)
    return saturate(round_half_away(values * F32(F32(1) / F32(y_scale))).astype(np.float64) + y_zero)


def leaky_relu_table(
    alpha: float, x_scale: np.float32, x_zero: int, y_scale: np.float32, y_zero: int, rounding: Rounding
) -> Codes:
    """LEAKY_RELU: a multiplier for each sign."""
    values = ALL.astype(np.int64) - x_zero
    ratio = float(x_scale) / float(y_scale)
    above = times(values, Multiplier.of(ratio), rounding)
    slope = float(x_scale) * float(F32(alpha)) / float(y_scale)
    return saturate(np.where(values >= 0, above, times(values, Multiplier.of(slope), rounding)) + y_zero)


def relu_table(
    low: float,
    high: float,
    x_scale: np.float32,
    x_zero: int,
    y_scale: np.float32,
    y_zero: int,
    rounding: Rounding,
) -> Codes:
    """RELU, RELU6, RELU_N1_TO_1: another scale, cut at the codes of the bounds."""
    found = Multiplier.of(float(F32(x_scale) / F32(y_scale)))
    values = times(ALL.astype(np.int64) - x_zero, found, rounding) + y_zero
    bounds = [
        np.clip(y_zero + round_half_away(np.asarray(F32(bound) / F32(y_scale), np.float32)), 0, 255)
        for bound in (low, high)
    ]
    return saturate(np.clip(values, *bounds))


def hard_swish_table(x_scale: np.float32, x_zero: int, y_scale: np.float32, y_zero: int) -> Codes:
    """HARD_SWISH: x * relu6(x + 3) / 6 in 16 bits."""
    fine = F32(1 / 128) * F32(x_scale)
    output = Multiplier.of(float(F32(fine / F32(y_scale))))
    gate = Multiplier.of(float(F32(fine / F32(3 / 32768))))
    values = (ALL.astype(np.int64) - x_zero) << 7
    scaled = _high_mul_16(values, _upper_half(output))
    gated = _saturate_16(values << max(gate.shift - 1, 0))
    gated = _high_mul_16(gated, _upper_half(gate))
    gated = _saturate_16(gated << 1) if gate.shift > 0 else divide_by_power(gated, -gate.shift)
    gated = (gated + (1 << 15)) >> 1
    product = gated * scaled
    found = np.sign(product) * (np.abs(product) >> 15)
    return saturate(divide_by_power(found, -output.shift) + y_zero)


def _upper_half(multiplier: Multiplier) -> int:
    """The significand in 16 bits."""
    return min((multiplier.significand + (1 << 15)) >> 16, 2**15 - 1)


def _saturate_16(values: fixedpoint.Ints) -> fixedpoint.Ints:
    return np.clip(values, -(2**15), 2**15 - 1)


def _high_mul_16(a: fixedpoint.Ints, b: int) -> fixedpoint.Ints:
    """`high_mul` of 16 bits."""
    product = a * b
    total = product + np.where(product >= 0, 1 << 14, 1 - (1 << 14))
    return _saturate_16(np.sign(total) * (np.abs(total) >> 15))


# ---- softmax


@dataclass(frozen=True)
class Exponentials:
    """exp((code - largest code of the row) * scale) by the distance of the codes, in Q0.31 and, for sums, in Q12.19."""

    terms: Ints
    """int32[256]: 0 where the distance is too far to matter."""
    addends: Ints


def exponentials(x_scale: np.float32, rounding: Rounding) -> Exponentials:
    """Of SOFTMAX with beta 1. Distances are Q5.26."""
    most = (1 << 30 if rounding == "single" else 1 << 31) - 1.0
    found = Multiplier.of(min(float(x_scale) * (1 << 26), most))
    farthest = floor(31.0 * (1 << 26) / (1 << found.shift)) if found.shift >= 0 else 255
    distance = np.minimum(np.arange(256), farthest)
    scaled = times(-distance, found, rounding)
    terms = np.where(np.arange(256) <= farthest, fixedpoint.exponential(scaled, 5), 0)
    return Exponentials(terms.astype(np.int32), divide_by_power(terms, 12).astype(np.int32))


def softmax(x: Codes, found: Exponentials) -> Codes:
    """SOFTMAX over the last axis, to codes of scale 1/256 and zero point 0 (-128 in int8). x: [rows, n]."""
    distance = x.max(axis=1, keepdims=True).astype(np.int64) - x
    total = found.addends[distance].astype(np.int64).sum(1)
    headroom = np.array([32 - int(t).bit_length() for t in total])
    scale = fixedpoint.reciprocal((total << headroom) - (1 << 31))
    exact = high_mul(scale[:, None], found.terms[distance])
    codes = divide_by_power(exact, (12 - headroom + 31 - 8)[:, None])
    return saturate(np.where(found.terms[distance] == 0, 0, codes))
