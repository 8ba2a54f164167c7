"""Where values lie: buffers, views into them, and one arena in which buffers that live at different times overlap."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from zc.ir.graph import Array

ALIGNMENT = 64
SPARE = 128
"""Bytes behind a buffer that kernels may read."""


@dataclass(eq=False)
class Buffer:
    """Bytes that steps read and write. In the arena unless it has an `array` or a `name`."""

    size: int
    array: Array | None = None
    """Constant contents."""
    name: str = ""
    """Of a value outside the arena: an input, an output, what islands read and write."""
    first: int = -1
    last: int = -1
    offset: int = 0

    @property
    def planned(self) -> bool:
        """Does it lie in the arena?"""
        return self.array is None and not self.name

    def use(self, step: int) -> None:
        """Note that a step touches it."""
        self.first = step if self.first < 0 else self.first
        self.last = step


@dataclass(frozen=True)
class Place:
    """An address that is known once memory is: a byte of a buffer."""

    buffer: Buffer
    byte: int = 0


@dataclass(frozen=True)
class View:
    """Codes of a value: where each lies. Strides are bytes, 0 where one is read many times."""

    buffer: Buffer
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    halo: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Rows and columns of padding around each image that hold the zero point: top, left, bottom, right."""

    def at(self, *steps: int) -> Place:
        """The address of the element at these indices (of the leading axes)."""
        return Place(self.buffer, self.start + sum(i * s for i, s in zip(steps, self.strides, strict=False)))

    @property
    def place(self) -> Place:
        """The address of the first element."""
        return Place(self.buffer, self.start)

    @property
    def image(self) -> tuple[tuple[int, int, int, int], tuple[int, int, int]] | None:
        """((n, c, h, w), byte strides of image, row and pixel), if the channels of a pixel lie side by side."""
        if len(self.shape) not in (3, 4) or (self.strides[1] != 1 and self.shape[1] != 1):
            return None
        flat = len(self.shape) == 3
        n, c, h, w = (*self.shape[:2], 1, self.shape[2]) if flat else self.shape
        image, _, row, pixel = (*self.strides[:2], 0, self.strides[2]) if flat else self.strides
        return (n, c, h, w), (image, row, pixel)

    @property
    def planes(self) -> tuple[tuple[int, int, int], tuple[int, int]] | None:
        """((n, c, h * w), byte strides of image and plane), if the pixels of a channel lie side by side."""
        if len(self.shape) not in (3, 4):
            return None
        (n, c, *size), (image, plane, *steps) = self.shape, self.strides
        count = int(np.prod(size))
        whole = all(n == 1 or s == d for n, s, d in zip(size, steps, dense(size), strict=True))
        return ((n, c, count), (image, plane)) if whole else None

    @property
    def in_order(self) -> bool:
        """Do the elements of the innermost axis lie side by side?"""
        return next((s == 1 for n, s in zip(self.shape[::-1], self.strides[::-1], strict=True) if n != 1), True)

    def reshaped(self, shape: Sequence[int]) -> "View | None":
        """The same codes in another shape, or None if they would have to move."""
        old = [(n, s) for n, s in zip(self.shape, self.strides, strict=True) if n != 1]
        strides, at = [], 0
        for size in reversed(shape):  # from the innermost axis outwards: a new axis must divide the run that it is in
            if size == 1:
                strides.append(1)
                continue
            if at == 0:
                if not old:
                    return None
                at, step = old.pop()
                while old and old[-1][1] == at * step:
                    at *= old.pop()[0]
            if at % size:
                return None
            strides.append(step)
            at, step = at // size, step * size
            at = 0 if at == 1 else at
        return None if old or at else View(self.buffer, self.start, tuple(shape), tuple(reversed(strides)))

    def transposed(self, order: Sequence[int]) -> "View":
        """With the axes in another order."""
        return View(self.buffer, self.start, tuple(self.shape[a] for a in order), tuple(self.strides[a] for a in order))

    def part(self, axis: int, start: int, size: int, step: int = 1) -> "View":
        """Positions of an axis."""
        shape, strides = list(self.shape), list(self.strides)
        first = self.start + start * strides[axis]
        shape[axis], strides[axis] = size, strides[axis] * step
        return View(self.buffer, first, tuple(shape), tuple(strides))

    def spread(self, shape: Sequence[int]) -> "View":
        """Broadcast to a shape."""
        missing = len(shape) - len(self.shape)
        own = (1,) * missing + self.shape
        strides = (0,) * missing + self.strides
        return View(
            self.buffer,
            self.start,
            tuple(shape),
            tuple(0 if have == 1 and want != 1 else s for have, want, s in zip(own, shape, strides, strict=True)),
        )


def aligned(array: Array) -> int:
    """The first address in an array that is a multiple of `ALIGNMENT`."""
    return -(-array.ctypes.data // ALIGNMENT) * ALIGNMENT


def dense(shape: Sequence[int], size: int = 1) -> tuple[int, ...]:
    """Byte strides of an array in C order, of elements of `size` bytes."""
    strides, step = [], size
    for length in reversed(shape):
        strides.append(step)
        step *= max(length, 1)
    return tuple(reversed(strides))


@dataclass
class Arena:
    """The result of planning: bytes needed, and for comparison the most bytes that are alive in any step."""

    size: int = 0
    alive: int = 0
    buffers: list[Buffer] = field(default_factory=list)


def arrange(buffers: Iterable[Buffer], steps: int) -> Arena:
    """Give each planned buffer its offset: the largest first, each at the lowest place free while it lives."""
    planned = [b for b in buffers if b.planned and b.first >= 0]
    load = np.zeros(steps + 1, np.int64)
    for buffer in planned:
        load[buffer.first : buffer.last + 1] += _room(buffer)
    arena = Arena(alive=int(load.max(initial=0)))
    for buffer in sorted(planned, key=lambda b: (-_room(b), b.first)):
        offset = 0
        for other in sorted(arena.buffers, key=lambda b: b.offset):
            if other.last < buffer.first or other.first > buffer.last:
                continue
            if offset + _room(buffer) <= other.offset:
                break
            offset = max(offset, other.offset + _room(other))
        buffer.offset = offset
        arena.buffers.append(buffer)
        arena.size = max(arena.size, offset + _room(buffer))
    return arena


def _room(buffer: Buffer) -> int:
    return -(-(buffer.size + SPARE) // ALIGNMENT) * ALIGNMENT
