"""Numbers and codes: scales, zero points, rounding. Every step as ONNX's QuantizeLinear does it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zc.ir.graph import Array
from zc.target import QuantType

Floats = npt.NDArray[np.float64]

SMALLEST_SCALE = 2.0**-60
"""Scales, and products of two of them, stay normal float32 numbers."""

WEIGHT_LIMIT = 127
"""Weights take -127..127: symmetric, so that the zero point is 0 in every dialect."""

BIAS_LIMIT = 2**31 - 1

WIDE: dict[QuantType, QuantType] = {"uint8": "uint16", "int8": "int16", "uint16": "uint16", "int16": "int16"}
"""The type of codes with 16 bits that is like another."""


@dataclass(frozen=True)
class Scale:
    """How a value is coded: value = scale * (code - zero_point)."""

    scale: np.float32
    zero_point: int
    type: QuantType

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the codes."""
        return np.dtype(self.type)

    @property
    def zero(self) -> Array:
        """The zero point as a scalar of the codes' type."""
        return np.array(self.zero_point, self.dtype)

    def quantize(self, values: Array) -> Array:
        """Codes, saturated: sat(rne(x / scale) + zero_point)."""
        info = np.iinfo(self.dtype)
        codes = np.rint(values.astype(np.float32) / self.scale).astype(np.float64) + self.zero_point
        return np.asarray(np.clip(codes, info.min, info.max), self.dtype)


def activation_scale(low: float, high: float, kind: QuantType, symmetric: bool) -> Scale:
    """The scale that represents low..high and, exactly, zero.

    A range without width (a dead value) gets scale 1.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    info = np.iinfo(np.dtype(kind))
    middle = (info.max + info.min + 1) // 2
    if low == high:
        return Scale(np.float32(1), middle if symmetric or info.min < 0 else 0, kind)
    if symmetric:
        step = max(-low, high) / ((info.max - info.min) // 2)
        return Scale(np.float32(max(step, SMALLEST_SCALE)), middle, kind)
    scale = np.float32(max((high - low) / (info.max - info.min), SMALLEST_SCALE))
    return Scale(scale, int(np.clip(info.min + np.rint(-low / float(scale)), info.min, info.max)), kind)


def weight_scales(
    weight: Array, axis: int | None, room: Floats | None = None, limit: int = WEIGHT_LIMIT
) -> npt.NDArray[np.float32]:
    """One scale for each index along `axis` (one for all, shape [1], if None); the largest magnitude becomes `limit`.

    room: no scale may be below this, by channel (see `overflow_room`). A channel of zeros gets scale 1.
    """
    largest = channel_max(weight, axis)
    scales = np.maximum(largest / limit, SMALLEST_SCALE)
    if room is not None:
        scales = np.maximum(scales, room if axis is not None else room.max(keepdims=True))
    return np.where(largest == 0, np.maximum(1.0, scales), scales).astype(np.float32)


def quantize_weight(
    weight: Array, scales: npt.NDArray[np.float32], axis: int | None, limit: int = WEIGHT_LIMIT
) -> npt.NDArray[np.int8]:
    """Nearest int8 codes, of at most `limit` either way."""
    codes = np.rint(weight.astype(np.float64) / along(scales, weight.ndim, axis))
    return np.clip(codes, -limit, limit).astype(np.int8)


def overflow_room(weight: Array, axis: int, bias: Array | None, input_scale: float, levels: int = 255) -> Floats:
    """The smallest weight scales with which no int32 accumulator can overflow, by channel along `axis`.

    Certificate: |bias code| + levels * sum|weight codes| <= 2**31 - 1, where a code is value / scale, off by one half
    at most. Also a bias alone must fit: on a channel that is nearly dead it would saturate.
    """
    moved = np.abs(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64))
    need = levels * moved.sum(axis=1)
    if bias is not None:
        need = need + np.abs(bias.astype(np.float64)) / input_scale
    return np.asarray(need / max(BIAS_LIMIT - 1 - levels * moved.shape[1] / 2, 1.0), np.float64)


def bias_codes(bias: Array, scales: Array) -> npt.NDArray[np.int32]:
    """Nearest int32 codes; `scales` is input scale times weight scale, by channel."""
    codes = np.rint(bias.astype(np.float64) / scales.astype(np.float64))
    return np.clip(codes, -BIAS_LIMIT, BIAS_LIMIT).astype(np.int32)


def channel_max(weight: Array, axis: int | None) -> Floats:
    """Largest magnitude for each index along `axis`; of all, shape [1], if None."""
    if weight.size == 0:
        return np.zeros(1 if axis is None else weight.shape[axis])
    if axis is None:
        return np.asarray(np.abs(weight).max(), np.float64).reshape(1)
    others = tuple(a for a in range(weight.ndim) if a != axis)
    return np.asarray(np.abs(weight).max(axis=others), np.float64)


def along(per_channel: Array, rank: int, axis: int | None) -> Array:
    """Reshape a vector so that it broadcasts along `axis` of an array of that rank."""
    if axis is None:
        return per_channel.reshape((1,) * rank)
    return per_channel.reshape([-1 if a == axis else 1 for a in range(rank)])
