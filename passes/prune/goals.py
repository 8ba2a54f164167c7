"""Goals: what the user asks for, checked; and how far a guard lets the cut go."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from zc.errors import ZcError
from zc.passes.prune.cutting import Cut
from zc.passes.prune.groups import Groups
from zc.passes.prune.labels import Ints
from zc.passes.prune.plan import Plan

RESOURCES = ("macs", "params", "bytes")
TRIES = 5
"""Cuts that the search for a guard makes."""


@dataclass(frozen=True)
class Goal:
    """A share of a resource that shall be left."""

    name: str
    share: float

    def __str__(self) -> str:
        return f"{self.name}={self.share:g}"


def lost_for(plan: Plan, goal: Goal, groups: Groups, best_effort: bool) -> tuple[Ints, str | None]:
    """What each group loses for a goal, and, where it falls short of it, how far it got and why.

    Raises:
        ZcError: the goal cannot be reached and `best_effort` is not set; the resource is not known.
    """
    if goal.name not in plan.resources:
        raise ZcError(
            f"{goal}: the MACs of this model are not known (`zc stats` says which); state params or bytes instead"
        )
    lost = plan.to_goal(goal.name, goal.share)
    if plan.reached(goal.name, goal.share, lost):
        return lost, None
    left = plan.share_left(goal.name, lost)
    why = f"{goal}: it gets to {left:.3f}{_what_stays(plan, goal, groups)}"
    if not best_effort:
        raise ZcError(f"{why}; state a goal within reach, or go as far as it gets with best_effort=true")
    return lost, why


def _what_stays(plan: Plan, goal: Goal, groups: Groups) -> str:
    """What keeps a cut from a goal, in words."""
    lowest = plan.lowest(goal.name)
    if lowest <= goal.share:
        limits = plan.limits
        steps = f" with round_to={limits.round_to}" if limits.round_to > 1 else ""
        return f": the steps between widths are too large{steps}"
    return f" and cannot go below {lowest:.3f}{what_is_pinned(groups)}"


def what_is_pinned(groups: Groups) -> str:
    """The nodes with the most channels that must stay, and why; nothing where there are none."""
    kinds: dict[str, int] = {}
    for one in groups.pinned:
        kinds[f"{one.node} {one.reason}"] = one.channels
    top = sorted(kinds, key=lambda reason: -kinds[reason])[:2]
    rest = f" and {len(kinds) - 2} more" if len(kinds) > 2 else ""
    return f": pinned are {'; '.join(top)}{rest}" if top else ""


def guarded(plan: Plan, guard: float, attempt: Callable[[Ints], Cut]) -> tuple[Ints, float] | None:
    """The deepest cut that agrees with the original as the guard demands, and its agreement; None when none does.

    It is searched for by bisection over the share of MACs (of parameters, where MACs are not known).

    attempt: makes a cut and measures it.
    """
    name = "macs" if "macs" in plan.resources else "params"
    low, high = max(plan.lowest(name), 0.05), 1.0
    best: tuple[Ints, float] | None = None
    for _ in range(TRIES):
        share = (low + high) / 2
        lost = plan.to_goal(name, share)
        if not np.any(lost):
            break
        agreement = attempt(lost).after
        if agreement is not None and agreement.share >= guard:
            best, high = (lost, agreement.share), share
        else:
            low = share
    return best
