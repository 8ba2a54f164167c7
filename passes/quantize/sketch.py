"""Sketch: what calibration remembers of a value. Bounded, mergeable, and the same to the bit for any split of the data.

A histogram on a grid whose bin width is a power of two and which is mirrored at zero. When a larger value comes, the
width doubles and neighbouring bins merge: exactly, for every new edge was an edge before. So the state is a function
of the multiset of values alone: batch size, order, and the number of processes that shared the work do not show.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from zc.errors import ZcError

Method = Literal["minmax", "percentile"]

HALF = 2048
"""Bins on either side of zero."""

LOWEST_EXPONENT = -126
"""Width of the finest grid, as a power of two: the smallest normal float32."""


@dataclass
class Sketch:
    """Extremes and histogram of a value's finite elements, and how many were NaN or infinite."""

    low: float = np.inf
    high: float = -np.inf
    count: int = 0
    """Finite elements seen."""
    nan: int = 0
    inf: int = 0
    exponent: int = LOWEST_EXPONENT
    """The bins are 2**exponent wide."""
    bins: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(2 * HALF, np.int64), repr=False)
    """Bin HALF + i counts i <= v / width < i + 1 for v >= 0, bin HALF - 1 - i the same of -v for v < 0."""

    def update(self, values: npt.NDArray[Any]) -> None:
        """Add all elements of an array of any shape and real type."""
        from zc.kernels.statistics import count_bins, extremes

        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        low, high, nan, inf = extremes(flat)
        self.nan += int(nan)
        self.inf += int(inf)
        finite = flat.size - int(nan) - int(inf)
        if finite == 0:
            return
        self.count += finite
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
        self._grow(_exponent_for(max(-self.low, self.high)))
        count_bins(flat, np.float32(2.0**-self.exponent), self.bins)

    def merge(self, other: "Sketch") -> None:
        """Add what another sketch saw."""
        exponent = max(self.exponent, other.exponent)
        self._grow(exponent)
        self.bins = self.bins + _coarser(other.bins, exponent - other.exponent)
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.count, self.nan, self.inf = self.count + other.count, self.nan + other.nan, self.inf + other.inf

    def range(self, method: Method = "minmax", percentile: float = 99.999) -> tuple[float, float]:
        """Lowest and highest value to represent.

        minmax: all of them. percentile: all but the share 1 - percentile/100 with the largest magnitudes on each side
        of the distribution, to the nearest bin outward. ZcError when nothing was seen.
        """
        if self.count == 0:
            raise ZcError("no finite value was seen")
        if method == "minmax":
            return self.low, self.high
        spared = int(self.count * (1 - percentile / 100))
        below = np.cumsum(self.bins)
        first = int(np.searchsorted(below, spared, side="right"))
        last = int(np.searchsorted(below, self.count - spared, side="left"))
        width = 2.0**self.exponent
        return max(self.low, (first - HALF) * width), min(self.high, (last + 1 - HALF) * width)

    def _grow(self, exponent: int) -> None:
        if exponent > self.exponent:
            self.bins = _coarser(self.bins, exponent - self.exponent)
            self.exponent = exponent


def _exponent_for(magnitude: float) -> int:
    """The smallest exponent of a grid that holds the magnitude: magnitude / 2**exponent < HALF."""
    if magnitude == 0:
        return LOWEST_EXPONENT
    _, power = np.frexp(magnitude)  # magnitude = m * 2**power, 0.5 <= m < 1
    return max(LOWEST_EXPONENT, int(power) - (HALF.bit_length() - 1))


def _coarser(bins: npt.NDArray[np.int64], doublings: int) -> npt.NDArray[np.int64]:
    """The same histogram with bins 2**doublings as wide."""
    if doublings == 0:
        return bins
    merged = 2 ** min(doublings, HALF.bit_length() - 1)
    out = np.zeros_like(bins)
    kept = HALF // merged
    out[HALF : HALF + kept] = bins[HALF:].reshape(kept, merged).sum(axis=1)
    out[HALF - kept : HALF] = bins[:HALF].reshape(kept, merged).sum(axis=1)
    return out
