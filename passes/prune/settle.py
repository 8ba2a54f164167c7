"""Settles what the rules left open: along which axis of a block of several may leave, and equal counts of groups.

After this every removal of whole classes of labels keeps every array rectangular.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zc.passes.prune.flow import Flow
from zc.passes.prune.labels import Bools, Ints, Labels

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of labels, settled. Arrays are indexed by label; only the entries of roots count unless said."""

    roots: Ints
    """The root of each label."""
    structure: Hashes
    """Equal for two roots when they occur equally often in the same arrays: they are exchangeable."""
    row: Ints
    """The part of its family from which an equal number must leave; 0 where there is no such demand."""


def settle(flow: Flow) -> Classes:
    """Add the ties that keep all blocks rectangular, then describe the classes."""
    grids = [block.labels for block in flow.blocks if block.labels.ndim > 1 and not _is_refined(flow, block.labels)]
    while True:
        while sum(_make_rectangular(flow.labels, grid) for grid in grids):
            pass
        roots = flow.labels.roots()
        structure = _structure(flow, roots)
        row = np.zeros(flow.labels.count, np.int64)
        free = ~flow.labels.pinned(np.arange(flow.labels.count, dtype=np.int64))
        unequal = [rows for rows in flow.balanced if not _deal(flow.labels, rows, structure, row, free)]
        if not unequal:
            return Classes(roots, structure, row)
        for rows in unequal:
            flow.labels.tie(rows, 0)
        flow.balanced = [rows for rows in flow.balanced if not any(rows is one for one in unequal)]


def _is_refined(flow: Flow, labels: Ints) -> bool:
    return any(labels is one for one in flow.refined)


def _make_rectangular(labels: Labels, grid: Ints) -> bool:
    """Tie along all axes of an array but one; True if that changed anything.

    The axis that is kept is the one along which most may leave then.
    """
    roots = labels.find(grid)
    free = ~labels.pinned(grid)
    if not free.any():
        return False
    scores = []
    for axis in range(grid.ndim):
        others = tuple(a for a in range(grid.ndim) if a != axis)
        lines = roots.min(axis=others)
        if (roots == np.expand_dims(lines, others)).all():
            return False
        scores.append(len(np.unique(lines[free.all(axis=others)])))
    axis = scores.index(max(scores))
    rest = np.moveaxis(grid, axis, 0).reshape(grid.shape[axis], -1)
    labels.tie(rest, 1)
    return True


def _structure(flow: Flow, roots: Ints) -> Hashes:
    """Sum over all arrays of (number of times that the class occurs in it) x (a random number of the array)."""
    random = np.random.default_rng(0)
    result = np.zeros(flow.labels.count, np.uint64)
    seen: set[int] = set()
    for block in flow.blocks:
        if id(block.labels) not in seen:
            seen.add(id(block.labels))
            mark = random.integers(0, 2**64, dtype=np.uint64)
            np.add.at(result, roots[block.labels.ravel()], mark)
    return result


def _deal(labels: Labels, rows: Ints, structure: Hashes, row: Ints, free: Bools) -> bool:
    """Give the free classes of an array [groups, channels] their rows. False when equal counts cannot be kept so."""
    roots = labels.find(rows)
    number = np.broadcast_to(np.arange(len(rows))[:, None], rows.shape)
    members = free[roots]
    found, at, times = np.unique(roots[members], return_inverse=True, return_counts=True)
    if not len(found):
        return True
    low, high = np.full(len(found), len(rows)), np.full(len(found), -1)
    np.minimum.at(low, at, number[members])
    np.maximum.at(high, at, number[members])
    everywhere = _everywhere(at, number[members], len(found), len(rows))
    for family in np.unique(structure[found]):
        mine = structure[found] == family
        if everywhere[mine].all():
            continue
        sizes = np.bincount(low[mine], minlength=len(rows))
        if (low[mine] != high[mine]).any() or len(set(times[mine])) != 1 or len(set(sizes)) != 1:
            return False
        own = row[found[mine]]
        if own.any() and not np.array_equal(own, low[mine] + 1):
            return False
        row[found[mine]] = low[mine] + 1
    return True


def _everywhere(at: Ints, number: Ints, classes: int, rows: int) -> Bools:
    """Which classes occur equally often in every row: they may leave as they like."""
    table = np.zeros((classes, rows), np.int64)
    np.add.at(table, (at, number), 1)
    return np.asarray((table == table[:, :1]).all(axis=1))
