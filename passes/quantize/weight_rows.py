"""Weights as rows: one for each output, with a scale of its own, or one for each block of its inputs.

Conv [M, C, kh, kw] -> [M, C kh kw]        MatMul [K, N] -> [N, K]        LSTM [dirs, 4 H, I] -> [dirs 4 H, I]
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zc.ir.graph import Array
from zc.passes.quantize.scheme import SMALLEST_SCALE

Floats = npt.NDArray[np.float64]

CLIPS = tuple(np.linspace(1.0, 0.5, 21))
"""Shares of a block's range that its codes may span: with few bits the largest weights are worth clipping."""
PART = 1 << 22
"""Weights that are looked at together."""


@dataclass(frozen=True)
class Layout:
    """How a weight of some shape splits into rows."""

    shape: tuple[int, ...]
    axis: int
    """Of the outputs."""
    leading: int = 1
    """Axes from `axis` = 0 on that count the outputs together: an LSTM has directions, too."""

    @property
    def rows(self) -> int:
        """Number of outputs."""
        return math.prod(self.shape[self.axis : self.axis + self.leading])

    @property
    def inputs(self) -> int:
        """Weights of an output."""
        return math.prod(self.shape) // max(self.rows, 1)

    @property
    def turned(self) -> bool:
        """A matrix with outputs along its last axis."""
        return len(self.shape) == 2 and self.axis == 1

    @property
    def blocks(self) -> bool:
        """Can weights of a row share scales in blocks?"""
        return self.axis == 0 or self.turned

    def to_rows(self, values: Array) -> Array:
        """[rows, inputs] of an array of the weight's shape."""
        return np.moveaxis(values, self.axis, 0).reshape(self.rows, self.inputs)

    def from_rows(self, rows: Array) -> Array:
        """The inverse of `to_rows`."""
        if self.axis == 0:
            return rows.reshape(self.shape)
        others = tuple(d for a, d in enumerate(self.shape) if a != self.axis)
        return np.ascontiguousarray(np.moveaxis(rows.reshape(self.rows, *others), 0, self.axis))

    def beside(self, per_row: Array) -> Array:
        """One number a row, [rows, 1], in a shape that broadcasts against the weight."""
        kept = range(self.axis, self.axis + self.leading)
        return per_row.reshape([d if a in kept else 1 for a, d in enumerate(self.shape)])


@dataclass(frozen=True, eq=False)
class RowCodes:
    """A weight in codes; a row has `blocks` scales, the last block may be filled up with code `zero`."""

    codes: npt.NDArray[np.int16]
    """[rows, blocks * block]."""
    scale: npt.NDArray[np.float32]
    """[rows, blocks]."""
    zero: npt.NDArray[np.int16] | None
    """[rows, blocks]; None: 0 everywhere, and codes are symmetric."""
    inputs: int
    """Weights of a row that are no filling."""
    bits: int

    @property
    def block(self) -> int:
        """Codes that share a scale."""
        return int(self.codes.shape[1] // self.scale.shape[1])

    def in_blocks(self) -> npt.NDArray[np.int16]:
        """The codes, [rows, blocks, block]."""
        return self.codes.reshape(*self.scale.shape, self.block)

    def values(self) -> Floats:
        """What the codes stand for, [rows, inputs]."""
        codes = self.in_blocks().astype(np.float64)
        if self.zero is not None:
            codes = codes - self.zero[:, :, None]
        return (codes * self.scale[:, :, None].astype(np.float64)).reshape(len(codes), -1)[:, : self.inputs]


def code_rows(rows: Array, bits: int, block: int = 0, symmetric: bool = True) -> RowCodes:
    """Nearest codes of rows [rows, inputs].

    block: weights that share a scale; 0: all of a row. symmetric: codes -(2**(bits-1) - 1) .. 2**(bits-1) - 1, else
    0 .. 2**bits - 1 with a zero point. With fewer than 8 bits, blocks are clipped where that lessens their squared
    error.
    """
    count, inputs = rows.shape
    size = min(block, inputs) if block else inputs
    blocks = -(-inputs // size)
    filled = np.pad(rows.astype(np.float64), ((0, 0), (0, blocks * size - inputs))).reshape(count, blocks, size)
    step = max(1, PART // max(blocks * size, 1))
    parts = [_code(filled[i : i + step], bits, symmetric) for i in range(0, count, step)]
    codes, scale, zero = (np.concatenate(found) for found in zip(*parts, strict=True))
    return RowCodes(codes.reshape(count, -1), scale, None if symmetric else zero, inputs, bits)


def _code(values: Floats, bits: int, symmetric: bool) -> tuple[Array, Array, Array]:
    """Codes, scales and zero points of [rows, blocks, block]."""
    best: tuple[Array, Array, Array] | None = None
    least = np.zeros(0)
    for clip in CLIPS if bits < 8 else (1.0,):
        found = _code_within(values, bits, symmetric, clip)
        back = (found[0] - found[2][:, :, None]) * found[1][:, :, None].astype(np.float64)
        error = np.square(back - values).sum(axis=2)
        if best is None:
            best, least = found, error
        else:
            better = error < least
            least = np.minimum(least, error)
            best = (
                np.where(better[:, :, None], found[0], best[0]),
                np.where(better, found[1], best[1]),
                np.where(better, found[2], best[2]),
            )
    assert best is not None
    return best


def _code_within(values: Floats, bits: int, symmetric: bool, clip: float) -> tuple[Array, Array, Array]:
    low, high = np.minimum(values.min(axis=2), 0) * clip, np.maximum(values.max(axis=2), 0) * clip
    lowest, highest = (-(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)
    width = np.maximum(-low, high) if symmetric else high - low
    scale = np.where(width > 0, np.maximum(width / highest, SMALLEST_SCALE), 1.0).astype(np.float32)
    zero = np.zeros_like(scale) if symmetric else np.rint(-low / scale)
    codes = np.clip(np.rint(values / scale[:, :, None].astype(np.float64)) + zero[:, :, None], lowest, highest)
    return codes.astype(np.int16), scale, zero.astype(np.int16)
