"""Kernels that look at every value of a tensor during calibration.

Each has a NumPy twin, `<name>_numpy`: its specification. Importing this module imports Numba; compiled code is cached
beside it, so that only the first process pays for it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.np import arrayobj

from zc.kernels.emit import I8, I32, intrinsic
from zc.kernels.grid import HALF, LOWEST, MANTISSA, SHIFT, Counts, base, limits

Floats = npt.NDArray[np.float32]

_SHIFT = np.int32(SHIFT)
_MAGNITUDE = np.int32(0x7FFFFFFF)
_SIGN = np.int32(31)
_ZERO, _ONE, _HALF, _BINS = np.int32(0), np.int32(1), np.int32(HALF), np.int32(2 * HALF)
_INFINITE = np.int32(0x7F800000)
"""Bits of infinity; the magnitude of a NaN is above."""
_LOWEST, _HIGHEST = np.int32(-0x80000000), np.int32(0x7FFFFFFF)

BLOCK = 1024
"""Values looked at before the next: they stay in the first cache while extremes, bins and counts are taken."""


@intrinsic
def _prefetch(context: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of array[index], also behind its end. Counting leaves the memory idle otherwise."""

    def generate(target: Any, b: Any, signature: Any, arguments: Any) -> Any:
        data = arrayobj.make_array(signature.args[0])(target, b, arguments[0]).data  # type: ignore[no-untyped-call]
        address = b.bitcast(b.gep(data, [arguments[1]]), I8.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
        ask = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0i8")  # type: ignore[no-untyped-call]
        b.call(ask, [address, *(ir.Constant(I32, how) for how in (0, 3, 1))])  # to read, to keep, data
        return target.get_dummy_value()

    return types.void(array, types.intp), generate


@njit(cache=True, nogil=True)
def add_values(values, exponent, bins):  # type: ignore[no-untyped-def]
    """Extremes and histogram in one sweep over memory, up to the first block with a value outside the window.

    values: float32[n], contiguous. exponent: of the window, see `zc.kernels.grid`. bins: int64[2 * HALF], added to in
    place: bin HALF + i counts the v >= 0 (-0.0 too) whose bits >> SHIFT are base + i, bin HALF - 1 - i those v < 0 for
    which -v is so; i = 0 takes all that are smaller, too. Returns (values done, lowest key, highest key, zeros), of the
    values done only; the lowest is above the highest where nothing is done.
    """
    bits = values.view(np.int32)
    size = values.size
    start = np.int32((exponent - LOWEST) << MANTISSA)
    top = np.int32((start + _HALF) << _SHIFT)  # bits of 2**exponent; the key of -2**exponent is ~top
    low, high = _HIGHEST, _LOWEST
    index = np.empty(BLOCK, np.int32)
    # Neighbours are often equal: a table for each of four avoids waiting for a store. They lie a cache line off a page
    # from each other, or the processor would take equal bins of two tables for one place.
    # The first place behind the bins counts exact zeros.
    lanes = np.zeros((4, bins.size + 16), np.int32)
    first, second, third, fourth = lanes[0], lanes[1], lanes[2], lanes[3]
    done = 0
    while done < size:
        count = min(BLOCK, size - done)
        block = bits[done : done + count]
        least, most = _HIGHEST, _LOWEST
        for i in range(count):
            one = block[i]
            order = np.int32(one ^ ((one >> _SIGN) & _MAGNITUDE))
            least, most = min(least, order), max(most, order)
        if least <= ~top or most >= top:
            break
        low, high = min(low, least), max(high, most)
        for i in range(count):
            one = block[i]
            magnitude = one & _MAGNITUDE
            step = max(np.int32((magnitude >> _SHIFT) - start), _ZERO)
            place = np.int32(_HALF + np.int32(step ^ (one >> _SIGN)))  # HALF + step, or HALF - 1 - step
            index[i] = _BINS if magnitude == _ZERO else place
        for i in range(count // 4):
            if i % 4 == 0:
                _prefetch(bits, done + count + 4 * i)
            first[np.uint32(index[4 * i])] += _ONE
            second[np.uint32(index[4 * i + 1])] += _ONE
            third[np.uint32(index[4 * i + 2])] += _ONE
            fourth[np.uint32(index[4 * i + 3])] += _ONE
        for i in range(count // 4 * 4, count):
            first[np.uint32(index[i])] += _ONE
        done += count
    for i in range(bins.size):
        bins[i] += first[i] + second[i] + third[i] + fourth[i]
    zeros = first[_BINS] + second[_BINS] + third[_BINS] + fourth[_BINS]
    bins[_HALF] += zeros
    return done, low, high, zeros


def add_values_numpy(values: Floats, exponent: int, bins: Counts) -> tuple[int, int, int, int]:
    """The specification of `add_values`."""
    lowest, highest = limits(exponent)
    bits = values.view(np.int32)
    keys = np.where(bits < 0, bits ^ _MAGNITUDE, bits)
    odd = (keys < lowest) | (keys > highest)
    done = int(odd.argmax()) // BLOCK * BLOCK if odd.any() else values.size
    bits, keys = bits[:done], keys[:done]
    step = np.maximum(((bits & _MAGNITUDE) >> _SHIFT) - base(exponent), 0)
    np.add.at(bins, np.where(values[:done] < 0, HALF - 1 - step, HALF + step), 1)
    low = int(keys.min(initial=int(_HIGHEST)))
    return done, low, int(keys.max(initial=int(_LOWEST))), int((values[:done] == 0).sum())


@njit(cache=True, nogil=True)
def extremes(values):  # type: ignore[no-untyped-def]
    """Lowest and highest key of the finite values, and how many are NaN or infinite.

    values: float32[n], contiguous. Returns (low, high, nan, inf), int32 keys; the lowest is above the highest where
    nothing is finite.
    """
    bits = values.view(np.int32)
    low, high = _HIGHEST, _LOWEST
    for i in range(bits.size):
        one = bits[i]
        order = np.int32(one ^ ((one >> _SIGN) & _MAGNITUDE))
        low, high = min(low, order), max(high, order)
    if low > ~_INFINITE and high < _INFINITE:
        return low, high, 0, 0
    low, high = _HIGHEST, _LOWEST
    nan, inf = 0, 0
    for one in bits:
        magnitude = one & _MAGNITUDE
        if magnitude < _INFINITE:
            order = np.int32(one ^ ((one >> _SIGN) & _MAGNITUDE))
            low, high = min(low, order), max(high, order)
        elif magnitude == _INFINITE:
            inf += 1
        else:
            nan += 1
    return low, high, nan, inf


def extremes_numpy(values: Floats) -> tuple[int, int, int, int]:
    """The specification of `extremes`."""
    bits = values[np.isfinite(values)].view(np.int32)
    keys = np.where(bits < 0, bits ^ _MAGNITUDE, bits)
    low, high = int(keys.min(initial=int(_HIGHEST))), int(keys.max(initial=int(_LOWEST)))
    return low, high, int(np.isnan(values).sum()), int(np.isinf(values).sum())


@njit(cache=True, nogil=True)
def add_channels(values, low, high):  # type: ignore[no-untyped-def]
    """Extremes of each channel. NaN and infinite values are left out.

    values: float32[outer, channels, inner], contiguous; low, high: float32[channels], edited in place.
    """
    for outer in range(values.shape[0]):
        for channel in range(values.shape[1]):
            least, most = low[channel], high[channel]
            row = values[outer, channel]
            for i in range(row.size):
                value = row[i]
                finite = abs(value) < np.float32(np.inf)
                least = value if finite and value < least else least
                most = value if finite and value > most else most
            low[channel], high[channel] = least, most


def add_channels_numpy(values: Floats, low: Floats, high: Floats) -> None:
    """The specification of `add_channels`."""
    finite = np.isfinite(values)
    low[:] = np.minimum(low, np.where(finite, values, np.inf).min(axis=(0, 2), initial=np.inf))
    high[:] = np.maximum(high, np.where(finite, values, -np.inf).max(axis=(0, 2), initial=-np.inf))
