"""Allots what leaves for a time: step by step from the group that loses least for the microseconds that it saves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zc.passes.prune.allot import choices
from zc.passes.prune.groups import Group
from zc.passes.prune.labels import Ints
from zc.passes.prune.ranking import Ranking
from zc.passes.prune.select import Limits
from zc.passes.prune.speed.clock import Clock

PLACES = 48
"""Widths that are looked at in a group."""
_NEAR = 0.005
_LEAST = 0.002
"""Of the whole time: what a step must save at least to count."""


@dataclass(frozen=True)
class _Move:
    """A group gets narrower."""

    place: int
    """The steps that it has lost then."""
    saved: float
    """Microseconds."""
    price: float
    """Loss for a microsecond."""


def fastest_for_its_loss(
    groups: Sequence[Group], rankings: Sequence[Ranking], limits: Limits, clock: Clock, goal: float
) -> Ints:
    """The steps that each group loses so that the predicted time comes down to the goal, in microseconds.

    A kernel's time falls in steps, so of each group all narrower widths are looked at, not only the next one.
    """
    lost = np.zeros(len(groups), np.int64)
    steps = np.array([r.steps for r in rankings], np.float64)
    widths = [_some(choices(g, r, limits)) for g, r in zip(groups, rankings, strict=True)]
    clock.at(np.ones(len(groups)))
    now = whole = clock.total()
    moves: dict[int, list[_Move]] = {}
    stale = set(range(len(groups)))
    while now > goal * (1 + _NEAR):
        for g in sorted(stale):
            moves[g] = _moves(g, widths[g], int(lost[g]), rankings[g], clock, _LEAST * whole / len(groups))
        found = [(m.price, g, m.place, m.saved) for g, ms in moves.items() for m in ms]
        fine = [one for one in found if now - one[3] >= goal * (1 - _NEAR)]
        if fine:
            _, g, place, _ = min(fine)
        elif found and now > goal * (1 + 2 * _NEAR):
            _, g, place, _ = min(found, key=lambda one: one[3])  # the least beyond the goal
            if goal - (now - moves_saved(moves[g], place)) > now - goal:
                break
        else:
            break
        lost[g] = place
        clock.at(1.0 - lost / steps)
        now = clock.total()
        stale = {other for one in clock.touched[g] for other in one.groups} | {g}
    return lost


def moves_saved(moves: Sequence[_Move], place: int) -> float:
    """What the move to a place saves."""
    return next(m.saved for m in moves if m.place == place)


def _moves(group: int, places: Ints, at: int, ranking: Ranking, clock: Clock, least: float) -> list[_Move]:
    before = clock.part(group)
    found = []
    for place in places[places > at].tolist():
        saved = before - clock.part(group, 1.0 - place / ranking.steps)
        if saved > least:
            found.append(_Move(place, saved, float(ranking.loss[place] - ranking.loss[at]) / saved))
    return found


def _some(places: Ints) -> Ints:
    """At most `PLACES` of them, evenly."""
    if len(places) <= PLACES:
        return places
    return places[np.unique(np.linspace(0, len(places) - 1, PLACES).round().astype(np.int64))]
