"""The goal of latency from beginning to end: what the user asks for, the widths for it, and what to say of it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from zc.data import Samples
from zc.errors import ZcError
from zc.ir.model import Model
from zc.measure.timings import Timings
from zc.passes.prune.allot import narrowest, share_to_goal
from zc.passes.prune.goals import what_is_pinned
from zc.passes.prune.labels import Ints
from zc.passes.prune.plan import Plan
from zc.passes.prune.speed.clock import Clock
from zc.passes.prune.speed.goal import TOLERANCE, Reached, Stopwatch, reach
from zc.passes.prune.speed.search import fastest_for_its_loss


@dataclass(frozen=True)
class Wanted:
    """A share of the time of the original, or milliseconds."""

    amount: float
    milliseconds: bool

    def __str__(self) -> str:
        return f"latency={self.amount:g}{'ms' if self.milliseconds else ''}"


def read_latency(given: float | str) -> Wanted:
    """What `latency=` says.

    Raises:
        ZcError: it is neither a share nor milliseconds.
    """
    text = str(given).strip().lower()
    found = re.fullmatch(r"([0-9.]+(?:e-?\d+)?)\s*(ms)?", text)
    try:
        amount = float(found[1]) if found else 0.0
    except ValueError:
        amount = 0.0
    if found is None or amount <= 0 or (found[2] is None and amount > 1):
        raise ZcError(f"latency is {given}; it must be a share of the original's time (0.6), or milliseconds (5ms)")
    return Wanted(amount, found[2] is not None)


@dataclass(frozen=True)
class Found:
    """What a search for a latency came to."""

    lost: Ints
    stats: dict[str, int | float | str]
    short: str | None
    """Where it falls short of the goal: how far it got and why."""


class LatencyRun:
    """One search for the widths of a goal of latency."""

    def __init__(
        self, model: Model, plan: Plan, clock: Clock, samples: Samples | None, timings: Timings, *, uniform: bool
    ) -> None:
        """For a model that stays as it is. uniform: does every group lose the same share?"""
        self.plan, self.clock, self.uniform = plan, clock, uniform
        self.watch = Stopwatch(model, samples, timings)

    def reach(self, wanted: Wanted, raw: Callable[[Ints], Model], best_effort: bool) -> Found:
        """The widths whose measured time comes nearest to what is wanted.

        raw: a cut of these atoms, not repaired.

        Raises:
            ZcError: the goal is out of reach and `best_effort` is not set.
        """
        before = self.watch.milliseconds()
        share = wanted.amount / before if wanted.milliseconds else wanted.amount
        steps = np.array([r.steps for r in self.plan.rankings], np.int64)
        if share >= 1:
            found = Reached(np.zeros(len(steps), np.int64), 1.0, 0)
        else:
            found = reach(share, self.clock, self.watch, self._plan, steps, lambda lost: raw(self.plan.atoms(lost)))
        stats: dict[str, int | float | str] = {
            "latency_ms_before": round(before, 4),
            "latency_ms_after": round(before * found.ratio, 4),
            "latency_ratio": round(found.ratio, 3),
            "cuts_timed": found.turns,
        }
        if found.ratio <= share * (1 + TOLERANCE):
            return Found(found.lost, stats, None)
        short = f"{wanted}: it gets to {found.ratio:.3f} of the original's {before:.3g} ms{self._why(found, raw)}"
        if not best_effort:
            raise ZcError(f"{short}; state a goal within reach, or go as far as it gets with best_effort=true")
        return Found(found.lost, stats, short)

    def _plan(self, goal: float) -> Ints:
        """The steps of each group for so many microseconds on the clock."""
        own = self.plan
        groups, rankings = own.groups.groups, own.rankings
        if self.uniform:
            return share_to_goal(groups, rankings, own.limits, self.clock, goal)
        return fastest_for_its_loss(groups, rankings, replace(own.limits, pays={}), self.clock, goal)

    def _why(self, found: Reached, raw: Callable[[Ints], Model]) -> str:
        own = self.plan
        least = narrowest(own.groups.groups, own.rankings, replace(own.limits, pays={}))
        lowest = self.watch.ratio(raw(own.atoms(least)))
        if lowest < found.ratio * (1 - TOLERANCE):
            return f", and {lowest:.3f} where nothing but the narrowest widths is left"
        return what_is_pinned(own.groups)
