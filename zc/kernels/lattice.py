"""Kernels that choose whole codes under a quadratic cost: rounding along a triangular factor, and descent by one code.

The error of a vector of weights w for which codes c stand for scale * (c - zero) costs e^T H e. There is one such
problem for each output of a layer; the outputs of a group share H. Arrays are float64[groups, M, D], contiguous: M
outputs with D weights each; codes are whole numbers in them.

Each kernel has a NumPy twin, `<name>_numpy`: its specification, for one vector.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float64]

TILE = 32
"""Vectors that go through the factor together, so that a row of it is read once for all of them."""
MARGIN = 0.5 + 1e-6
"""A code moves only if it is farther than this from the best: of two as good, noise must not choose for ever."""


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def nearest_plane(  # type: ignore[no-untyped-def]
    factor, weights, scale, zero, lowest, highest, codes, start, stop
):
    """Round the vectors number start..stop - 1 (of groups * M), the last weight first.

    Each weight first moves to where it best makes up for the errors of those behind it. factor: float64[groups, D, D],
    upper triangular, factor^T factor = H. The others as in the module's text; `codes` is written.
    """
    outputs, size = weights.shape[1], weights.shape[2]
    error = np.zeros((TILE, size))
    first = start
    while first < stop:
        group, column = first // outputs, first % outputs
        many = min(TILE, stop - first, outputs - column)
        for i in range(size - 1, -1, -1):
            own = 1 / factor[group, i, i]
            for t in range(many):
                m = column + t
                passed = 0.0
                for j in range(i + 1, size):
                    passed += factor[group, i, j] * error[t, j]
                step = scale[group, m, i]
                aim = (weights[group, m, i] + passed * own) / step
                code = np.rint(aim) + zero[group, m, i]
                code = min(max(code, lowest[group, m, i]), highest[group, m, i])
                codes[group, m, i] = code
                error[t, i] = weights[group, m, i] - (code - zero[group, m, i]) * step
        first += many


def nearest_plane_numpy(factor: Floats, weights: Floats, scale: Floats, lowest: Floats, highest: Floats) -> Floats:
    """The specification of `nearest_plane`: one vector, zero points 0."""
    codes = np.zeros_like(weights)
    for i in range(len(weights))[::-1]:
        error = weights[i + 1 :] - codes[i + 1 :] * scale[i + 1 :]
        aim = weights[i] + factor[i, i + 1 :] @ error / factor[i, i]
        codes[i] = np.clip(np.rint(aim / scale[i]), lowest[i], highest[i])
    return codes


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def descend(  # type: ignore[no-untyped-def]
    moments, slope, scale, lowest, highest, codes, sweeps, start, stop
):
    """Move one code at a time to where the cost is least, until none moves or all were looked at `sweeps` times.

    moments: float64[groups, D, D], H. slope: H times the error of the codes; it and `codes` are edited. The vectors
    number start..stop - 1 (of groups * M) are looked at.
    """
    outputs, size = slope.shape[1], slope.shape[2]
    for number in range(start, stop):
        group, m = number // outputs, number % outputs
        for _ in range(sweeps):
            moved = False
            for i in range(size):
                wish = slope[group, m, i] / (moments[group, i, i] * scale[group, m, i])
                if abs(wish) < MARGIN:
                    continue
                old = codes[group, m, i]
                new = min(max(np.rint(old + wish), lowest[group, m, i]), highest[group, m, i])
                if new == old:
                    continue
                codes[group, m, i] = new
                step = (new - old) * scale[group, m, i]
                for j in range(size):
                    slope[group, m, j] -= moments[group, i, j] * step
                moved = True
            if not moved:
                break


def descend_numpy(
    moments: Floats, weights: Floats, scale: Floats, lowest: Floats, highest: Floats, codes: Floats, sweeps: int
) -> Floats:
    """The specification of `descend`: one vector, zero points 0."""
    codes = codes.copy()
    for i in [*range(len(codes))] * sweeps:
        wish = moments[i] @ (weights - codes * scale) / (moments[i, i] * scale[i])
        if abs(wish) >= MARGIN:
            codes[i] = np.clip(np.rint(codes[i] + wish), lowest[i], highest[i])
    return codes
