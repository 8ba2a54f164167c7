"""Kernels that look at every value of a tensor during calibration.

Each has a NumPy twin, `<name>_numpy`: its specification. Importing this module imports Numba; compiled code is cached
beside it, so that only the first process pays for it.
"""

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.np import arrayobj

from zc.kernels import emit
from zc.kernels.cpu import FORM
from zc.kernels.emit import I8, I16, I32, I64, W16, intrinsic
from zc.kernels.grid import HALF, LOWEST, MANTISSA, SHIFT, Counts, base, limits

Floats = npt.NDArray[np.float32]

_SHIFT = np.int32(SHIFT)
_MAGNITUDE = np.int32(0x7FFFFFFF)
_SIGN = np.int32(31)
_ZERO, _ONE, _HALF, _BINS = np.int32(0), np.int32(1), np.int32(HALF), np.int32(2 * HALF)
_INFINITE = np.int32(0x7F800000)
"""Bits of infinity; the magnitude of a NaN is above."""
_LOWEST, _HIGHEST = np.int32(-0x80000000), np.int32(0x7FFFFFFF)

_LINE = 16
"""int32 of a cache line."""

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


@intrinsic
def _filled_places(context: Any, bits: Any, at: Any, start: Any, index: Any, end: Any) -> Any:
    """Write the bins of the 16 values bits[at:at + 16] that are not zero to index[end:]; returns their number.

    All of index[end:end + 16] is written. AVX-512 alone.
    """

    def generate(target: Any, b: Any, signature: Any, arguments: Any) -> Any:
        def address(which: int, place: int) -> Any:
            array = arrayobj.make_array(signature.args[which])  # type: ignore[no-untyped-call]
            return b.gep(array(target, b, arguments[which]).data, [arguments[place]])

        values = b.load(b.bitcast(address(0, 1), W16.as_pointer()), align=4)
        magnitude = b.and_(values, emit.same(W16, int(_MAGNITUDE)))
        step = b.sub(b.lshr(magnitude, emit.same(W16, SHIFT)), emit.splat(b, arguments[2], 16))
        step = emit.call(b, "llvm.smax.v16i32", W16, step, emit.same(W16, 0))
        place = b.add(b.xor(step, b.ashr(values, emit.same(W16, 31))), emit.same(W16, HALF))
        filled = b.icmp_signed("!=", magnitude, emit.same(W16, 0))
        # By way of a register: some processors are slow to store chosen lanes. The rest is overwritten later.
        packed = emit.call(b, "llvm.x86.avx512.mask.compress.v16i32", W16, place, emit.same(W16, 0), filled)
        b.store(packed, b.bitcast(address(3, 4), W16.as_pointer()), align=4)
        return b.zext(emit.call(b, "llvm.ctpop.i16", I16, b.bitcast(filled, I16)), I64)

    return types.int64(bits, types.intp, types.int32, index, types.intp), generate


@njit(cache=True, nogil=True)
def _place(order, start):  # type: ignore[no-untyped-def]
    """The bin of a value, by its key."""
    one = np.int32(order ^ ((order >> _SIGN) & _MAGNITUDE))
    step = max(np.int32(((one & _MAGNITUDE) >> _SHIFT) - start), _ZERO)
    return np.int32(_HALF + np.int32(step ^ (one >> _SIGN)))  # HALF + step, or HALF - 1 - step


@njit(cache=True, nogil=True)
def _all_places(block, start, index):  # type: ignore[no-untyped-def]
    """Write the bin of each value of int32[n] to `index`; zeros get the place behind the last bin. Returns n."""
    for i in range(0, block.size, _LINE):
        _prefetch(block, block.size + i)
    for i in range(block.size):
        one = block[i]
        order = np.int32(one ^ ((one >> _SIGN) & _MAGNITUDE))
        index[i] = _BINS if one & _MAGNITUDE == _ZERO else _place(order, start)
    return block.size


@njit(cache=True, nogil=True)
def _packed_places(block, start, index):  # type: ignore[no-untyped-def]
    """As `_all_places`, but leaves zeros out where it can: half of what stands behind a Relu is not counted then."""
    end = 0
    for i in range(block.size // 16):
        _prefetch(block, block.size + 16 * i)
        end += _filled_places(block, 16 * i, start, index, end)
    whole = block.size // 16 * 16
    return end + _all_places(block[whole:], start, index[end:])


_places = _packed_places if FORM.vnni else _all_places
"""Moving chosen lanes of a vector together is one instruction of AVX-512, and a branch for each elsewhere."""


_own = threading.local()


def add_values(values: Floats, exponent: int, bins: Counts) -> tuple[int, int, int, int]:
    """Extremes and histogram in one sweep over memory, up to the first block with a value outside the window.

    values: float32[n], contiguous. exponent: of the window, see `zc.kernels.grid`. bins: int64[2 * HALF], added to in
    place: bin HALF + i counts the v >= 0 (-0.0 too) whose bits >> SHIFT are base + i, bin HALF - 1 - i those v < 0 for
    which -v is so; i = 0 takes all that are smaller, too. Returns (values done, lowest key, highest key, zeros), of the
    values done only; the lowest is above the highest where nothing is done.
    """
    lanes = getattr(_own, "lanes", None)
    if lanes is None:
        # They lie a cache line off a page from each other, or the processor would take equal bins of two tables for one
        # place. The first place behind the bins counts exact zeros, where they are listed.
        lanes = _own.lanes = np.zeros((4, 2 * HALF + _LINE), np.int32)
    return _add_values(values, exponent, bins, lanes)  # type: ignore[no-any-return]


@njit(cache=True, nogil=True)
def _add_values(values, exponent, bins, lanes):  # type: ignore[no-untyped-def]
    """`add_values` with int32[4, 2 * HALF + 1 or more], all zero before and after.

    Neighbours are often equal: a table for each of four avoids waiting for a store.
    """
    bits = values.view(np.int32)
    size = values.size
    start = np.int32((exponent - LOWEST) << MANTISSA)
    top = np.int32((start + _HALF) << _SHIFT)  # bits of 2**exponent; the key of -2**exponent is ~top
    low, high = _HIGHEST, _LOWEST
    index = np.empty(BLOCK, np.int32)
    first, second, third, fourth = lanes[0], lanes[1], lanes[2], lanes[3]
    done, counted = 0, 0
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
        listed = _places(block, start, index)
        for i in range(listed // 4):
            first[np.uint32(index[4 * i])] += _ONE
            second[np.uint32(index[4 * i + 1])] += _ONE
            third[np.uint32(index[4 * i + 2])] += _ONE
            fourth[np.uint32(index[4 * i + 3])] += _ONE
        for i in range(listed // 4 * 4, listed):
            first[np.uint32(index[i])] += _ONE
        counted += listed
        done += count
    if done == 0:
        return done, low, high, 0
    zeros = done - counted + first[_BINS] + second[_BINS] + third[_BINS] + fourth[_BINS]
    for i in range(_place(low, start), _place(high, start) + 1):
        bins[i] += first[i] + second[i] + third[i] + fourth[i]
    bins[_HALF] += zeros
    for lane in range(4):
        lanes[lane, _place(low, start) : _place(high, start) + 1] = _ZERO
        lanes[lane, _BINS] = _ZERO
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
