"""How far one array is from another: the measures that reports and searches speak in."""

import numpy as np

from zc.ir.graph import Array


def sqnr(got: Array, want: Array) -> float:
    """Signal to quantisation noise ratio in dB: 10 log10(sum want^2 / sum (got - want)^2).

    Infinite for equal arrays; minus infinite where the signal is all zero and the noise is not.
    """
    a, b = _paired(got, want)
    return decibels(float(b @ b), float((a - b) @ (a - b)))


def cosine(got: Array, want: Array) -> float:
    """Cosine of the angle between the arrays as vectors; 1 when both are zero, 0 when one is."""
    a, b = _paired(got, want)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms else float(not a.any() and not b.any())


def max_abs(got: Array, want: Array) -> float:
    """Largest absolute difference."""
    a, b = _paired(got, want)
    return float(np.abs(a - b).max(initial=0.0))


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise), with infinities for nothing."""
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal else float("-inf")


def _paired(got: Array, want: Array) -> tuple[Array, Array]:
    if got.shape != want.shape:
        raise ValueError(f"arrays of shape {list(got.shape)} and {list(want.shape)} cannot be compared")
    return got.astype(np.float64).reshape(-1), want.astype(np.float64).reshape(-1)
