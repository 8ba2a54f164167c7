"""Labels: one number for each position along an axis, and a union-find that says which positions leave together.

All operations take whole arrays. Memory is linear in the number of labels.
"""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
_FREE = np.iinfo(np.int32).max


class Labels:
    """Classes of labels. A class is free, or pinned: then nothing of it may leave, for the first reason given."""

    def __init__(self) -> None:
        self._parent: Ints = np.arange(1024, dtype=np.int64)
        self._why = np.full(1024, _FREE, np.int32)
        self.count = 0
        self.reasons: list[str] = []
        self._reason_ids: dict[str, int] = {}
        self._rigid: dict[str, Ints] = {}

    def fresh(self, size: int) -> Ints:
        """`size` new free labels, each a class of its own."""
        start, self.count = self.count, self.count + size
        if self.count > len(self._parent):
            room = 2 * self.count
            self._parent = np.concatenate([self._parent, np.arange(len(self._parent), room, dtype=np.int64)])
            self._why = np.concatenate([self._why, np.full(room - len(self._why), _FREE, np.int32)])
        return np.arange(start, self.count, dtype=np.int64)

    def rigid(self, size: int, reason: str) -> Ints:
        """One pinned label for all `size` positions of an axis (no memory: the array has stride 0)."""
        if reason not in self._rigid:
            self._rigid[reason] = self.fresh(1)
            self.pin(self._rigid[reason], reason)
        return np.broadcast_to(self._rigid[reason], (size,))

    def find(self, labels: Ints) -> Ints:
        """The representative of the class of each label; the lowest label of the class."""
        if is_rigid(labels) and labels.size > 1:
            return np.broadcast_to(self.find(_one(labels)), labels.shape)
        root = self._parent[labels]
        while True:
            above = self._parent[root]
            if np.array_equal(above, root):
                break
            root = above
        self._parent[labels] = root
        return root

    def union(self, a: Ints, b: Ints) -> None:
        """Make the labels at the same places of two arrays leave together. The arrays broadcast."""
        if is_rigid(a) and is_rigid(b):
            a, b = _one(a), _one(b)
        whole_a, whole_b = np.broadcast_arrays(a, b)
        a, b = self.find(whole_a.ravel()), self.find(whole_b.ravel())
        differ = a != b
        if not differ.any():
            return
        first, second = a[differ], b[differ]
        why = np.minimum(self._why[first], self._why[second])
        a, b = first, second
        while len(a):
            low, high = np.minimum(a, b), np.maximum(a, b)
            np.minimum.at(self._parent, high, low)
            a, b = self.find(a), self.find(b)
            differ = a != b
            a, b = a[differ], b[differ]
        np.minimum.at(self._why, self.find(first), why)

    def tie(self, labels: Ints, axis: int) -> Ints:
        """Make all labels along an axis of the array leave together. Returns the array without that axis."""
        first: Ints = np.asarray(labels.take(0, axis))
        self.union(labels, np.expand_dims(first, axis))
        return first

    def pin(self, labels: Ints, reason: str) -> None:
        """Nothing of these classes may leave."""
        if not labels.size:
            return
        number = self._reason_ids.setdefault(reason, len(self.reasons))
        if number == len(self.reasons):
            self.reasons.append(reason)
        if is_rigid(labels):
            labels = _one(labels)
        root = self.find(labels)
        self._why[root] = np.minimum(self._why[root], number)

    def pinned(self, labels: Ints) -> Bools:
        """Which labels are of a pinned class."""
        return np.asarray(self._why[self.find(labels)] != _FREE)

    def reason(self, labels: Ints) -> Ints:
        """The number of the reason (in `reasons`) why each label is pinned; `len(reasons)` or more if it is free."""
        return self._why[self.find(labels)].astype(np.int64)

    def roots(self) -> Ints:
        """The representative of every label, by label."""
        return self.find(np.arange(self.count, dtype=np.int64))


def is_rigid(labels: Ints) -> bool:
    """Was the array made by `Labels.rigid`? (An array of one element counts when it is not contiguous memory.)"""
    return labels.size > 0 and not any(labels.strides)


def _one(labels: Ints) -> Ints:
    """The label of a rigid axis; `ravel` would write all its copies down."""
    return np.array([labels[(0,) * labels.ndim]], np.int64)
