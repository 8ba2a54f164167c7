"""Numbers that a graph computes with to say sizes: shapes, starts and ends of slices, pads.

Each element is an `Entry`. One that says a size counts labels; after channels have left it must say how many are left.
An entry that is read from a constant is rewritten there; one that `Shape` reads at run time is right by itself.
"""

from dataclasses import dataclass

import numpy as np

from zc.ir.graph import Node, Tensor, attribute, fixed_value
from zc.passes.prune.labels import Labels
from zc.passes.prune.layout import Count, dims_of, fixed

MAX_ENTRIES = 64


@dataclass(frozen=True)
class Source:
    """A place that holds numbers: an input of a node (by position) or an attribute (by name)."""

    node: Node
    place: int | str


@dataclass(eq=False)
class Entry:
    """One number: its value where it is known, what it counts, and where it stands."""

    value: int | None
    counts: Count | None = None
    source: Source | None = None
    position: int = 0


class Numbers:
    """The entries of the values of a graph, and what was said about them."""

    def __init__(self, labels: Labels, overridable: set[int]) -> None:
        self.labels = labels
        self._overridable = overridable
        self.bound: list[Entry] = []
        """Entries that must be rewritten after a removal."""
        self._values: dict[int, list[Entry]] = {}
        self._read: dict[tuple[int, int | str], list[Entry]] = {}
        self._understood: set[tuple[int, int]] = set()

    def read(self, node: Node, place: int, attr: str | None = None) -> list[Entry] | None:
        """The numbers that a node takes at an input, or else from an attribute. None when they are not known at all."""
        if place < len(node.inputs) and not node.inputs[place].is_empty():
            tensor = node.inputs[place]
            self._understood.add((id(node), place))
            if id(tensor) in self._values:
                return self._values[id(tensor)]
            return self._from_constant(node, place, tensor)
        if attr is None or attr not in node.attrs:
            return None
        value = attribute(node, attr, None)
        return self._entries(Source(node, attr), list(value) if isinstance(value, list | tuple) else [value])

    def known(self, node: Node, place: int, attr: str | None = None) -> list[int] | None:
        """The plain numbers, when all are known before run time."""
        entries = self.read(node, place, attr)
        if entries is None or any(e.value is None for e in entries):
            return None
        return [e.value for e in entries if e.value is not None]

    def has(self, tensor: Tensor) -> bool:
        """Is the value a vector of numbers that `put` described?"""
        return id(tensor) in self._values

    def put(self, tensor: Tensor, entries: list[Entry]) -> None:
        """Say what the elements of a computed vector are."""
        self._values[id(tensor)] = entries

    def misused(self, node: Node) -> list[Count]:
        """Sizes read at run time that reach an input of the node which `read` was not called for."""
        places = [i for i in range(len(node.inputs)) if (id(node), i) not in self._understood]
        return [counts for place in places for counts in self.sizes(node.inputs[place])]

    def sizes(self, tensor: Tensor) -> list[Count]:
        """What the run-time sizes in a vector count."""
        entries = self._values.get(id(tensor), [])
        return [e.counts for e in entries if e.counts is not None and e.source is None]

    def give_up(self, node: Node) -> None:
        """What was read of a node's inputs is not understood after all."""
        self._understood -= {(id(node), place) for place in range(len(node.inputs))}

    def bind(self, entry: Entry, counts: Count, reason: str) -> None:
        """Say what a number counts. Two statements about one number make their labels leave together, or pin them."""
        before = entry.counts
        if before is None:
            entry.counts = counts
            if entry.source is not None:
                self.bound.append(entry)
            return
        if before.labels is counts.labels and before.dim == counts.dim:
            return
        if before.labels.shape == counts.labels.shape and before.dim == counts.dim:
            self.labels.union(before.labels, counts.labels)
            return
        self.labels.pin(before.labels, reason)
        self.labels.pin(counts.labels, reason)

    def _from_constant(self, node: Node, place: int, tensor: Tensor) -> list[Entry] | None:
        if id(tensor) in self._overridable:
            return None
        values = fixed_value(tensor) if _is_small(tensor) else None
        if values is None or values.dtype.kind not in "iu" or values.size > MAX_ENTRIES:
            return None
        return self._entries(Source(node, place), [int(v) for v in values.ravel()])

    def _entries(self, source: Source, values: list[int]) -> list[Entry]:
        key = (id(source.node), source.place)
        if key not in self._read:
            self._read[key] = [Entry(v, None, source, i) for i, v in enumerate(values)]
        return self._read[key]


def _is_small(tensor: Tensor) -> bool:
    if tensor.shape is None:
        return True
    sizes = [fixed(d) for d in dims_of(tensor)]
    return all(s is not None for s in sizes) and int(np.prod([s or 0 for s in sizes], dtype=np.int64)) <= MAX_ENTRIES
