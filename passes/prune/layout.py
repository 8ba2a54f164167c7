"""Layouts: on which axes of a value labels live.

A block is an array of labels on one axis, or on several: after a Reshape that splits 64 channels into [8, 8], the 64
labels live on both axes together, and whole rows or whole columns may leave, not single elements.
A layout is the blocks of one value. An axis without a block has size 1 or a size that is known only at run time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from zc.ir.graph import Tensor
from zc.ir.spec import Dim
from zc.passes.prune.labels import Ints


@dataclass(frozen=True, eq=False)
class Block:
    """Labels on some axes; `labels` has one dimension for each of `axes`, which ascend."""

    axes: tuple[int, ...]
    labels: Ints


Layout = tuple[Block, ...]
"""Blocks of axes that do not overlap."""


@dataclass(frozen=True, eq=False)
class Count:
    """A number that a graph states: how many positions along one dimension of a label array there are."""

    labels: Ints
    dim: int = 0


def block_at(layout: Layout, axis: int) -> Block | None:
    """The block that an axis belongs to."""
    return next((b for b in layout if axis in b.axes), None)


def moved(layout: Layout, to: Mapping[int, int]) -> Layout:
    """The layout with its axes renamed; blocks with an axis that is not in `to` are dropped."""
    result = []
    for block in layout:
        if all(axis in to for axis in block.axes):
            axes = [to[axis] for axis in block.axes]
            if len(axes) == 1:  # the array itself: many values share it
                result.append(Block(tuple(axes), block.labels))
                continue
            order = sorted(range(len(axes)), key=axes.__getitem__)
            result.append(Block(tuple(axes[i] for i in order), block.labels.transpose(order)))
    return tuple(result)


def without(layout: Layout, *axes: int) -> Layout:
    """The blocks that touch none of the axes."""
    return tuple(b for b in layout if not any(axis in b.axes for axis in axes))


def count_at(layout: Layout, axis: int) -> Count | None:
    """What the size of an axis counts."""
    block = block_at(layout, axis)
    return None if block is None else Count(block.labels, block.axes.index(axis))


def dims_of(tensor: Tensor) -> list[Dim]:
    """The dimensions of a value of known rank; negative sizes count as unknown."""
    return [None if isinstance(d, int) and d < 0 else d for d in tensor.shape]


def fixed(dim: Dim) -> int | None:
    """The size, when it is known before run time."""
    return int(dim) if dim is not None and not isinstance(dim, str) else None
