"""How much each layer may lose for a goal: a share of the multiply-accumulates, or of the time that is measured."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from zc.errors import ZcError
from zc.ir.edit import Editor, Names, sort_nodes, sweep
from zc.ir.graph import Array
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes
from zc.measure.timings import Timings
from zc.passes.decompose.factors import Factors, product_of
from zc.passes.decompose.write import write
from zc.passes.layers.chosen import Moments, forget
from zc.passes.layers.layers import Layer, find_layers
from zc.passes.prune.speed.goal import TOLERANCE as TIME_TOLERANCE
from zc.passes.prune.speed.goal import Stopwatch
from zc.passes.prune.speed.latency import Wanted
from zc.pipeline.base import Context, Stat

TOLERANCE = 0.02


@dataclass(frozen=True, eq=False)
class Choice:
    """A layer and its forms, the least loss first among those that pay."""

    layer: Layer
    moments: Moments
    forms: Sequence[Factors]
    macs: int
    """Multiply-accumulates of the layer as it is; 0 where they are not known."""
    us: Mapping[int, float] = field(default_factory=dict)
    """By id of a form, its microseconds by the target's table, where it is chosen by these."""

    def best(self, loss: float) -> Factors | None:
        """The form of least work (or time) that loses no more than that."""
        fine = [f for f in self.forms if f.loss <= loss]
        return min(fine, key=lambda f: (self.us.get(id(f), f.work), f.loss), default=None)

    def left(self, form: Factors | None) -> float:
        """Multiply-accumulates in that form."""
        return self.macs * (1.0 if form is None else form.work / self.layer.weight.size)


@dataclass(frozen=True)
class Found:
    """What a search for a goal came to."""

    loss: float
    """Part of its variance that each layer may lose."""
    short: str | None = None
    """Where it falls short of the goal: how far it got."""
    stats: Mapping[str, Stat] = field(default_factory=dict)


def loss_for_macs(share: float, choices: Sequence[Choice], total: int | None) -> Found:
    """The least loss with which this share of the model's multiply-accumulates is left.

    Raises:
        ZcError: they are not known.
    """
    if not total:
        raise ZcError("macs: the multiply-accumulates of this model are not known; state energy instead")
    rest = total - sum(c.macs for c in choices)

    def left(loss: float) -> float:
        return (rest + sum(c.left(c.best(loss)) for c in choices)) / total

    losses = _losses(choices)
    reached = next((loss for loss in losses if left(loss) <= share * (1 + TOLERANCE)), None)
    if reached is not None:
        return Found(reached)
    return Found(losses[-1], f"macs={share:g}: it gets to {left(losses[-1]):.3f}: no layer has a smaller form")


def loss_for_time(wanted: Wanted, model: Model, choices: Sequence[Choice], ctx: Context) -> Found:
    """The least loss with which the measured time comes down to the goal: bisection over models that are timed."""
    watch = Stopwatch(model, ctx.samples, Timings())
    before = watch.milliseconds()
    share = wanted.amount / before if wanted.milliseconds else wanted.amount
    losses = _losses(choices)

    def ratio(place: int) -> float:
        return watch.ratio(tried(model, choices, losses[place]))

    low, high = 0, len(losses) - 1
    best = ratio(high)
    goal = share * (1 + TIME_TOLERANCE)
    lowest = best
    while best <= goal and low < high:
        middle = (low + high) // 2
        now = ratio(middle)
        if now <= goal:
            high, best = middle, now
        else:
            low = middle + 1
    stats = {"latency_ms_before": round(before, 4), "latency_ratio": round(best, 3)}
    if best <= goal:
        return Found(losses[high], stats=stats)
    return Found(losses[high], f"{wanted}: it gets to {lowest:.3f} of the original's {before:.3g} ms", stats)


def _losses(choices: Sequence[Choice]) -> list[float]:
    """Losses at which some layer takes another form, ascending; 0 where there is none."""
    return sorted({f.loss for c in choices for f in c.forms}) or [0.0]


def tried(model: Model, choices: Sequence[Choice], loss: float) -> Model:
    """A copy of the model whose layers have taken their forms."""
    place = {id(node): i for i, node in enumerate(model.nodes())}
    copy = model.copy()
    nodes = list(copy.nodes())
    twins = {id(one.node): one for one in find_layers(copy)[0]}
    replaced(copy, [replace(c, layer=twins[id(nodes[place[id(c.layer.node)]])]) for c in choices], loss)
    return copy


def replaced(model: Model, choices: Sequence[Choice], loss: float) -> Counter[str]:
    """Give the layers of the model the forms that lose no more than that, in place; how many took which."""
    editor, names = Editor(model.graph, Names(model.graph)), Names(model.graph)
    taken: Counter[str] = Counter()
    for choice in choices:
        form = choice.best(loss)
        if form is not None:
            write(choice.layer, form, _moved(choice, form), editor, names)
            taken[form.form] += 1
    if taken:
        editor.finish()
        sort_nodes(model.graph)
        sweep(model.graph)
        forget(model, [choice.layer.weight for choice in choices])
        infer_shapes(model, stale=True)
    return taken


def _moved(choice: Choice, form: Factors) -> Array | None:
    """What the bias takes over of the means that the parts do not say, [M]."""
    error = choice.layer.matrix() - product_of(choice.layer, form)
    moved = (choice.moments.mean[:, None] @ error).reshape(-1)
    return moved if np.any(moved) else None
