"""Settles what the rules left open: along which axis of a block of several may leave, and equal counts of groups.

After this every removal of whole classes of labels keeps every array rectangular.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zc.passes.prune.flow import Balance, Flow, where
from zc.passes.prune.labels import Ints, Labels

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
    refined = {id(labels) for labels in flow.refined}
    grids = [block.labels for block in flow.blocks if block.labels.ndim > 1 and id(block.labels) not in refined]
    while True:
        while sum(_make_rectangular(flow.labels, grid) for grid in grids):
            pass
        roots = flow.labels.roots()
        classes = Classes(roots, _structure(flow, roots), np.zeros(flow.labels.count, np.int64))
        done = [_balance(flow.labels, one, classes) for one in flow.balanced]
        if all(done):
            return classes


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


def _balance(labels: Labels, one: Balance, classes: Classes) -> bool:
    """Give the free classes of a grouped node their rows. False when ties or pins were needed first.

    A class that lies in one row leaves with one of each other row; a class that lies in all rows leaves as it likes.
    Where a shuffle leads over the border of two groups a few classes lie in both: those are pinned. If they are many,
    the groups are made to choose alike.
    """
    roots = labels.find(one.rows)
    free = ~labels.pinned(one.rows)
    found, at = np.unique(roots[free], return_inverse=True)
    if not len(found):
        return True
    times = np.zeros((len(found), len(one.rows)), np.int64)
    np.add.at(times, (at, np.nonzero(free)[0]), 1)
    everywhere = (times == times[:, :1]).all(axis=1)
    single = (times > 0).sum(axis=1) == 1
    across = ~everywhere & ~single
    if across.any() and 2 * across.sum() < len(found):
        labels.pin(found[across], f"lies in two groups of {where(one.node)}")
        return False
    for family in np.unique(classes.structure[found]):
        mine = classes.structure[found] == family
        row = times[mine].argmax(axis=1) + 1
        before = classes.row[found[mine]]
        even = single[mine].all() and len(set(np.bincount(row, minlength=len(one.rows) + 1)[1:])) == 1
        if not everywhere[mine].all() and not (even and (not before.any() or np.array_equal(before, row))):
            labels.tie(one.rows, 0)
            return False
        if not everywhere[mine].all():
            classes.row[found[mine]] = row
    return True
