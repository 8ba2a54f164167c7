"""Chooses the atoms that leave: a share of each group, the least important first."""

from dataclasses import dataclass

import numpy as np

from zc.passes.prune.groups import Group
from zc.passes.prune.importance import Scores
from zc.passes.prune.labels import Ints


@dataclass(frozen=True)
class Limits:
    """How much of a group may leave."""

    ratio: float
    round_to: int
    min_channels: int


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
    """How many atoms of each row stay: never less than asked for, and a multiple of `round_to` channels in all."""
    size = group.size // rows
    keep = max(size - int(size * limits.ratio + 1e-9), 1)
    while keep < size:
        channels = keep * rows * group.width
        if channels % limits.round_to == 0 and channels >= limits.min_channels:
            return keep
        keep += 1
    return size


def why_none(group: Group, limits: Limits) -> str:
    """The reason why nothing leaves a group."""
    channels = group.size * group.width
    if channels <= limits.min_channels:
        return f"{channels} channels, and min_channels is {limits.min_channels}"
    if limits.round_to > 1 and kept(group, len(np.unique(group.rows)), Limits(limits.ratio, 1, limits.min_channels)) < (
        group.size // len(np.unique(group.rows))
    ):
        return f"round_to={limits.round_to} leaves {channels} channels as they are"
    return f"a ratio of {limits.ratio:g} takes none of {group.size}"
