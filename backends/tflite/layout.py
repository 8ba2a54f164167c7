"""Layouts: in which order a tensor of the file holds the axes of an ONNX value. Pure functions.

A layout is a permutation: axis `i` of the tensor is axis `layout[i]` of the value. A convolution's NHWC tensor holds an
NCHW value in layout (0, 2, 3, 1).
"""

from collections.abc import Sequence
from math import prod

Layout = tuple[int, ...]


def plain(rank: int) -> Layout:
    """The layout that is ONNX's own order."""
    return tuple(range(rank))


def channels_last(rank: int) -> Layout:
    """Batch, space, channels: what convolutions and pools take."""
    return (0, *range(2, rank), 1) if rank > 2 else plain(rank)


def permuted(shape: Sequence[int], layout: Layout) -> tuple[int, ...]:
    """The sizes of a value's axes in the order of the tensor."""
    return tuple(shape[axis] for axis in layout)


def between(source: Layout, wanted: Layout) -> Layout:
    """The permutation that turns a tensor in one layout into one in another."""
    return tuple(source.index(axis) for axis in wanted)


def through(layout: Layout, perm: Sequence[int]) -> Layout:
    """The layout in which the same tensor holds the Transpose (by `perm`) of the value: nothing moves."""
    return tuple(list(perm).index(axis) for axis in layout)


def keeps_order(shape: Sequence[int], perm: Layout) -> bool:
    """Does a permutation of a tensor leave the numbers where they are, because it only moves dimensions of one?"""
    moved = [axis for axis in perm if shape[axis] != 1]
    return moved == sorted(moved)


def reshaped(old: Sequence[int], new: Sequence[int], layout: Layout) -> Layout | None:
    """The layout in which a Reshape's result lies if no number moves, or None where numbers would have to.

    old, new: the shapes of the ONNX values. layout: of the old one. A Reshape joins and splits runs of axes; where each
    run of old axes stands together and in order in the tensor, the runs of new axes stand in the tensor's order.
    """
    groups = _runs(old, new)
    if groups is None:
        return None
    placed: list[tuple[int, list[int]]] = []
    for olds, news in groups:
        spots = [layout.index(axis) for axis in olds]
        # Between the axes of a run only such of one may stand.
        if spots != sorted(spots):
            return None
        inside = [layout[i] for i in range(min(spots), max(spots) + 1)] if spots else []
        if any(old[axis] != 1 and axis not in olds for axis in inside):
            return None
        placed.append((min(spots, default=-1), news))
    order = [axis for _, news in sorted(placed, key=lambda one: one[0]) for axis in news]
    return _with_ones(order, new)


def _runs(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]] | None:
    """The least runs of axes longer than one that have the same product; one unknown size equals another."""
    olds = [i for i, size in enumerate(old) if size != 1]
    news = [i for i, size in enumerate(new) if size != 1]
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(olds) or j < len(news):
        if i == len(olds) or j == len(news):
            return None
        run_old, run_new = [olds[i]], [news[j]]
        i, j = i + 1, j + 1
        while (a := _size(old, run_old)) != (b := _size(new, run_new)):
            if (a[0] < b[0] or (a[0] == b[0] and a[1] < b[1])) and i < len(olds):
                run_old.append(olds[i])
                i += 1
            elif j < len(news):
                run_new.append(news[j])
                j += 1
            else:
                return None
        groups.append((run_old, run_new))
    return groups


def _size(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, int]:
    """Number of unknown sizes, and the product of the others."""
    return sum(shape[a] < 0 for a in axes), prod(shape[a] for a in axes if shape[a] >= 0)


def _with_ones(order: list[int], shape: Sequence[int]) -> Layout:
    """Put the axes of size one behind the axis that they follow in the value."""
    placed = list(order)
    for axis, size in enumerate(shape):
        if size == 1:
            before = max((placed.index(a) for a in range(axis) if a in placed and a == axis - 1), default=-1)
            placed.insert(before + 1, axis)
    return tuple(placed)
