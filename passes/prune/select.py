"""Chooses the atoms that leave: a share of each group, the least important first."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from zc.passes.prune.groups import Group
from zc.passes.prune.importance import Scores
from zc.passes.prune.labels import Ints

EASED = (0.5, 0.8, 1.0, math.inf)
"""How much of what it should save a width may miss: the first at which a goal is within reach."""

FAR = 0.15
"""Of a group: how far from the share asked for a width that pays may be."""


@dataclass(frozen=True)
class Limits:
    """How much of a group may leave."""

    ratio: float
    round_to: int
    min_channels: int
    pays: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    """By the first atom of a group and its channels: the part of its saving that a width misses (`speed.widths`)."""
    slack: float | None = None
    """How much it may miss; None: whatever it takes to come near to the ratio."""

    def fits(self, group: Group, channels: int) -> bool:
        """May the group be left with so many channels?"""
        if channels % self.round_to or channels < self.min_channels:
            return False
        known = self.pays.get(int(group.atoms[0]))
        return known is None or self.slack is None or known.get(channels, math.inf) <= self.slack

    def eased(self) -> "Sequence[Limits]":
        """These limits, from the strictest to the loosest choice of widths; the last allows those that never pay."""
        return [replace(self, slack=slack) for slack in EASED] if self.pays else [self]


def choose(group: Group, scores: Scores, limits: Limits) -> Ints:
    """The atoms of a group that leave; of equal importance the last ones. As many of each of its rows."""
    parts = [group.atoms[group.rows == row] for row in np.unique(group.rows)]
    keep = kept(group, len(parts), limits)
    gone = []
    for part in parts:
        order = np.lexsort((part, -scores[part]))
        gone.append(part[order[keep:]])
    return np.sort(np.concatenate(gone))


def kept(group: Group, rows: int, limits: Limits) -> int:
    """How many atoms of each row stay: never less than asked for, and a multiple of `round_to` channels in all.

    Where widths are chosen by what pays, the nearest of those.
    """
    size = group.size // rows
    wanted = max(size - int(size * limits.ratio + 1e-9), 1)
    if int(group.atoms[0]) in limits.pays:
        return _nearest_that_pays(group, rows, wanted, limits)
    for keep in range(wanted, size):
        if limits.fits(group, keep * rows * group.width):
            return keep
    return size


def _nearest_that_pays(group: Group, rows: int, wanted: int, limits: Limits) -> int:
    size = nearest = group.size // rows
    for one in limits.eased()[:-1] if limits.slack is None else [limits]:
        fitting = [k for k in range(1, size) if one.fits(group, k * rows * group.width)]
        nearest = min([*fitting, size], key=lambda k: (abs(k - wanted), -k))
        if abs(nearest - wanted) <= FAR * size:
            return nearest
    if limits.slack is not None:
        return nearest
    # Nothing near pays: what is least slow.
    missed = limits.pays[int(group.atoms[0])]
    near = [
        k for k in range(1, size + 1) if abs(k - wanted) <= FAR * size and limits.fits(group, k * rows * group.width)
    ]
    return min(near, key=lambda k: (missed.get(k * rows * group.width, math.inf), abs(k - wanted)), default=nearest)


def why_none(group: Group, limits: Limits) -> str:
    """The reason why nothing leaves a group."""
    channels = group.size * group.width
    if channels <= limits.min_channels:
        return f"{channels} channels, and min_channels is {limits.min_channels}"
    if limits.round_to > 1 and kept(group, len(np.unique(group.rows)), replace(limits, round_to=1)) < (
        group.size // len(np.unique(group.rows))
    ):
        return f"round_to={limits.round_to} leaves {channels} channels as they are"
    return f"a ratio of {limits.ratio:g} takes none of {group.size}"
