"""What a range of codes costs a distribution: the squared error of rounding and clipping, and lost information.

A distribution is given as bins, ascending: left, right float64[n] and mass float64[n], spread evenly within a bin.
Codes stand at the multiples of `step` from lowest * step to highest * step. Each kernel has a NumPy twin,
`<name>_numpy`, which is its specification.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float64]

FLOOR = 1e-9
"""The least share that `divergence` takes a code to have."""


@njit(cache=True, nogil=True, error_model="numpy")
def squared_error(left, right, mass, step, lowest, highest, clip_cost):  # type: ignore[no-untyped-def]
    """Sum over the mass of (x - nearest code)**2; exact for the distribution as given.

    Where x lies more than half a step outside the codes, it counts `clip_cost` times. The integral of the plain
    squared error up to x is n * step**3 / 12 + u**3 / 3, where n is the code nearest to x and u how far x lies above
    it; beyond the last codes n stays and u grows.
    """
    # Terms first, sums after: a sum has an order, so that a loop with one is not done several bins at a time.
    terms = np.empty(left.size)
    for i in range(left.size):
        before = _integral(left[i], step, lowest, highest, clip_cost)
        after = _integral(right[i], step, lowest, highest, clip_cost)
        terms[i] = mass[i] * (after - before) / (right[i] - left[i])
    total = 0.0
    for i in range(left.size):
        total += terms[i]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _integral(x, step, lowest, highest, clip_cost):  # type: ignore[no-untyped-def]
    n = np.rint(x / step)
    n = lowest if n < lowest else n
    n = highest if n > highest else n
    u = x - n * step
    inner = -step / 2 if u < -step / 2 else u
    inner = step / 2 if inner > step / 2 else inner
    cube = inner * inner * inner
    return n * step * step * step / 12 + (cube + clip_cost * (u * u * u - cube)) / 3


def squared_error_numpy(
    left: Floats, right: Floats, mass: Floats, step: float, lowest: float, highest: float, clip_cost: float
) -> float:
    """The specification of `squared_error`."""

    def integral(x: Floats) -> Floats:
        n = np.clip(np.rint(x / step), lowest, highest)
        u = x - n * step
        cube = np.clip(u, -step / 2, step / 2) ** 3
        return n * step**3 / 12 + (cube + clip_cost * (u**3 - cube)) / 3

    return float(np.sum(mass * (integral(right) - integral(left)) / (right - left)))


@njit(cache=True, nogil=True, error_model="numpy")
def _passed(left, right, mass, start, size, count):  # type: ignore[no-untyped-def]
    """The mass below each of `count` cuts, evenly spaced from `start`."""
    found = np.empty(count)
    place, before = 0, 0.0
    for i in range(count):
        cut = start + i * size
        while place < left.size and right[place] <= cut:
            before += mass[place]
            place += 1
        found[i] = before
        if place < left.size and left[place] < cut:
            found[i] += mass[place] * (cut - left[place]) / (right[place] - left[place])
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def divergence(left, right, mass, step, lowest, highest, parts):  # type: ignore[no-untyped-def]
    """Kullback-Leibler divergence of the distribution from what its codes tell of it, in nats.

    P: the mass in `parts` even intervals for each code; what lies outside the codes is added to the outermost ones.
    Q: the mass inside, of each code spread evenly over those of its intervals where P is not zero. (Migacz, 8-bit
    Inference with TensorRT, GTC 2017.) A code with no mass of its own, where P has some, gets the share `FLOOR`.

    A finite sample is never even: P differs from Q by chance alone, the more the finer the intervals. That is taken off
    (Miller and Madow: (w - 1) / 2n for n samples in w intervals; less where there are only few in each, for an interval
    with one sample tells nothing). So `mass` must be numbers of samples. Infinite where nothing is inside.
    """
    codes = int(highest - lowest) + 1
    below = _passed(left, right, mass, (lowest - 0.5) * step, step / parts, codes * parts + 1)
    total = mass.sum()
    inside = below[-1] - below[0]
    if inside <= 0:
        return np.inf
    result = 0.0
    for code in range(codes):
        first = code * parts
        samples = below[first + parts] - below[first]
        share, wide = 0.0, 0
        for j in range(first, first + parts):
            p = below[j + 1] - below[j]
            if j == 0:
                p += below[0]
            if j == codes * parts - 1:
                p += total - below[-1]
            if p > 0:
                p /= total
                result += p * np.log(p)
                share, wide = share + p, wide + 1
        if wide:
            result -= share * np.log(max(samples / inside, FLOOR) / wide)
        if samples > wide:
            result -= (wide - 1) / (2 * total) * (1 - wide / samples)
    return result


def divergence_numpy(
    left: Floats, right: Floats, mass: Floats, step: float, lowest: float, highest: float, parts: int
) -> float:
    """The specification of `divergence`."""
    codes = round(highest - lowest) + 1
    cuts = (lowest - 0.5) * step + np.arange(codes * parts + 1) * (step / parts)
    known = np.concatenate([[0.0], np.cumsum(mass)])
    at = np.column_stack([left, right]).reshape(-1)
    below = np.interp(cuts, at, np.column_stack([known[:-1], known[1:]]).reshape(-1))
    own = np.diff(below)
    if own.sum() <= 0:
        return float("inf")
    p = own.copy()
    p[0] += below[0]
    p[-1] += known[-1] - below[-1]
    p = (p / p.sum()).reshape(codes, parts)
    wide = (p > 0).sum(axis=1)
    samples = own.reshape(codes, parts).sum(axis=1)
    q = np.broadcast_to((np.maximum(samples / own.sum(), FLOOR) / np.maximum(wide, 1))[:, None], p.shape)
    chance = (wide - 1) / (2 * known[-1]) * (1 - wide / np.maximum(samples, 1e-300))
    return float(np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0])) - np.sum(chance[samples > wide]))
