"""A goal of latency: widths by the clock, cut, measured; what was measured corrects the clock, until the goal is met.

    plan -> cut -> time beside the original, and by kernel -> plan anew ...

The result is measured whole, not predicted. All measurements pass through the cache of times: with the same cache the
same widths are chosen.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from zc.data import Samples
from zc.execute import Feeds
from zc.ir.graph import Node
from zc.ir.model import Model
from zc.measure.latency import bench
from zc.measure.profile import profile
from zc.measure.timings import Timings
from zc.passes.prune.labels import Ints
from zc.passes.prune.speed.clock import Clock, title
from zc.pipeline.synthetic import synthetic_samples

TOLERANCE = 0.05
"""How far from the goal is near enough, as a share of it."""
_AIM = 0.015
"""How far is so near that no further cut is tried."""
TURNS = 8
SECONDS = 2.0
"""For one comparison with the original."""


@dataclass(frozen=True)
class Reached:
    """What was measured."""

    lost: Ints
    """Steps, by group."""
    ratio: float
    """Of the time of the model so cut to the original's."""
    turns: int
    """Cuts that were timed."""


class Stopwatch:
    """Times cuts of a model beside the model itself: batch 1, one thread."""

    def __init__(self, model: Model, samples: Samples | None, timings: Timings) -> None:
        """Take a row to run on."""
        self.model, self.timings = titled(model), timings
        rows = synthetic_samples(model, rows=1) if samples is None else samples
        self.feeds: Sequence[Feeds] = list(rows.take(0, min(rows.rows, rows.batch or 1)).batches(1))[:1]

    def milliseconds(self) -> float:
        """The time of the original."""
        return self._cached("ms " + _sizes(self.model), lambda: bench([self.model], self.feeds, budget=SECONDS)[0].ms)

    def ratio(self, cut: Model) -> float:
        """The time of a cut over that of the original."""
        key = f"ratio {_sizes(cut)} / {_sizes(self.model)}"
        return self._cached(key, lambda: bench([self.model, cut], self.feeds, budget=SECONDS)[1].ratio)

    def teach(self, clock: Clock, cut: Model) -> None:
        """Let the clock, whose present widths are those of the cut, learn the times of its kernels."""
        key = f"others {_sizes(cut)}"
        known = self.timings.get(key)
        if known is not None:
            clock.recall(known)
            return
        clock.learn(profile(titled(cut), self.feeds))
        self.timings.put(key, clock.others)
        clock.recall(self.timings.get(key) or 1.0)

    def _cached(self, key: str, measure: Callable[[], float]) -> float:
        if self.timings.get(key) is None:
            self.timings.put(key, measure())
        return self.timings.get(key) or 0.0


def reach(
    share: float,
    clock: Clock,
    watch: Stopwatch,
    plan: Callable[[float], Ints],
    steps: Ints,
    cut: Callable[[Ints], Model],
) -> Reached:
    """The widths whose measured time is nearest to that share of the original's.

    plan: the steps that groups lose so that the clock shows so many microseconds. cut: the model so cut, not repaired.
    """
    whole = np.ones(len(steps))
    clock.at(whole)
    watch.teach(clock, watch.model)
    correction, best, tried = 1.0, None, set()
    turn = 0
    for turn in range(1, TURNS + 1):
        clock.at(whole)
        lost = plan(clock.total() * share * correction)
        if lost.tobytes() in tried:
            correction *= 0.99 if best is not None and best.ratio > share else 1.01
            continue
        tried.add(lost.tobytes())
        model = cut(lost)
        ratio = watch.ratio(model)
        if best is None or abs(ratio - share) < abs(best.ratio - share):
            best = Reached(lost, ratio, turn)
        if abs(ratio - share) <= _AIM * share or not lost.any():
            break
        clock.at(1.0 - lost / steps)
        watch.teach(clock, model)
        shown = clock.total()
        clock.at(whole)
        # What the clock shows of this cut against what it really takes.
        correction = shown / clock.total() / ratio
    assert best is not None
    return Reached(best.lost, best.ratio, turn)


def titled(model: Model) -> Model:
    """The model with a name for each node, by which a profile tells it."""
    if all(node.name for node in model.graph.nodes):
        return model
    model = model.copy()
    for node in model.graph.nodes:
        if isinstance(node, Node):
            node.name = title(node)
    return model


def _sizes(model: Model) -> str:
    """A digest of the operators, attributes and sizes of a model: what its time depends on."""
    said: list[Sequence[object]] = []
    for scope in model.scopes():
        for node in scope.nodes:
            shapes = [tuple(t.shape or ()) for t in node.inputs]
            attrs = {k: v for k, v in node.attrs.items() if isinstance(v, int | float | str | list | tuple)}
            said.append((node.op, sorted(attrs.items()), shapes))
    return hashlib.sha256(repr(said).encode()).hexdigest()[:16]
