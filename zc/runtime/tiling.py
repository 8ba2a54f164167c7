"""Which products run in tile registers, and how their pixels are brought there."""

from dataclasses import dataclass

from zc.kernels.amx import GATHERED_BYTES, GROUP, MOST_GROUPS
from zc.kernels.cpu import FORM

CACHE_BYTES = 192 * 1024
"""What the input of a chunk of pixels may take, so that it stays in the second cache for all blocks of channels."""

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
    chunk: int


def tiling(pixels: Pixels, taps: int, k: int, footprint: int) -> Tiling | None:
    """How a product runs in tile registers, or None where vectors are better: for few pixels, for very long sums.

    taps, k: of the packed weights; footprint: bytes of input that one pixel stands for.
    """
    if not FORM.amx or pixels.count < GROUP // 2:
        return None
    line = _line(pixels)
    if line:
        return Tiling(line, min(max(CACHE_BYTES // (GROUP * footprint), 1), MOST_GROUPS))
    gathered = GROUP * taps * -(-k // 64) * 64
    if gathered > GATHERED_BYTES:
        return None
    return Tiling(0, min(GATHERED_BYTES // gathered, MOST_GROUPS))


def _line(pixels: Pixels) -> int:
    """Pixels from one row to the next if all lie at even distances, or next to all; else 0."""
    line = pixels.width if pixels.height == 1 else pixels.row // pixels.pixel
    even = pixels.height == 1 or (pixels.row % pixels.pixel == 0 and line >= pixels.width)
    enough = (pixels.height - 1) * line + pixels.width >= GROUP
    return line if even and enough and line <= WASTE * pixels.width else 0
