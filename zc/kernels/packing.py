"""Weights in the order in which the kernels read them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zc.kernels.cpu import FORM
from zc.kernels.lanes import ORDER, SPREAD

Array = npt.NDArray[Any]

BLOCK = len(ORDER)
"""Output channels of a full block; the last one is as many vectors of 16 as it needs."""


@dataclass(frozen=True)
class Packed:
    """One group of output channels, packed: blocks of 64, then a narrower one for the rest."""

    weights: Array
    """uint8[...]: bytes as the tiles read them."""
    bias: Array
    """int32[16 * vectors]."""
    scale: Array
    """float32[16 * vectors]."""
    k4: int
    """Groups of four codes a tap."""
    taps: int
    columns: int


def pack(weights: Array, bias: Array, scale: Array, real: bool = False, unit: int = 4) -> Packed:
    """Pack weights [taps, k, columns] with int32 bias[columns] and float32 scale[columns].

    weights: int8; of nine bits as int16 in forms that multiply 16 bits.
    real: for tiles that store float32, which are 16 channels wide. unit: codes to whose multiple k is filled up with
    zeros.
    """
    taps, k, columns = weights.shape
    k4 = -(-k // unit) * unit // 4
    most = 16 if real else BLOCK
    parts: list[Array] = []
    biases: list[Array] = []
    scales: list[Array] = []
    for start in range(0, columns, most):
        count = min(most, columns - start)
        width = -(-count // 16)
        order = ORDER if 16 * width == len(ORDER) else np.arange(16 * width)
        block = np.zeros((taps, 4 * k4, 16 * width), weights.dtype)
        block[:, :k, :count] = weights[:, :, start : start + count]
        parts.append(_arrange(block[:, :, order], k4).reshape(-1).view(np.uint8))
        for values, out, kind in ((bias, biases, np.int32), (scale, scales, np.float32)):
            padded = np.zeros(16 * width, kind)
            padded[:count] = values[start : start + count]
            out.append(padded[order])
    return Packed(
        np.concatenate(parts), np.concatenate(biases), np.concatenate(scales), k4=k4, taps=taps, columns=columns
    )


def _arrange(block: Array, k4: int) -> Array:
    taps, _, width = block.shape
    if FORM.vnni:
        return np.ascontiguousarray(block.reshape(taps * k4, 4, width).transpose(0, 2, 1))
    pairs = block.astype(np.int16).reshape(taps * k4, 2, 2, width).transpose(0, 1, 3, 2)
    return np.ascontiguousarray(pairs)


def pack_depthwise(weights: Array, bias: Array, scale: Array, columnwise: bool) -> tuple[Array, Array, Array]:
    """Pack depthwise weights [kh, kw, channels], of types as in `pack`, in blocks of `BLOCK` channels.

    columnwise: four rows of one column go together (3 x 3), else four taps in reading order. Returns bytes, int8
    [blocks][groups][BLOCK][4] or, without VNNI, int16 [blocks][groups][2][BLOCK][2]; int32[blocks * BLOCK] and
    float32[blocks * BLOCK].
    """
    kh, kw, channels = weights.shape
    blocks = -(-channels // BLOCK)
    if columnwise:
        taps = np.zeros((4 * kw, blocks * BLOCK), weights.dtype)
        for j in range(kw):
            taps[4 * j : 4 * j + kh, :channels] = weights[:, j]
    else:
        groups = -(-kh * kw // 4)
        taps = np.zeros((4 * groups, blocks * BLOCK), weights.dtype)
        taps[: kh * kw, :channels] = weights.reshape(kh * kw, channels)
    order = ORDER if FORM.vnni else SPREAD
    if FORM.vnni:
        spread = taps.reshape(-1, 4, blocks, BLOCK).transpose(2, 0, 3, 1)[:, :, order, :]
    else:
        pairs = taps.astype(np.int16).reshape(-1, 2, 2, blocks, BLOCK)
        spread = pairs.transpose(3, 0, 1, 4, 2)[:, :, :, order, :]
    out = []
    for values, kind in ((bias, np.int32), (scale, np.float32)):
        padded = np.zeros(blocks * BLOCK, kind)
        padded[:channels] = values
        out.append(np.ascontiguousarray(padded.reshape(blocks, BLOCK)[:, order]).reshape(-1))
    return np.ascontiguousarray(spread).reshape(-1).view(np.uint8), out[0], out[1]
