"""The bins of a calibration histogram: as fine, relative to what is in them, near a thousandth of the largest value as
near the largest itself.

A bin is a sign, an exponent and the first `MANTISSA` bits of the mantissa of a float32 (as in HdrHistogram, and in
Masson et al., DDSketch, VLDB 2019). Those of the largest `OCTAVES` powers of two are kept; what is smaller shares the
two bins at zero. A larger value moves the window up: the lowest bins merge into those at zero, exactly, for bins are
nested.
"""

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

MANTISSA = 8
OCTAVES = 16
HALF = OCTAVES << MANTISSA
"""Bins on either side of zero."""

SHIFT = 23 - MANTISSA
"""Bits of a float32 that do not tell bins apart."""

LOWEST = OCTAVES - 127
"""The lowest exponent of a window: its bins begin at zero, where denormal numbers are spaced evenly."""
HIGHEST = 128
"""All finite float32 are below 2**128."""

_MAGNITUDE = 0x7FFFFFFF


def exponent_of(magnitude: float) -> int:
    """The lowest window that holds a finite magnitude: the smallest e >= LOWEST with magnitude < 2**e."""
    # magnitude = m * 2**e, 0.5 <= m < 1; zero has e = 0
    return max(LOWEST, int(np.frexp(magnitude)[1])) if magnitude else LOWEST


def base(exponent: int) -> int:
    """`bits >> SHIFT` of the float32 at which the window with that exponent begins."""
    return (exponent - LOWEST) << MANTISSA


def edges(exponent: int) -> npt.NDArray[np.float64]:
    """The HALF + 1 edges of the bins at and above zero, from 0 to 2**exponent."""
    numbers = np.arange(HALF + 1, dtype=np.int64) + base(exponent)
    found = (numbers[:-1] << SHIFT).astype(np.int32).view(np.float32).astype(np.float64)
    return np.concatenate([[0.0], found[1:], [2.0**exponent]])


def limits(exponent: int) -> tuple[int, int]:
    """Keys of the lowest and the highest float32 that a window holds."""
    top = (base(exponent) + HALF) << SHIFT  # bits of 2**exponent
    return -top, top - 1


def widened(bins: Counts, octaves: int) -> Counts:
    """The same histogram in a window that is so many powers of two higher; bins: int64[2 * HALF]."""
    if octaves == 0:
        return bins
    gone = min(octaves << MANTISSA, HALF - 1)
    out = np.zeros_like(bins)
    out[HALF : 2 * HALF - gone] = bins[HALF + gone :]
    out[gone:HALF] = bins[: HALF - gone]
    out[HALF] += bins[HALF : HALF + gone].sum()
    out[HALF - 1] += bins[HALF - gone : HALF].sum()
    return out


def key(value: float) -> int:
    """The bits of a float32 as an integer that sorts like the number (-0.0 just below 0.0)."""
    bits = int(np.array(value, np.float32).view(np.int32))
    return bits ^ _MAGNITUDE if bits < 0 else bits


def number(key: int) -> float:
    """The number of a key; 0.0 for both zeros."""
    bits = int(key) ^ _MAGNITUDE if key < 0 else int(key)
    return float(np.array(bits, np.int32).view(np.float32)) + 0.0
