"""Groups: what may leave.

An atom is a class of labels with all its places in weights; a group is a family of atoms that occur alike in the same
weights, so that any share of them may be chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from zc.ir.graph import describe
from zc.passes.prune.flow import Flow
from zc.passes.prune.labels import Bools, Ints
from zc.passes.prune.settle import Classes
from zc.passes.prune.sharing import Copies


@dataclass(frozen=True)
class Member:
    """A weight that shrinks with a group, along some axes, by `width` positions for each atom."""

    weight: str
    axes: tuple[int, ...]
    width: int
    params: int
    """Elements that leave with one atom (not counting what leaves with others)."""


@dataclass(frozen=True, eq=False)
class Group:
    """A family of exchangeable atoms."""

    name: str
    """Of the first node that makes these channels, else of the first weight."""
    atoms: Ints
    """The root label of each atom, ascending."""
    rows: Ints
    """The part of the group that each atom is of: as many must leave of each part."""
    width: int
    """Channels of an atom: positions in the weight where it has fewest (a unit of an LSTM has four rows in others)."""
    members: tuple[Member, ...]
    made_by: tuple[str, ...]
    """The nodes that make these channels."""

    @property
    def size(self) -> int:
        """Number of atoms."""
        return len(self.atoms)

    @property
    def params(self) -> int:
        """Weight elements that leave with one atom."""
        return sum(m.params for m in self.members)

    def __str__(self) -> str:
        width = f" of {self.width} channels" if self.width > 1 else ""
        weights = ", ".join(f"{m.weight}[{','.join(map(str, m.axes))}]" for m in self.members)
        return f"{self.name}: {self.size} atoms{width}, {self.params} parameters each: {weights}"


@dataclass(frozen=True)
class Pinned:
    """Channels of a node that must stay, and why."""

    node: str
    channels: int
    of: int
    reason: str


@dataclass(eq=False)
class Groups:
    """All groups of a model, the analysis behind them, and what may not leave."""

    flow: Flow
    classes: Classes
    groups: tuple[Group, ...]
    pinned: tuple[Pinned, ...]
    group_of: Ints = field(repr=False)
    """By root label: the index of its group, or -1."""
    copies: Copies = field(default_factory=list, repr=False)
    """Vectors that were shared before the analysis."""


def find_groups(flow: Flow, classes: Classes) -> Groups:
    """The groups of a settled analysis, in the order of the graph."""
    free = _atoms(flow, classes)
    roots = np.flatnonzero(free)
    _, family = np.unique(classes.structure[roots], return_inverse=True)
    group_of = np.full(flow.labels.count, -1, np.int64)
    # Families in the order of their first labels, which is that of the graph.
    first = np.full(family.max(initial=-1) + 1, flow.labels.count, np.int64)
    np.minimum.at(first, family, roots)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    group_of[roots] = rank[family]
    atoms = _split(roots, group_of[roots], len(first))
    members = _members(flow, classes, group_of, [len(a) for a in atoms])
    makers = _makers(flow, classes, group_of, len(first))
    groups = []
    for index, own in enumerate(atoms):
        names = makers[index] or [members[index][0].weight]
        width = min(member.width for member in members[index])
        groups.append(Group(names[0], own, classes.row[own], width, tuple(members[index]), tuple(makers[index])))
    return Groups(flow, classes, tuple(groups), _pinned(flow, classes), group_of)


def _atoms(flow: Flow, classes: Classes) -> Bools:
    """By label: is it the root of a free class that occurs in a weight?"""
    found = np.zeros(flow.labels.count, np.bool_)
    for constant in flow.constants:
        for block in flow.of(constant):
            found[classes.roots[block.labels.ravel()]] = True
    return found & ~flow.labels.pinned(np.arange(flow.labels.count, dtype=np.int64))


def _split(values: Ints, keys: Ints, count: int) -> list[Ints]:
    order = np.argsort(keys, kind="stable")
    return np.split(values[order], np.searchsorted(keys[order], np.arange(1, count))) if count else []


def _members(flow: Flow, classes: Classes, group_of: Ints, sizes: Sequence[int]) -> list[list[Member]]:
    members: list[list[Member]] = [[] for _ in sizes]
    for constant in flow.constants:
        for block in flow.of(constant):
            owners = group_of[classes.roots[block.labels.ravel()]]
            found, counts = np.unique(owners[owners >= 0], return_counts=True)
            share = constant.size // max(block.labels.size, 1)
            for group, count in zip(found, counts, strict=True):
                width = int(count) // sizes[group]
                members[group].append(Member(constant.name, block.axes, width, width * share))
    return members


def _makers(flow: Flow, classes: Classes, group_of: Ints, count: int) -> list[list[str]]:
    makers: list[list[str]] = [[] for _ in range(count)]
    for product in flow.products:
        for group in np.unique(group_of[classes.roots[product.labels]]):
            if group >= 0:
                makers[group].append(describe(product.node))
    return makers


def _pinned(flow: Flow, classes: Classes) -> tuple[Pinned, ...]:
    result = []
    for product in flow.products:
        why = flow.labels.reason(product.labels)
        for reason in np.unique(why[why < len(flow.labels.reasons)]):
            count = int((why == reason).sum())
            result.append(Pinned(describe(product.node), count, len(why), flow.labels.reasons[reason]))
    return tuple(result)
