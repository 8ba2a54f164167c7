"""Edges between nodes and tensors that are unlinked by identity, in constant time on wide fan-outs.

onnx-graphsurgeon keeps every edge in two lists and unlinks with `list.remove`, which compares by value: cutting n
consumers from a shared constant costs n^2 deep comparisons. These lists find their element by identity, and the
consumer list of a tensor keeps an index once it is long.
"""

from collections.abc import Iterable
from typing import Any, SupportsIndex, TypeVar

from onnx_graphsurgeon.util.misc import SynchronizedList

T = TypeVar("T")

_INDEX_FROM = 48  # below this length a scan beats keeping an index


class Links(SynchronizedList[T]):
    """The inputs or outputs of a node, or the producers of a tensor."""

    def __init__(self, parent_obj: Any, field_name: str, initial: Iterable[T]) -> None:
        self.parent_obj = parent_obj
        self.field_name = field_name
        if initial:
            self.extend(initial)

    def _remove_from_elem(self, elem: Any) -> None:
        other = getattr(elem, self.field_name)
        if isinstance(other, Links):
            other.unlink(self.parent_obj)
        else:  # made by plain onnx-graphsurgeon and not adopted yet
            list.__delitem__(other, _position(other, self.parent_obj))

    def unlink(self, elem: Any) -> None:
        """Remove one occurrence of `elem` here without touching its own list. ValueError if it is absent."""
        list.__delitem__(self, _position(self, elem))

    def __setitem__(self, index: Any, elem: Any) -> None:
        if isinstance(index, slice):
            new, gone = list(elem), self[index]
            list.__setitem__(self, index, new)  # raises before any edge is cut when the lengths do not fit
            for old in gone:
                self._remove_from_elem(old)
            for one in new:
                self._add_to_elem(one)
            return
        if self[index] is elem:
            return
        self._remove_from_elem(self[index])
        list.__setitem__(self, index, elem)
        self._add_to_elem(elem)

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        for old in self[index] if isinstance(index, slice) else [self[index]]:
            self._remove_from_elem(old)
        list.__delitem__(self, index)

    def extend(self, iterable: Iterable[T]) -> None:
        """Append all; unlike the original, a generator may be given."""
        field, parent = self.field_name, self.parent_obj
        for elem in list(iterable):
            list.append(self, elem)
            list.append(getattr(elem, field), parent)

    def remove(self, x: T) -> None:
        """Remove one occurrence, found by identity."""
        self.__delitem__(_position(self, x))

    def pop(self, index: SupportsIndex = -1) -> T:
        """Remove and return the element at `index`."""
        elem: T = self[index]
        self.__delitem__(index)
        return elem

    def clear(self) -> None:
        """Cut every edge of this list."""
        for elem in self:
            self._remove_from_elem(elem)
        list.clear(self)


class Consumers(Links[T]):
    """The consumers of a tensor. Their order has no meaning: on long lists the last element fills a gap."""

    _where: dict[int, list[int]] | None = None
    _indexed: int = 0

    def unlink(self, elem: Any) -> None:
        """Remove one occurrence of `elem`; amortised constant time."""
        if len(self) < _INDEX_FROM:
            self._where = None
            super().unlink(elem)
            return
        pos = self._find(elem)
        last = len(self) - 1
        if pos != last:
            moved = list.__getitem__(self, last)
            list.__setitem__(self, pos, moved)
            assert self._where is not None
            places = self._where[id(moved)]
            places[places.index(last)] = pos
        list.__delitem__(self, last)
        self._indexed = last

    def _find(self, elem: Any) -> int:
        """The position of `elem`, taken out of the index. Lists changed behind our back are indexed anew."""
        for rebuild in (False, True):
            if rebuild or self._where is None or self._indexed > len(self):
                self._where, self._indexed = {}, 0
            for pos in range(self._indexed, len(self)):
                self._where.setdefault(id(list.__getitem__(self, pos)), []).append(pos)
            self._indexed = len(self)
            places = self._where.get(id(elem))
            last_known = self._where.get(id(list.__getitem__(self, -1)), ())
            if places and list.__getitem__(self, places[-1]) is elem and len(self) - 1 in last_known:
                return places.pop()
        raise ValueError("not linked")


def _position(items: list[Any], elem: Any) -> int:
    for pos, item in enumerate(items):
        if item is elem:
            return pos
    raise ValueError("not linked")
