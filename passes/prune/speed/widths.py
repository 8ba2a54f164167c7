"""Widths that pay: those than which no wider one is nearly as fast, by the target's table.

A kernel works in blocks of channels: 40 take as long as 48, and an odd width may take longer than all. o pays:

us |        ______o
   |  ______o
   |__o_________________ channels
"""

import numpy as np

from zc.ir.graph import Array, Node
from zc.passes.prune.groups import Group
from zc.passes.prune.labels import Ints
from zc.passes.prune.speed.clock import Clock

LOOKED_AT = 64
"""About so many widths of a group are timed; of wide groups the multiples of a power of two."""


def what_pays(groups: tuple[Group, ...], clock: Clock) -> dict[int, dict[int, float]]:
    """By the first atom of each group and its channels: how much of what this width should save it does not.

    Against the wider one to which it compares worst: 0 where time falls as evenly as over the whole group, 1 where a
    wider one is as fast, above 2 where it takes longer than the whole group. Groups of which the table knows nothing
    are left out.
    """
    clock.at(np.ones(len(groups)))
    known: dict[tuple[object, ...], dict[int, float]] = {}
    found = {}
    for number, group in enumerate(groups):
        alike = _kind(number, group, clock)
        if alike not in known:
            known[alike] = _excess(number, group, clock)
        if known[alike]:
            found[int(group.atoms[0])] = known[alike]
    return found


def _kind(number: int, group: Group, clock: Clock) -> tuple[object, ...]:
    """What the times of a group depend on: groups of repeated blocks are timed once."""
    parts = []
    for place in clock.touched[number]:
        node = place.node
        shapes = tuple(clock.sizes.get(t.name) for t in (*node.inputs, *node.outputs))
        mine = tuple(number in clock.sizes.groups_of(t.name) for t in (*node.inputs, *node.outputs))
        parts.append((node.op, _attributes(node), shapes, mine))
    return (group.size, group.width, len(np.unique(group.rows)), tuple(parts))


def _attributes(node: Node) -> str:
    return repr(sorted((k, v) for k, v in node.attrs.items() if isinstance(v, int | list | tuple)))


def _excess(number: int, group: Group, clock: Clock) -> dict[int, float]:
    rows = len(np.unique(group.rows))
    steps = group.size // rows
    grain = 1
    while steps / grain > LOOKED_AT:
        grain *= 2
    lefts: Ints = np.unique([1, *range(grain, steps, grain), steps]).astype(np.int64)
    us = np.array([clock.part(number, left / steps) for left in lefts.tolist()])
    if len(lefts) < 2 or not us[-1] > 0:
        return {}
    missed = np.where(us <= us[-1], _missed(lefts, us), 1 + us / us[-1])
    return {int(left) * rows * group.width: float(part) for left, part in zip(lefts, missed, strict=True)}


def _missed(at: Ints, us: Array) -> Array:
    """The part of its saving that each width misses, against the wider one where that is most."""
    best = int(us.argmin())
    if us[best] >= us[-1]:
        return np.ones(len(at))
    even = float(us[-1] - us[best]) / float(at[-1] - at[best])
    missed = np.zeros(len(at))
    for i in range(len(at) - 1):
        missed[i] = float((1 - (us[i + 1 :] - us[i]) / (even * (at[i + 1 :] - at[i]))).max())
    return missed
