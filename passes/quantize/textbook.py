"""The textbook form of quantisation: whole numbers of n bits between the smallest and the largest value.

    codes = clip(rint(x / scale) + zero)        x ~ scale * (codes - zero)

                  codes                            scale                        zero
    symmetric     -(2**(n-1) - 1) .. 2**(n-1) - 1  max|x| / (2**(n-1) - 1)      0
    asymmetric    0 .. 2**n - 1                    (high - low) / (2**n - 1)    rint(-low / scale)

where low <= 0 <= high are the extremes of x, zero included, so that zero is represented exactly. (Jacob et al.,
Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2018, section 2;
Krishnamoorthi, Quantizing deep convolutional networks for efficient inference, 2018, section 2.) What writes codes is
tested against these two functions.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zc.errors import ZcError
from zc.ir.graph import Array

Floats = npt.NDArray[np.float64]
Axes = int | tuple[int, ...] | None


@dataclass(frozen=True, eq=False)
class Codes:
    """Whole numbers and what they stand for."""

    codes: npt.NDArray[np.int64]
    scale: Floats
    """Broadcasts against the codes."""
    zero: npt.NDArray[np.int64]
    """The code of 0; broadcasts against the codes."""
    lowest: int
    highest: int


def quantise(values: Array, bits: int = 8, *, symmetric: bool = False, axis: Axes = None) -> Codes:
    """Min-max quantisation of an array of finite floats.

    bits: 1 to 16; symmetric needs 2. axis: along which each index has a scale of its own (per channel); None: one scale
    for all (per tensor). A channel of nothing but zeros gets scale 1. ZcError for other bits.
    """
    if not 1 + symmetric <= bits <= 16:
        raise ZcError(f"bits is {bits}; give {1 + symmetric} to 16")
    numbers = np.asarray(values, np.float64)
    kept = () if axis is None else tuple(a % numbers.ndim for a in np.atleast_1d(axis))
    others = tuple(a for a in range(numbers.ndim) if a not in kept)
    low = np.minimum(numbers.min(axis=others, keepdims=True, initial=0), 0)
    high = np.maximum(numbers.max(axis=others, keepdims=True, initial=0), 0)
    if symmetric:
        lowest, highest = -(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1
        scale = np.maximum(-low, high) / highest
    else:
        lowest, highest = 0, 2**bits - 1
        scale = (high - low) / highest
    scale = np.where(scale > 0, scale, 1.0)
    zero = np.zeros_like(scale) if symmetric else np.rint(-low / scale)
    codes = np.clip(np.rint(numbers / scale) + zero, lowest, highest)
    return Codes(codes.astype(np.int64), scale, zero.astype(np.int64), lowest, highest)


def dequantise(coded: Codes) -> Floats:
    """What the codes stand for."""
    return np.asarray((coded.codes - coded.zero) * coded.scale)
