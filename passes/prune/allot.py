"""Allots what leaves to the groups: alike to all, or most where the network loses least for what it saves."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from zc.ir.graph import Array
from zc.passes.prune.groups import Group
from zc.passes.prune.labels import Ints
from zc.passes.prune.ranking import Ranking
from zc.passes.prune.resources import Resource
from zc.passes.prune.select import Limits, kept

TOLERANCE = 0.02
"""How far from a goal is near enough, as a share of it."""
_NEAR = 0.004


class Measured(Protocol):
    """What says how much of something is left."""

    def left(self, gone: Array, /) -> float:
        """What is left; gone: float [groups], the share of each group that has left."""


def choices(group: Group, ranking: Ranking, limits: Limits) -> Ints:
    """The numbers of steps that a group may lose, ascending; 0 is always among them."""
    rows = ranking.order.shape[1]
    left = np.arange(1, ranking.steps)
    channels = left * rows * group.width
    allowed = left[[limits.fits(group, c) for c in channels.tolist()]] if len(left) else left
    return np.concatenate([[0], ranking.steps - allowed[::-1]]).astype(np.int64)


def alike(groups: Sequence[Group], rankings: Sequence[Ranking], limits: Limits) -> Ints:
    """The same share of every group: the number of steps that each loses."""
    return np.array(
        [r.steps - kept(g, r.order.shape[1], limits) for g, r in zip(groups, rankings, strict=True)], np.int64
    )


def isomorphic(groups: Sequence[Group], rankings: Sequence[Ranking], limits: Limits) -> Ints:
    """The same share of every kind of group; among the groups of a kind, most where it costs least.

    Groups are of a kind when they have as many atoms and occur in weights of the same sizes. (Fang et al., Isomorphic
    Pruning for Vision Models, 2024.)
    """
    lost = alike(groups, rankings, limits)
    kinds: dict[tuple[object, ...], list[int]] = {}
    for number, group in enumerate(groups):
        members = tuple(sorted((m.axes, m.width, m.params) for m in group.members))
        kinds.setdefault((group.size, group.width, rankings[number].steps, members), []).append(number)
    for mine in kinds.values():
        if len(mine) > 1 and lost[mine].any():
            steps = np.array([rankings[g].steps for g in mine], np.float64)
            atoms = Resource("atoms", 0.0, steps, (np.eye(len(mine)), np.zeros((len(mine), len(mine)))))
            own = [groups[g] for g in mine], [rankings[g] for g in mine]
            lost[mine] = cheapest_to_goal(*own, limits, atoms, float(steps.sum() - lost[mine].sum()))
    return lost


Share = Callable[[Sequence[Group], Sequence[Ranking], Limits], Ints]


def share_to_goal(
    groups: Sequence[Group],
    rankings: Sequence[Ranking],
    limits: Limits,
    resource: Measured,
    goal: float,
    share: Share = alike,
) -> Ints:
    """The same share of every group (or kind of group), so that the resource comes as near to the goal as it can."""
    low, high = 0.0, 1.0
    above, below = np.zeros(len(groups), np.int64), narrowest(groups, rankings, limits)
    for _ in range(24):
        ratio = (low + high) / 2
        lost = share(groups, rankings, replace(limits, ratio=ratio))
        if resource.left(shares(lost, rankings)) > goal:
            low, above = ratio, lost
        else:
            high, below = ratio, lost
    # Between two ratios that differ by one step in many groups: some of the groups take it.
    best, miss = above, abs(resource.left(shares(above, rankings)) - goal)
    lost = above.copy()
    for group in np.flatnonzero(above != below):
        lost[group] = below[group]
        now = abs(resource.left(shares(lost, rankings)) - goal)
        if now < miss:
            best, miss = lost.copy(), now
    return best


def narrowest(groups: Sequence[Group], rankings: Sequence[Ranking], limits: Limits) -> Ints:
    """As many steps of each group as the limits allow."""
    return np.array([choices(g, r, limits)[-1] for g, r in zip(groups, rankings, strict=True)], np.int64)


def cheapest_to_goal(
    groups: Sequence[Group], rankings: Sequence[Ranking], limits: Limits, resource: Resource, goal: float
) -> Ints:
    """Step by step from the group that loses least for what it saves, until the goal is reached.

    goal: in the units of the resource.
    """
    hulls = [_hull(choices(g, r, limits), r.loss) for g, r in zip(groups, rankings, strict=True)]
    steps = np.array([r.steps for r in rankings], np.float64)
    lost = np.zeros(len(groups), np.int64)
    while resource.left(lost / steps) > goal * (1 + _NEAR):
        saved = resource.saved(lost / steps)
        found: list[tuple[float, int, int, float]] = []
        for g, (places, slopes) in enumerate(hulls):
            at = int(np.searchsorted(places, lost[g], side="right"))
            if at < len(places) and saved[g] > 0:
                after = lost.copy()
                after[g] = places[at]
                found.append((slopes[at - 1] * steps[g] / saved[g], g, int(places[at]), resource.left(after / steps)))
        fine = [one for one in found if one[3] >= goal * (1 - TOLERANCE / 2)]
        if fine:
            _, g, place, _ = min(fine)
        elif found and resource.left(lost / steps) > goal * (1 + TOLERANCE):
            _, g, place, _ = max(found, key=lambda one: one[3])
        else:
            break
        lost[g] = place
    return lost


def leaving(lost: Ints, rankings: Sequence[Ranking]) -> Ints:
    """The roots of the atoms that leave, ascending."""
    parts = [ranking.order[:n].ravel() for n, ranking in zip(lost, rankings, strict=True)]
    return np.sort(np.concatenate(parts)) if parts else np.zeros(0, np.int64)


def shares(lost: Ints, rankings: Sequence[Ranking]) -> Array:
    """Which part of each group leaves."""
    return np.array([n / r.steps for n, r in zip(lost, rankings, strict=True)])


def _hull(places: Ints, loss: Array) -> tuple[Ints, Array]:
    """All allowed places, with slopes from each to the next that never fall: those of the lower convex hull."""
    at = places[:1].tolist()
    for place in places[1:].tolist():
        while len(at) > 1 and (loss[at[-1]] - loss[at[-2]]) * (place - at[-1]) >= (loss[place] - loss[at[-1]]) * (
            at[-1] - at[-2]
        ):
            at.pop()
        at.append(place)
    corners = np.array(at)
    slopes = np.diff(loss[corners]) / np.diff(corners) if len(corners) > 1 else np.zeros(0)
    # A step inside an edge of the hull has the slope of the edge.
    edge = np.searchsorted(corners, places[1:], side="left") - 1
    return places, slopes[edge] if len(slopes) else np.zeros(0)
