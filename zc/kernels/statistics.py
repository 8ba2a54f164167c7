"""Kernels that look at every value of a tensor during calibration.

Each has a NumPy twin, `<name>_numpy`: its specification. Importing this module imports Numba; compiled code is cached
beside it, so that only the first process pays for it.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]

LANES = 64
"""Independent running extremes: enough to fill the vector registers, so that LLVM need not reorder a comparison."""

LARGEST = np.float32(np.finfo(np.float32).max)


@njit(cache=True, nogil=True)
def extremes(values):  # type: ignore[no-untyped-def]
    """Smallest and largest finite value, and how many are NaN or infinite.

    values: float32[n], contiguous. Returns (low, high, nan, inf); low is +inf and high -inf where nothing is finite.
    """
    low = np.full(LANES, np.float32(np.inf), np.float32)
    high = np.full(LANES, np.float32(-np.inf), np.float32)
    odd = np.zeros(LANES, np.int32)
    blocks = values.size // LANES
    for block in range(blocks):
        base = block * LANES
        for lane in range(LANES):
            value = values[base + lane]
            low[lane] = value if value < low[lane] else low[lane]
            high[lane] = value if value > high[lane] else high[lane]
            odd[lane] |= 0 if abs(value) <= LARGEST else 1
    for i in range(blocks * LANES, values.size):
        value = values[i]
        low[0] = value if value < low[0] else low[0]
        high[0] = value if value > high[0] else high[0]
        odd[0] |= 0 if abs(value) <= LARGEST else 1
    if odd.max() == 0:
        return low.min(), high.max(), 0, 0
    return _finite_extremes(values)


@njit(cache=True, nogil=True)
def _finite_extremes(values):  # type: ignore[no-untyped-def]
    """`extremes` where some values are NaN or infinite: slower."""
    low, high = np.float32(np.inf), np.float32(-np.inf)
    nan, inf = 0, 0
    for value in values:
        if np.isnan(value):
            nan += 1
        elif np.isinf(value):
            inf += 1
        else:
            low, high = min(low, value), max(high, value)
    return low, high, nan, inf


def extremes_numpy(values: Floats) -> tuple[np.float32, np.float32, int, int]:
    """The specification of `extremes`."""
    finite = values[np.isfinite(values)]
    low = np.float32(finite.min(initial=np.inf))
    high = np.float32(finite.max(initial=-np.inf))
    return low, high, int(np.isnan(values).sum()), int(np.isinf(values).sum())


@njit(cache=True, nogil=True)
def count_bins(values, inverse_width, bins):  # type: ignore[no-untyped-def]
    """Add the finite values to a histogram whose bins are as wide as a power of two and mirrored at zero.

    values: float32[n], contiguous, |value| * inverse_width < half; inverse_width: float32, a power of two;
    bins: int64[2 * half], edited in place. Bin half + i counts values v >= 0 with i <= v * inverse_width < i + 1, bin
    half - 1 - i the values v < 0 with i <= -v * inverse_width < i + 1. As the product is exact (or a denormal that
    belongs to i = 0 on any grid), bins of half the width merge pairwise into exactly these.
    """
    half = bins.size // 2
    rounds = values.size // 4
    lanes = np.zeros((4, bins.size), np.int32)  # neighbours are often equal: one table each avoids waiting for a store
    for block in range(rounds):
        for lane in range(4):
            value = values[4 * block + lane]
            if abs(value) <= LARGEST:
                step = np.int32(abs(value) * inverse_width)
                lanes[lane, half - 1 - step if value < 0 else half + step] += 1
    for i in range(4 * rounds, values.size):
        value = values[i]
        if abs(value) <= LARGEST:
            step = np.int32(abs(value) * inverse_width)
            lanes[0, half - 1 - step if value < 0 else half + step] += 1
    for i in range(bins.size):
        bins[i] += lanes[0, i] + lanes[1, i] + lanes[2, i] + lanes[3, i]


def count_bins_numpy(values: Floats, inverse_width: np.float32, bins: Counts) -> None:
    """The specification of `count_bins`."""
    half = bins.size // 2
    finite = values[np.isfinite(values)]
    steps = (np.abs(finite) * inverse_width).astype(np.int64)
    np.add.at(bins, np.where(finite < 0, half - 1 - steps, half + steps), 1)
