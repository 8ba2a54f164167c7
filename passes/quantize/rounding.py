"""Second-order rounding: the codes of a layer's weights, chosen for the error that they make at its output.

Nearest rounding moves every weight by as little as possible. What counts is what the layer says: with rows of
covariance H, codes that stand for weights V instead of W cost trace((W - V)^T H (W - V)). The error of one weight can
be undone in part by weights whose inputs vary together with its own. So weights are rounded one after the other, each
after taking over what is left of the errors so far (Frantar et al., GPTQ: Accurate Post-Training Quantization, 2022; as
a walk along the Cholesky factor it is Babai's nearest plane). A descent then moves one code at a time until none gets
better. With few bits it also pays to clip the largest weights: the same cost chooses how far, for each output.

Arrays are [groups, D, M]: D inputs, M outputs of each group of a layer (`zc.passes.layers`).
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SWEEPS = 16
"""Most rounds of the descent; it mostly ends after three or four."""
CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5)
"""Shares of the range of an output's weights that its codes may span."""
PART = 64
"""Vectors that one thread rounds at a time."""


@dataclass(frozen=True)
class Grid:
    """What weights may become: scale * (code - zero) with whole codes from lowest to highest.

    Every field broadcasts against [groups, D, M].
    """

    scale: Floats
    zero: Floats
    lowest: Floats
    highest: Floats

    @property
    def one_scale_each(self) -> bool:
        """Do all weights of an output have the same scale?"""
        return bool((self.scale == self.scale[:, :1]).all())

    def nearest(self, weights: Floats) -> Floats:
        """The codes nearest to the weights."""
        return np.asarray(np.clip(np.rint(weights / self.scale) + self.zero, self.lowest, self.highest))

    def values(self, codes: Floats) -> Floats:
        """What codes stand for."""
        return (codes - self.zero) * self.scale

    def clipped(self, share: Floats | float) -> "Grid":
        """The grid with finer steps, so that it spans only a share of the range."""
        return Grid(self.scale * share, self.zero, self.lowest, self.highest)


def cost(weights: Floats, moments: Floats, grid: Grid, codes: Floats) -> Floats:
    """What the codes cost at each output, [groups, 1, M]."""
    error = weights - grid.values(codes)
    return np.asarray((error * (moments @ error)).sum(axis=1, keepdims=True))


def second_order(weights: Floats, moments: Floats, grid: Grid) -> Floats:
    """Codes [groups, D, M] of weights, with as little `cost` as can be found quickly, and no more than the nearest's.

    moments: [groups, D, D], symmetric and positive definite.
    """
    turn = _Turned(weights, moments)
    found, nearest = turn.back(turn.descended(grid, turn.rounded(grid))), grid.nearest(weights)
    better = cost(weights, moments, grid, found) < cost(weights, moments, grid, nearest)
    return np.where(better, found, nearest)


def best_clips(
    weights: Floats, moments: Floats, grid: Grid, least: Floats | float = 0.0, parts: int = 1
) -> tuple[Floats, Floats]:
    """Codes, and for each output the share of the grid's range that costs least, [groups, 1, M].

    least: scales may not become smaller than this; broadcasts against the grid's scale. parts: so many groups in a row
    are parts of the same outputs, and get the same share.
    """
    turn = _Turned(weights, moments)
    shares = np.ones((weights.shape[0], 1, weights.shape[2]))
    best = np.full(shares.shape, np.inf)
    codes = np.zeros_like(turn.weights)
    for clip in CLIPS:
        allowed = np.maximum(clip, np.max(np.broadcast_to(least / grid.scale, weights.shape), axis=1, keepdims=True))
        allowed = np.minimum(allowed, 1.0)
        found = turn.rounded(grid.clipped(allowed))
        paid = turn.cost(grid.clipped(allowed), found)
        paid = paid.reshape(-1, parts, *paid.shape[1:]).sum(axis=1).repeat(parts, axis=0)
        better = paid < best
        best, shares = np.where(better, paid, best), np.where(better, allowed, shares)
        codes = np.where(better.transpose(0, 2, 1), found, codes)
    return turn.back(turn.descended(grid.clipped(shares), codes)), shares


class _Turned:
    """A problem as the kernels take it: [groups, M, D], with the weights that vary most to be rounded first: last."""

    def __init__(self, weights: Floats, moments: Floats) -> None:
        self.order = np.argsort(np.einsum("gdd->gd", moments), axis=1, kind="stable")
        rows = np.take_along_axis(moments, self.order[:, :, None], 1)
        self.moments = np.ascontiguousarray(np.take_along_axis(rows, self.order[:, None, :], 2))
        self.factor = np.ascontiguousarray(np.linalg.cholesky(self.moments).transpose(0, 2, 1))
        self.weights = self._turn(weights)
        self.shape = weights.shape

    def _turn(self, array: Floats) -> Floats:
        taken = np.take_along_axis(array, self.order[:, :, None], 1)
        return np.ascontiguousarray(taken.transpose(0, 2, 1))

    def back(self, codes: Floats) -> Floats:
        """Codes as [groups, D, M] in the inputs' own order."""
        return np.take_along_axis(codes.transpose(0, 2, 1), np.argsort(self.order, axis=1)[:, :, None], 1)

    def _fields(self, grid: Grid) -> list[Floats]:
        fields = (grid.scale, grid.zero, grid.lowest, grid.highest)
        return [self._turn(np.broadcast_to(np.asarray(f, np.float64), self.shape)) for f in fields]

    def rounded(self, grid: Grid) -> Floats:
        """Codes along the factor."""
        from zc.kernels.lattice import nearest_plane  # imports the compiler, which a mere look at options need not

        codes = np.zeros_like(self.weights)
        scale, zero, low, high = self._fields(grid)
        self._in_parts(lambda a, b: nearest_plane(self.factor, self.weights, scale, zero, low, high, codes, a, b))
        return codes

    def descended(self, grid: Grid, codes: Floats) -> Floats:
        """Codes after the descent."""
        from zc.kernels.lattice import descend

        scale, zero, low, high = self._fields(grid)
        codes = codes.copy()
        slope = (self.weights - (codes - zero) * scale) @ self.moments
        self._in_parts(lambda a, b: descend(self.moments, slope, scale, low, high, codes, SWEEPS, a, b))
        return codes

    def cost(self, grid: Grid, codes: Floats) -> Floats:
        """As `cost`, [groups, 1, M]."""
        scale, zero, _, _ = self._fields(grid)
        error = self.weights - (codes - zero) * scale
        return np.asarray((error * (error @ self.moments)).sum(axis=2)[:, None])

    def _in_parts(self, work: Callable[[int, int], None]) -> None:
        count = self.weights.shape[0] * self.weights.shape[1]
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for done in [pool.submit(work, a, min(a + PART, count)) for a in range(0, count, PART)]:
                done.result()
