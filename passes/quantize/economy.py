"""Economy: nodes stay float where the target's cost table says that integers take longer.

    before:  x -Q-> Conv (int8, 3 -> 8 channels) -> depthwise (int8, 8 channels) -> pointwise (int8) -> ...
    after:   x ---> Conv (float) ----------------> depthwise (float) -------Q---> pointwise (int8) -> ...

The choice is a minimum cut over the nodes that could run in integers (`ledger.py`): their own times in either form and
the times of what turns a value from one form into another, so a node in float among integers pays for its borders. An
island of floats must save a share of the whole; whatever it does not, integers do better in bytes.
"""

from dataclasses import dataclass, field

from zc.figures import size_text
from zc.ir.graph import Node
from zc.ir.shapes import static_shape
from zc.measure.bind import bind, measure_shapes, open_dims, sizes_of
from zc.passes.quantize.ledger import Ledger, Unit
from zc.passes.quantize.workshop import KeepFloat, Workshop
from zc.pipeline.base import PassResult
from zc.target import Shapes


@dataclass(frozen=True)
class Terms:
    """How much better floats must be before they are preferred; by default better at all."""

    preference: float = 0.0
    """Share of an integer kernel's time that is forgiven."""
    least_gain: float = 0.0
    """Share of the whole time that an island of floats must save."""
    byte_worth: float = 0.0
    """Of the time that not keeping all weights in float would be worth, as a share of the whole."""


MILD = Terms(preference=0.1, least_gain=0.01, byte_worth=0.1)
"""Predictions are no surer than this, and integers are smaller."""
LEAST_US = 15.0
"""Microseconds that all islands together must save: of nets that are over at once the size counts more."""
MOST_ROUNDS = 4
"""Times that the nodes are placed anew after some have become float."""


@dataclass(frozen=True, eq=False)
class Island:
    """Nodes that are joined by values and become float together."""

    units: list[Unit]
    float_us: float
    """Time of the nodes and of the values beside them, in float,"""
    integer_us: float
    """and in integers."""

    @property
    def gain_us(self) -> float:
        """What floats save."""
        return self.integer_us - self.float_us

    @property
    def extra_bytes(self) -> int:
        """By how much its weights are larger in float."""
        return sum(unit.extra_bytes for unit in self.units)

    @property
    def layers(self) -> int:
        """Weighted operators."""
        return sum(unit.weighted for unit in self.units)

    def reason(self, place: str) -> str:
        """As the user reads it."""
        others = self.layers - 1
        where = f"here, with {others} layer{'s'[: others != 1]} beside it" if others > 0 else "here"
        times = f"{self.float_us:.0f} us against {self.integer_us:.0f} us"
        return f"float is faster {where}: {times} by the table of {place}"


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

    def add(self, island: Island, place: str) -> None:
        """Leave these nodes in float too."""
        self.layers += island.layers
        self.weight_bytes += island.extra_bytes
        self.reasons.update((unit.node.outputs[0].name, island.reason(place)) for unit in island.units)

    def keep_float(self, also: KeepFloat) -> KeepFloat:
        """The reasons why nodes stay float, with those of another function before them."""

        def reason(node: Node) -> str | None:
            return also(node) or (self.reasons.get(node.outputs[0].name) if node.outputs else None)

        return reason


def economise(workshop: Workshop, keep_float: KeepFloat) -> Economy:
    """What to leave in float so that the model takes the least time; nothing where the target has no cost table.

    keep_float: what stays float for other reasons.
    """
    if workshop.ctx.target.costs is None:
        return Economy()
    shapes = shapes_of(workshop)
    found = _settle(workshop, keep_float, shapes, MILD)
    if found.layers and found.chosen_us > found.float_us:  # small favours for integers have added up
        found = _settle(workshop, keep_float, shapes, Terms())
    return found


def _settle(workshop: Workshop, keep_float: KeepFloat, shapes: dict[int, Shapes], terms: Terms) -> Economy:
    """Place and choose until nothing more becomes float."""
    target, found = workshop.ctx.target, Economy()
    for number in range(MOST_ROUNDS):
        places = workshop.places(found.keep_float(keep_float))
        ledgers = [Ledger(one, target, shapes[id(one.graph)]) for one in places]
        found.chosen_us = sum(ledger.total() for ledger in ledgers)
        if number == 0:
            found.float_us = sum(ledger.total(ledger.units) for ledger in ledgers)
            found.integer_us = found.chosen_us
        us_per_byte = terms.byte_worth * found.chosen_us / max(workshop.model.nbytes(), 1)
        least_us = terms.least_gain * found.chosen_us
        islands = [one for book in ledgers for one in _islands(book, terms.preference, least_us, us_per_byte)]
        if not islands or (number == 0 and sum(one.gain_us for one in islands) < LEAST_US):
            break
        for island in islands:
            found.add(island, target.name)
    return found


def _islands(ledger: Ledger, preference: float, least_us: float, us_per_byte: float) -> list[Island]:
    """What of one scope is to become float.

    least_us: what an island must save. us_per_byte: what a byte of weight is worth.
    """
    bound: set[Unit] = set()
    while True:
        floats = ledger.cheapest(bound, preference, us_per_byte)
        islands = [
            Island(some, ledger.near(some, floats), ledger.near(some, set(floats) - set(some)))
            for some in ledger.islands(floats)
        ]
        idle = [one for one in islands if one.gain_us - us_per_byte * one.extra_bytes < least_us]
        if not idle:
            return islands
        bound.update(unit for one in idle for unit in one.units)


def shapes_of(workshop: Workshop) -> dict[int, Shapes]:
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
    return sizes_of(model, next(workshop.split.fit.batches(1))) if open_dims(model) else {}


def tell_economy(result: PassResult, found: Economy) -> None:
    """What the table says of the whole, and what the floats cost in bytes."""
    if found.layers:
        result.info(
            "float_if_faster",
            f"{found.layers} layer{'s'[: found.layers != 1]} in float for speed, "
            f"{size_text(found.weight_bytes)} more; predicted time {found.chosen_us:.0f} us, "
            f"all in integers {found.integer_us:.0f} us, all in float {found.float_us:.0f} us",
        )
