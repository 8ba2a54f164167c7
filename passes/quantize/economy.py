"""Economy: nodes stay float where the target's cost table says that integers take longer.

    before:  x -Q-> Conv (int8, 3 -> 8 channels) -> depthwise (int8, 8 channels) -> pointwise (int8) -> ...
    after:   x ---> Conv (float) ----------------> depthwise (float) -------Q---> pointwise (int8) -> ...

The choice is a minimum cut over the nodes that could run in integers (`ledger.py`): their own times in either form and
the times of what turns a value from one form into another, so a node in float among integers pays for its borders. An
island of floats must save a share of the whole; whatever it does not, integers do better in bytes.
"""

import math
from dataclasses import dataclass, field

from zc.figures import size_text
from zc.ir.graph import Node
from zc.ir.shapes import static_shape
from zc.measure.bind import bind, measure_shapes, open_dims
from zc.passes.quantize.ledger import Ledger, Unit
from zc.passes.quantize.workshop import KeepFloat, Workshop
from zc.pipeline.base import PassResult
from zc.target import Shapes, Target

PREFERENCE = 0.1
"""Share of an integer kernel's time that is forgiven: predictions are that sure, and integers are smaller."""
LEAST_GAIN = 0.01
"""Share of the whole time that an island of floats must save."""
LEAST_US = 20.0
"""And microseconds: of nets that are over at once the size counts more."""
MOST_ROUNDS = 4
"""Times that the nodes are placed anew after some have become float."""


@dataclass
class Economy:
    """What stays float because it is faster so."""

    reasons: dict[str, str] = field(default_factory=dict)
    """By name of a node's first output."""
    layers: int = 0
    """Weighted operators among them."""
    weight_bytes: int = 0
    """By how much their weights stay larger than as integers."""
    float_us: float = 0.0
    """Predicted time of a run: all in float,"""
    integer_us: float = 0.0
    """with all in integers that may,"""
    chosen_us: float = 0.0
    """and as chosen."""

    def keep_float(self, also: KeepFloat) -> KeepFloat:
        """The reasons why nodes stay float, with those of another function before them."""

        def reason(node: Node) -> str | None:
            return also(node) or (self.reasons.get(node.outputs[0].name) if node.outputs else None)

        return reason


def economise(workshop: Workshop, keep_float: KeepFloat) -> Economy:
    """What to leave in float so that the model takes the least time; nothing where the target has no cost table.

    keep_float: what stays float for other reasons.
    """
    target, found = workshop.ctx.target, Economy()
    if target.costs is None:
        return found
    shapes = _shapes(workshop)
    for number in range(MOST_ROUNDS):
        places = workshop.places(found.keep_float(keep_float))
        ledgers = [Ledger(one, target, shapes[id(one.graph)]) for one in places]
        if number == 0:
            found.float_us = sum(ledger.total(ledger.units) for ledger in ledgers)
            found.integer_us = sum(ledger.total() for ledger in ledgers)
        found.chosen_us = sum(ledger.total() for ledger in ledgers)
        more = {n: why for ledger in ledgers for n, why in _choose(ledger, found, target, found.chosen_us).items()}
        if not more:
            break
        found.reasons |= more
    return found


def _choose(ledger: Ledger, found: Economy, target: Target, whole_us: float) -> dict[str, str]:
    """Reasons, by name of a node's first output, for what of one scope is to become float."""
    bound: set[Unit] = set()
    while True:
        floats = ledger.cheapest(bound, PREFERENCE)
        islands = ledger.islands(floats)
        costs = [(ledger.near(island, floats), ledger.near(island, set(floats) - set(island))) for island in islands]
        least = max(LEAST_GAIN * whole_us, LEAST_US)
        idle = [i for i, (a, b) in zip(islands, costs, strict=True) if b - a < least]
        if not idle:
            break
        bound.update(unit for island in idle for unit in island)
    reasons = {}
    for island, (as_float, as_codes) in zip(islands, costs, strict=True):
        others = len([u for u in island if u.weighted]) - 1
        where = f"here, with {others} layer{'s'[: others != 1]} beside it" if others > 0 else "here"
        why = f"float is faster {where}: {as_float:.0f} us against {as_codes:.0f} us by the table of {target.name}"
        for unit in island:
            reasons[unit.node.outputs[0].name] = why
            found.layers += unit.weighted
            found.weight_bytes += _saved_bytes(unit)
    return reasons


def _saved_bytes(unit: Unit) -> int:
    """Bytes by which the weight of a layer in float exceeds its codes."""
    weight = unit.node.inputs[1] if unit.weighted else None
    shape = static_shape(weight) if weight is not None else None
    return 3 * math.prod(shape) if shape is not None else 0


def _shapes(workshop: Workshop) -> dict[int, Shapes]:
    """By id of each scope of the workshop's model: the sizes of the values that it sees, for a batch of one.

    Open dimensions have the sizes of the first calibration row.
    """
    model = workshop.model
    bound = bind(model, _sizes(workshop))
    unknown = [t for n in bound.graph.nodes for t in n.outputs if t.name and static_shape(t) is None]
    if unknown:
        measure_shapes(bound, unknown)
    found: dict[int, Shapes] = {}
    outer: dict[str, tuple[int, ...]] = {}
    for scope, sized in zip(model.scopes(), bound.scopes(), strict=True):
        tensors = [*sized.inputs, *(t for n in sized.nodes for t in (*n.inputs, *n.outputs))]
        own = {t.name: shape for t in tensors if (shape := static_shape(t)) is not None}
        found[id(scope)] = {**outer, **own}
        outer = {**own, **outer}
    return found


def _sizes(workshop: Workshop) -> dict[str, int]:
    """Sizes of the open dimensions, by the names that `bind` takes."""
    model = workshop.model
    wanted = set(open_dims(model))
    if not wanted:
        return {}
    feed = next(workshop.split.fit.batches(1))
    sizes: dict[str, int] = {}
    for spec in model.inputs:
        for axis, dim in enumerate(spec.shape or ()):
            name = dim if isinstance(dim, str) and dim else f"{spec.name}:{axis}"
            if name in wanted and spec.name in feed:
                sizes.setdefault(name, max(int(feed[spec.name].shape[axis]), 1))
    return sizes


def tell_economy(result: PassResult, found: Economy) -> None:
    """What the table says of the whole, and what the floats cost in bytes."""
    if found.layers:
        result.info(
            "float_if_faster",
            f"{found.layers} layer{'s'[: found.layers != 1]} in float for speed, "
            f"{size_text(found.weight_bytes)} more; predicted time {found.chosen_us:.0f} us, "
            f"all in integers {found.integer_us:.0f} us, all in float {found.float_us:.0f} us",
        )
