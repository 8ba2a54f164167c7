"""Sketch: what calibration remembers of a value. Bounded, mergeable, and the same to the bit for any split of the data.

A histogram whose bins are as fine, relative to what is in them, near a thousandth of the largest value as near the
largest itself (`zc.kernels.grid`). When a larger value comes, the lowest bins merge into those at zero: exactly, for
every bin of the new window is a union of old ones. So the state is a function of the set of values alone: batch size,
order, and the number of processes that shared the work do not show.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from zc.kernels.grid import HALF, LOWEST, Counts, edges, exponent_of, number, widened

Floats = npt.NDArray[np.float32]


@dataclass
class Sketch:
    """Extremes and histogram of a value's finite elements, and how many were NaN or infinite."""

    low: float = np.inf
    high: float = -np.inf
    count: int = 0
    """Finite elements seen."""
    zeros: int = 0
    """Those of them that are exactly zero."""
    nan: int = 0
    inf: int = 0
    exponent: int = LOWEST
    """Of the window: the lowest that holds all magnitudes."""
    bins: Counts = field(default_factory=lambda: np.zeros(2 * HALF, np.int64), repr=False)
    """Bin HALF + i counts edges[i] <= v < edges[i + 1], bin HALF - 1 - i the same of -v for v < 0."""

    def update(self, values: npt.NDArray[Any]) -> None:
        """Add all elements of an array of any shape and real type."""
        from zc.kernels.statistics import add_values, extremes

        rest: Floats = np.ascontiguousarray(values, np.float32).reshape(-1)
        while rest.size:
            done, low, high, zeros = add_values(rest, self.exponent, self.bins)
            if done:
                self.count, self.zeros = self.count + int(done), self.zeros + int(zeros)
                self.low, self.high = min(self.low, number(low)), max(self.high, number(high))
            if done == rest.size:
                return
            rest = rest[done:]  # it begins with values that are too large for the window, or no numbers
            low, high, nan, inf = extremes(rest)
            self.nan, self.inf = self.nan + int(nan), self.inf + int(inf)
            if nan or inf:
                rest = rest[np.isfinite(rest)]
            if rest.size:
                self._grow(exponent_of(max(-number(low), number(high))))

    def merge(self, other: "Sketch") -> None:
        """Add what another sketch saw."""
        exponent = max(self.exponent, other.exponent)
        self._grow(exponent)
        self.bins = self.bins + widened(other.bins, exponent - other.exponent)
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.count, self.zeros = self.count + other.count, self.zeros + other.zeros
        self.nan, self.inf = self.nan + other.nan, self.inf + other.inf

    def edges(self) -> npt.NDArray[np.float64]:
        """The 2 * HALF + 1 edges of the bins, ascending. The number zero counts as above the edge at zero."""
        above = edges(self.exponent)
        return np.concatenate([-above[:0:-1], above])

    def _grow(self, exponent: int) -> None:
        if exponent > self.exponent:
            self.bins = widened(self.bins, exponent - self.exponent)
            self.exponent = exponent


@dataclass
class ChannelSketch:
    """Lowest and highest finite element of each index along an axis of a value."""

    axis: int
    low: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    """float32[channels]; +inf where nothing was seen. Without channels until the first update."""
    high: Floats = field(default_factory=lambda: np.zeros(0, np.float32))

    def update(self, values: npt.NDArray[Any]) -> None:
        """Add an array; ValueError when it has another number of channels than those before."""
        from zc.kernels.statistics import add_channels

        axis = self.axis % values.ndim
        channels = values.shape[axis]
        self._size(channels)
        outer = int(np.prod(values.shape[:axis]))
        inner = int(np.prod(values.shape[axis + 1 :]))
        add_channels(np.ascontiguousarray(values, np.float32).reshape(outer, channels, inner), self.low, self.high)
        self._plain()

    def merge(self, other: "ChannelSketch") -> None:
        """Add what another sketch of the same value saw."""
        if other.low.size:
            self._size(other.low.size)
            self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
            self._plain()

    def _plain(self) -> None:
        """Which zero came first must not show."""
        self.low, self.high = self.low + np.float32(0), self.high + np.float32(0)

    def _size(self, channels: int) -> None:
        if not self.low.size:
            self.low, self.high = np.full(channels, np.inf, np.float32), np.full(channels, -np.inf, np.float32)
        if self.low.size != channels:
            raise ValueError(f"{channels} channels after {self.low.size}")
