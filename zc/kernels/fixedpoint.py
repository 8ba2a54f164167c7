"""TFLite's fixed-point multiplication, to the bit, in NumPy: the specification of the kernels in `fixed.py`.

A real multiplier is 31 bits and a power of two. A product is rounded once (TFLite built with TFLITE_SINGLE_ROUNDING),
or twice as gemmlowp does: at 31 bits, then at the power of two.
Sources: gemmlowp's fixedpoint.h, TFLite's kernels/internal/quantization_util.cc and common.h.
"""

from dataclasses import dataclass
from math import frexp
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Rounding = Literal["single", "double"]

ONE = 2**31
"""1.0 in Q0.31, one more than what an int32 holds."""


@dataclass(frozen=True)
class Multiplier:
    """significand / 2**31 * 2**shift."""

    significand: int
    shift: int

    @staticmethod
    def of(value: float) -> "Multiplier":
        """The nearest to a number that is not negative (QuantizeMultiplier)."""
        if value == 0:
            return Multiplier(0, 0)
        fraction, shift = frexp(value)
        significand = round_away(fraction * ONE)
        if significand == ONE:
            significand, shift = ONE // 2, shift + 1
        return Multiplier(0, 0) if shift < -31 else Multiplier(significand, shift)


def round_away(value: float) -> int:
    """To the nearest whole number, halves away from zero (C's round)."""
    whole = int(abs(value))
    whole += abs(value) - whole >= 0.5
    return whole if value >= 0 else -whole


def high_mul(a: npt.ArrayLike, b: npt.ArrayLike) -> Ints:
    """SaturatingRoundingDoublingHighMul: a * b / 2**31, halves away from zero but -1/2 to 0. int32 in and out."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    total = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    found = np.sign(total) * (np.abs(total) >> 31)  # as C divides: towards zero
    return np.asarray(np.minimum(found, ONE - 1), np.int64)


def divide_by_power(x: npt.ArrayLike, exponent: npt.ArrayLike) -> Ints:
    """RoundingDivideByPOT: x / 2**exponent, halves away from zero."""
    values, power = np.asarray(x, np.int64), np.asarray(exponent, np.int64)
    mask = (np.int64(1) << power) - 1
    threshold = (mask >> 1) + (values < 0)
    return np.asarray((values >> power) + ((values & mask) > threshold), np.int64)


def times(x: npt.ArrayLike, multiplier: Multiplier, rounding: Rounding) -> Ints:
    """MultiplyByQuantizedMultiplier: int32 values times a multiplier, rounded."""
    return times_each(x, multiplier.significand, multiplier.shift, rounding)


def times_each(x: npt.ArrayLike, significand: npt.ArrayLike, shift: npt.ArrayLike, rounding: Rounding) -> Ints:
    """`times` with arrays of multipliers."""
    values, power = np.asarray(x, np.int64), np.asarray(shift, np.int64)
    if rounding == "single":
        total = 31 - power
        return np.asarray((values * np.asarray(significand, np.int64) + (np.int64(1) << (total - 1))) >> total)
    left, right = np.maximum(power, 0), np.maximum(-power, 0)
    return divide_by_power(high_mul(values << left, significand), right)


# ---- functions of one argument, in gemmlowp's Qm.n: int32 with m bits before the point


def rescale(x: npt.ArrayLike, exponent: int) -> Ints:
    """SaturatingRoundingMultiplyByPOT: x * 2**exponent, cut to int32."""
    if exponent < 0:
        return divide_by_power(x, -exponent)
    return np.asarray(np.clip(np.asarray(x, np.int64) << exponent, -ONE, ONE - 1), np.int64)


EXPONENTIALS = {
    -2: 1672461947,
    -1: 1302514674,
    0: 790015084,
    1: 290630308,
    2: 39332535,
    3: 720401,
    4: 242,
}
"""exp(-2**k) in Q0.31."""


def exponential(x: npt.ArrayLike, integer_bits: int) -> Ints:
    """exp_on_negative_values: exp of numbers <= 0 in Q(integer_bits), in Q0.31."""
    values = np.asarray(x, np.int64)
    fraction = 31 - integer_bits
    quarter = 1 << (fraction - 2)
    low = (values & (quarter - 1)) - quarter  # in -1/4..0
    result = _exponential_near_zero(rescale(low, integer_bits))
    rest = low - values
    for power, factor in EXPONENTIALS.items():
        if integer_bits > power:
            result = np.where(rest & (1 << (fraction + power)), high_mul(result, factor), result)
    return np.where(values == 0, ONE - 1, result)


def _exponential_near_zero(x: Ints) -> Ints:
    """Of -1/4 <= x < 0 in Q0.31: four terms of the series at -1/8."""
    x = x + (1 << 28)
    x2 = high_mul(x, x)
    x3, x4 = high_mul(x2, x), high_mul(x2, x2)
    series = divide_by_power(high_mul(divide_by_power(x4, 2) + x3, THIRD) + x2, 1)
    return EXP_OF_MINUS_EIGHTH + high_mul(EXP_OF_MINUS_EIGHTH, x + series)


THIRD, EXP_OF_MINUS_EIGHTH = 715827883, 1895147668


def reciprocal(x: npt.ArrayLike) -> Ints:
    """one_over_one_plus_x_for_x_in_0_1: 1 / (1 + x) in Q0.31, by three steps of Newton's method in Q2.29."""
    total = np.asarray(x, np.int64) + (ONE - 1)
    half = (total + 1) // 2  # RoundingHalfSum of numbers that are not negative
    found = 1515870810 + high_mul(half, -1010580540)  # 48/17 - 32/17 half
    for _ in range(3):
        found = found + rescale(high_mul(found, (1 << 29) - high_mul(half, found)), 2)
    return rescale(found, 1)


def round_half_away(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Floats to the nearest whole number, halves away from zero (C's round)."""
    whole = np.trunc(values)
    with np.errstate(invalid="ignore"):  # of infinity nothing is left
        half = np.abs(values - whole) >= 0.5
    return np.asarray(whole + np.where(half, np.sign(values), 0))
