"""Which products run in tile registers, and how their pixels are brought there."""

from dataclasses import dataclass
from math import inf

from zc.kernels.amx import GATHERED_BYTES, GROUP, MOST_PIECES, PIECE
from zc.kernels.cpu import FORM

CACHE_BYTES = 192 * 1024
"""What the input of a chunk of pixels may take, so that it stays in the second cache for all blocks of channels."""

WIDE_BYTES = 128 * 1024
"""What the codes of a chunk may take as 16 bits, where they are multiplied so."""

WASTE = 1.3
"""How many pixels, for each one wanted, are computed at most to save gathering them."""


@dataclass(frozen=True)
class Pixels:
    """Where the input of a product's output pixels lies: counts, and bytes from one row and one pixel to the next."""

    images: int
    height: int
    width: int
    row: int
    pixel: int

    @property
    def count(self) -> int:
        """All of them."""
        return self.images * self.height * self.width


@dataclass(frozen=True)
class Tiling:
    """Operands of `amx.convolve_tiles`."""

    line: int
    by_rows: bool
    chunk: int


def tiling(pixels: Pixels, taps: int, k: int, footprint: int) -> Tiling | None:
    """How a product runs in tile registers, or None where vectors are better: for few pixels, for very long sums.

    taps, k: of the packed weights; footprint: bytes of input that one pixel stands for.
    """
    if not FORM.amx or pixels.count < PIECE:
        return None
    line = pixels.width if pixels.height == 1 else pixels.row // pixels.pixel
    even = pixels.height == 1 or (pixels.row % pixels.pixel == 0 and line >= pixels.width)
    in_image = _in_pieces((pixels.height - 1) * line + pixels.width) / pixels.height if even else inf
    in_row = _in_pieces(pixels.width)
    computed = min(in_image, in_row)
    if computed <= WASTE * pixels.width:
        by_rows = in_row < in_image
        return Tiling(pixels.width if by_rows else line, by_rows, _chunk(CACHE_BYTES, footprint))
    gathered = taps * -(-k // 64) * 64
    return Tiling(0, False, _chunk(GATHERED_BYTES, gathered)) if GROUP * gathered <= GATHERED_BYTES else None


def _in_pieces(count: int) -> float:
    """So many pixels are computed where `count` lie at even distances."""
    return -(-count // PIECE) * PIECE if count >= PIECE else inf


def _chunk(room: int, footprint: int) -> int:
    """Pieces in a chunk: an even number."""
    return min(max(room // (GROUP * footprint), 1) * 2, MOST_PIECES)
