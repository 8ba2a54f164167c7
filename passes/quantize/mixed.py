"""Mixed precision: which layers stay float when accuracy has a price in time.

    price 1:   conv1 [======]            a layer stays float if its share of the noise is worth more
    price 4:   conv1 [======] conv7 [==]      than the time that it takes longer

Each layer in integers adds noise to the outputs (`sensitivity`), and noise of independent roundings adds up. So a price
per noise makes it a sum like time, and the minimum cut that finds the fastest choice (`ledger`) finds the best one with
both in it. Choices of higher prices contain those of lower ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from zc.ir.graph import Node, describe
from zc.passes.quantize.economy import MILD, MOST_ROUNDS, shapes_of
from zc.passes.quantize.ledger import Ledger
from zc.passes.quantize.sensitivity import Sensitive, rank
from zc.passes.quantize.workshop import Built, KeepFloat, Workshop
from zc.target import Shapes

WORTH = 0.1
"""At price 1: share of the float model's time that all noise at the outputs is worth, if there is much of it."""
MUCH_NOISE = 3e-3
"""Squared error over variance of the outputs (25 dB) below which noise is worth less, in proportion."""
WORK = 10**11
"""Multiply-accumulates that may be spent on measuring the noise of single layers: a few seconds of one core."""
SAVED, BORDER = 0.5, 0.005
"""Without a cost table: share of a layer's time that integers are thought to save, and share of the whole
time that a float layer among integers is thought to cost in conversions."""
DOUBLINGS = 12
"""Prices that are looked at: powers of two up to this one, then all in float."""


def worth(noise: float) -> float:
    """Share of the float model's time that noise is worth at price 1; noise: squared error over variance."""
    return WORTH * min(1.0, noise / MUCH_NOISE)


@dataclass(frozen=True)
class Choice:
    """What stays float together, for the sake of accuracy."""

    layers: tuple[Sensitive, ...] = ()
    """The worst first."""
    nodes: frozenset[str] = frozenset()
    """Names of all nodes: those of the layers, and what stands between them."""
    price: float = 0.0

    def keep_float(self, also: KeepFloat) -> KeepFloat:
        """The reasons why nodes stay float, with those of another function before them."""
        reasons = {name: f"alone in integers it leaves {one.db:.0f} dB" for one in self.layers for name in one.names}

        def reason(node: Node) -> str | None:
            name = describe(node)
            return also(node) or (reasons.get(name, "it stands among layers in float") if name in self.nodes else None)

        return reason


class Market:
    """What layers cost as integers, in noise and in time."""

    def __init__(
        self, workshop: Workshop, built: Built, keep_float: KeepFloat, noise: float, *, timed: bool = True
    ) -> None:
        """Measure the noise of each layer that a build runs in integers.

        noise: of the whole build. timed: go by the target's table of costs, if it has one; else by
        multiply-accumulates, so that no layer is in float for the sake of time.
        """
        self.workshop, self.keep_float, self.noise = workshop, keep_float, noise
        self._timed = timed and workshop.ctx.target.costs is not None
        self.layers = rank(workshop, built, keep_float, rounded=False, work=WORK)
        """The worst first."""
        self._sum = sum(layer.noise for layer in self.layers) or 1.0
        self._macs = sum(layer.macs for layer in self.layers) or 1
        self._found: dict[float, Choice] = {}

    def share(self, layer: Sensitive) -> float:
        """Of the noise of all layers."""
        return layer.noise / self._sum

    def choice(self, price: float) -> Choice:
        """What stays float at a price."""
        if price not in self._found:
            self._found[price] = self._all() if price == float("inf") else self._choose(price)
        return self._found[price]

    def dearer(self, than: Choice) -> list[Choice]:
        """The choices that differ, each with more in float than the one before, the last with all layers."""
        found = [than]
        first = 2 * than.price or 1.0
        for price in [*(first * 2.0**i for i in range(DOUBLINGS)), float("inf")]:
            one = self.choice(price)
            if one.nodes > found[-1].nodes:
                found.append(one)
        return found[1:]

    def time(self, choice: Choice) -> float:
        """Share of the float model's time that a choice costs."""
        if not self._timed:
            return sum(SAVED * one.macs / self._macs + BORDER for one in choice.layers)
        return (self._us(choice.keep_float(self.keep_float)) - self._us(self.keep_float)) / self._float_us

    def _all(self) -> Choice:
        return Choice(tuple(self.layers), frozenset(n for one in self.layers for n in one.names), float("inf"))

    def _choose(self, price: float) -> Choice:
        value = price * worth(self.noise)
        if not self._timed:
            kept = [one for one in self.layers if value * self.share(one) > SAVED * one.macs / self._macs + BORDER]
            return Choice(tuple(kept), frozenset(n for one in kept for n in one.names), price)
        whole = value * self._float_us
        charges = {n: whole * self.share(one) / len(one.names) for one in self.layers for n in one.names}
        nodes: frozenset[str] = frozenset()
        for _ in range(MOST_ROUNDS):  # what stands beside floats is placed anew
            ledgers = self._ledgers(Choice((), nodes).keep_float(self.keep_float), charges)
            units = [unit for ledger in ledgers for unit in ledger.cheapest((), MILD.preference)]
            if not units:
                break
            nodes |= {describe(unit.node) for unit in units}
        return Choice(tuple(one for one in self.layers if nodes >= set(one.names)), nodes, price)

    # ---- time by the target's table

    @cached_property
    def _shapes(self) -> dict[int, Shapes]:
        return shapes_of(self.workshop)

    @cached_property
    def _float_us(self) -> float:
        return sum(ledger.total(ledger.units) for ledger in self._ledgers(self.keep_float)) or 1.0

    def _us(self, keep_float: KeepFloat) -> float:
        return sum(ledger.total() for ledger in self._ledgers(keep_float))

    def _ledgers(self, keep_float: KeepFloat, charges: Mapping[str, float] | None = None) -> list[Ledger]:
        places = self.workshop.places(keep_float)
        target = self.workshop.ctx.target
        return [Ledger(one, target, self._shapes[id(one.graph)], charges or {}) for one in places]
