"""Means and covariances of rows of numbers, in one pass; and how sure a figure is that is made of the means."""

import math
from collections.abc import Callable

import numpy as np

from zc.ir.graph import Array


class Moments:
    """Mean and covariance of the columns of all rows that were added; the memory does not grow with them."""

    def __init__(self, columns: int) -> None:
        self.rows = 0
        self.mean = np.zeros(columns)
        self._spread = np.zeros((columns, columns))

    def add(self, block: Array) -> None:
        """Rows of float64 [n, columns]; merged as by Chan, Golub and LeVeque (1979), which does not lose digits."""
        count = len(block)
        if not count:
            return
        mean = block.mean(axis=0)
        centred = block - mean
        shift = mean - self.mean
        total = self.rows + count
        self._spread += centred.T @ centred + np.outer(shift, shift) * (self.rows * count / total)
        self.mean = self.mean + shift * (count / total)
        self.rows = total

    def error_of(self, figure: Callable[[Array], float]) -> float | None:
        """Standard error of `figure(mean)`, to first order (the delta method); exact where it is linear.

        None for less than two rows, or where the figure is not finite.
        """
        if self.rows < 2 or not np.isfinite(figure(self.mean)):
            return None
        slope = np.zeros(len(self.mean))
        for i in range(len(slope)):
            step = np.zeros(len(slope))
            step[i] = 1e-6 * max(abs(self.mean[i]), 1e-9)
            slope[i] = (figure(self.mean + step) - figure(self.mean - step)) / (2 * step[i])
        if not np.isfinite(slope).all():
            return None
        variance = float(slope @ self._spread @ slope) / (self.rows - 1) / self.rows
        return math.sqrt(max(variance, 0.0))
