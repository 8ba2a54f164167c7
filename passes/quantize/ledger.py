"""Ledger: what a scope costs as its nodes run in integers or in float, changes of form on the way included.

    x --[plain -> codes -> channels last]--> Conv --[channels last -> codes -> plain]--> Softmax

A value is made in one form and wanted in some; what stands between them is paid once for a value, however many read it.
Every price comes from the target's table (`zc.target.CostTable`).
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from zc.ir.graph import Constant, Node, Tensor, describe
from zc.ir.shapes import static_shape
from zc.passes.quantize.mincut import NEVER, MinCut
from zc.passes.quantize.operators import data_inputs
from zc.passes.quantize.placement import Placement
from zc.target import Form, Shapes, Target

NO_CHARGES: Mapping[str, float] = {}
Ends = tuple[Form, Form]
"""The form of a value at one end of its way: if the node there runs in float, and if it runs in integers."""


@dataclass(eq=False)
class Unit:
    """A node that may run in integers, with the activations that it then absorbs."""

    node: Node
    weighted: bool
    """Can it have its input rounded to codes for it?"""
    wanted: bool
    """Does it run in integers only for somebody who needs its codes?"""
    float_us: float = 0.0
    integer_us: float = 0.0
    extra_bytes: int = 0
    """By how much its weight is larger in float."""
    charge_us: float = 0.0
    """What its rounding errors are worth, where accuracy has a price: paid if it runs in integers."""
    fixed: bool = False
    """Must it run in integers? So it is left where its cost is not known."""


@dataclass(eq=False)
class Value:
    """A value on its way from what makes it to what reads it; None stands for nodes that always run in float."""

    shape: tuple[int, ...]
    maker: Unit | None
    made: Ends
    readers: list[tuple[Unit | None, Ends]] = field(default_factory=list)

    def units(self) -> list[Unit]:
        """The units at its ends."""
        return [u for u in (self.maker, *(u for u, _ in self.readers)) if u is not None]


class Ledger:
    """The costs of one placement, by node and by value."""

    def __init__(
        self, placement: Placement, target: Target, shapes: Shapes, charges: Mapping[str, float] = NO_CHARGES
    ) -> None:
        """shapes: sizes of the values of the scope, by name; nodes without them stay as they were placed.

        charges: `Unit.charge_us`, by the name of a node.
        """
        assert target.costs is not None
        self.placement, self.costs, self.shapes = placement, target.costs, shapes
        self.units: list[Unit] = []
        self.values: list[Value] = []
        self.fixed_us = 0.0
        """Time of the nodes that run in float whatever is decided."""
        self._plain: Form = target.costs.codes - 1
        self._maker: dict[int, Unit] = {}  # by id of a value
        self._forms: tuple[dict[int, Form], dict[int, Form]] = ({}, {})  # by id of a value: among floats, among codes
        self._reads: dict[int, Ends] = {}  # by id of a node
        self._price()
        for unit in self.units:
            unit.charge_us = charges.get(describe(unit.node), 0.0)
        self._connect()
        self._touching: dict[Unit, list[Value]] = {unit: [] for unit in self.units}
        for value in self.values:
            for unit in value.units():
                self._touching[unit].append(value)

    # ---- reading the placement

    def _price(self) -> None:
        sites = {id(s.node) for s in self.placement.sites}
        integer = {id(n) for n in self.placement.integer}
        may = sites | integer | {id(n) for n in self.placement.transparent}
        absorbed = {id(n) for chain in self.placement.absorbed.values() for n in chain}
        for node in self._nodes():
            unit = None
            if id(node) in absorbed:
                unit = self._maker[id(node.inputs[0])]
            elif id(node) in may:
                unit = Unit(node, weighted=id(node) in sites, wanted=id(node) in integer)
                unit.extra_bytes = _extra_bytes(node) if unit.weighted else 0
                self.units.append(unit)
            self._steps(node, unit, id(node) in absorbed)

    def _steps(self, node: Node, unit: Unit | None, absorbed: bool) -> None:
        """Ask for the node in float and, if it may, in integers."""
        as_float, as_codes = (self.costs.step(node, i, self._given(node, i), self.shapes) for i in (False, True))
        if unit is None:
            self.fixed_us += as_float.us if as_float is not None else 0.0
            as_codes = as_float
        elif absorbed:
            unit.float_us += as_float.us if as_float is not None else 0.0
        elif as_float is None or as_codes is None:
            unit.fixed = True
        else:
            unit.float_us, unit.integer_us = as_float.us, as_codes.us
        codes = self._plain if unit is None else self._plain + 1
        self._reads[id(node)] = (as_float.reads if as_float else self._plain, as_codes.reads if as_codes else codes)
        for value in node.outputs:
            self._forms[0][id(value)] = as_float.writes if as_float else self._plain
            self._forms[1][id(value)] = as_codes.writes if as_codes else codes
            if absorbed:
                self._forms[1][id(value)] = self._forms[1][id(node.inputs[0])]
            if unit is not None:
                self._maker[id(value)] = unit

    def _given(self, node: Node, integer: bool) -> list[Form]:
        return [self._forms[integer].get(id(t), self._plain) for t in data_inputs(node) if not _constant(t)]

    def _connect(self) -> None:
        """The values, in the order in which they are made, and who reads them."""
        readers: dict[int, list[tuple[Unit | None, Ends]]] = {}
        inside = {id(t) for chain in self.placement.absorbed.values() for n in chain for t in n.inputs}
        unit_of = {id(u.node): u for u in self.units}
        for node in self._nodes():
            weighted = id(node) in unit_of and unit_of[id(node)].weighted
            for tensor in node.inputs[:1] if weighted else data_inputs(node):
                if id(tensor) not in inside:
                    readers.setdefault(id(tensor), []).append((unit_of.get(id(node)), self._reads[id(node)]))
        made = [t for n in self._nodes() for t in n.outputs if id(t) not in inside and not _constant(t)]
        for tensor in [*self.placement.graph.inputs, *made]:
            wanted = readers.get(id(tensor), [])
            if id(tensor) in self.placement.kept_values:
                wanted.append((None, (self._plain, self._plain)))
            shape = self.shapes.get(tensor.name)
            if wanted and shape is not None and tensor.dtype in (None, np.float32):
                self.values.append(Value(shape, self._maker.get(id(tensor)), self._made(tensor), wanted))

    def _made(self, tensor: Tensor) -> Ends:
        as_float = self._forms[0].get(id(tensor), self._plain)
        if id(tensor) in self._maker and id(tensor) not in self.placement.native:
            return as_float, self._plain  # an integer kernel that puts out floats
        return as_float, self._forms[1].get(id(tensor), self._plain)

    def _nodes(self) -> Iterator[Node]:
        return (cast(Node, n) for n in self.placement.graph.nodes)

    # ---- sums

    def total(self, floats: Collection[Unit] = ()) -> float:
        """Microseconds of the scope, without charges, when these units run in float and the others in integers."""
        chosen = set(floats)
        own = sum(u.float_us if u in chosen else u.integer_us for u in self.units)
        return self.fixed_us + own + sum(self._way(value, chosen) for value in self.values)

    def near(self, some: Collection[Unit], floats: Collection[Unit]) -> float:
        """The part of `total(floats)` that is of these units and of the values beside them, and their charges."""
        chosen, here = set(floats), dict.fromkeys(some)
        own = sum(u.float_us if u in chosen else u.integer_us + u.charge_us for u in here)
        return own + sum(self._way(v, chosen) for v in dict.fromkeys(v for u in here for v in self._touching[u]))

    def islands(self, floats: Collection[Unit]) -> list[list[Unit]]:
        """These units in groups that are joined by values."""
        left, found = dict.fromkeys(floats), []
        while left:
            group = [left.popitem()[0]]
            for unit in group:  # grows while it is walked
                for value in self._touching[unit]:
                    group += [u for u in dict.fromkeys(value.units()) if left.pop(u, self) is None]
            found.append(group)
        return found

    def _way(self, value: Value, floats: Collection[Unit]) -> float:
        def form(unit: Unit | None, ends: Ends) -> Form:
            return ends[unit is not None and unit not in floats]

        start = form(value.maker, value.made)
        wanted = [form(*reader) for reader in value.readers]
        rising = sum(self.costs.convert(low, True, value.shape) for low in range(start, max(wanted)))
        return rising + sum(self.costs.convert(low, False, value.shape) for low in range(min(wanted), start))

    # ---- the cheapest choice

    def cheapest(self, bound: Collection[Unit], preference: float, us_per_byte: float = 0.0) -> list[Unit]:
        """The units that run in float when the whole scope is to take the least time, in graph order.

        bound: units that must run in integers. preference: share of its time that an integer kernel is let off.
        us_per_byte: what a byte of weight is worth.
        """
        cut, number = MinCut(), {}
        for unit in self.units:
            number[unit] = cut.node()
            cut.if_yes(number[unit], _whole(unit.integer_us * (1 - preference) + unit.charge_us))
            as_float = _whole(unit.float_us + unit.extra_bytes * us_per_byte)
            cut.if_no(number[unit], NEVER if unit.fixed or unit in bound else as_float)
        for value in self.values:
            self._ask_of(value, cut, number)
        yes = cut.solve()
        return [u for u in self.units if not yes[number[u]]]

    def _ask_of(self, value: Value, cut: MinCut, number: dict[Unit, int]) -> None:
        """What the forms of a value cost, and which answers need others."""
        no, yes = 1, 0
        ends = [(number[u] if u else no, forms) for u, forms in [(value.maker, value.made), *value.readers]]
        forms = [form for _, pair in ends for form in pair]
        for low in range(min(forms), max(forms)):
            # Is the end above this step? Always, never, or if its node runs in integers.
            above = [no if pair[1] <= low else yes if pair[0] > low else node for node, pair in ends]
            up, down = (_whole(self.costs.convert(low, rising, value.shape)) for rising in (True, False))
            some_above = _joint(cut, above[1:], any_yes=True)
            all_above = _joint(cut, above[1:], any_yes=False)
            cut.if_split(some_above, above[0], up)
            cut.if_split(above[0], all_above, down)
        for unit, _ in value.readers:
            if unit is not None and not unit.weighted and value.maker is not None:
                cut.if_split(number[unit], number[value.maker], NEVER)  # it takes codes, and nobody makes them for it
        if value.maker is not None and value.maker.wanted and len(value.readers) == 1:
            reader = value.readers[0][0]
            cut.if_split(number[value.maker], number[reader] if reader else no, NEVER)  # nobody needs its codes


def _joint(cut: MinCut, nodes: list[int], any_yes: bool) -> int:
    """A node that is yes if any of these is, or only if all are."""
    if len(set(nodes)) == 1:
        return nodes[0]
    joint = cut.node()
    for node in dict.fromkeys(nodes):
        cut.if_split(node, joint, NEVER) if any_yes else cut.if_split(joint, node, NEVER)
    return joint


def _extra_bytes(node: Node) -> int:
    """Four bytes a weight rather than one."""
    shape = static_shape(node.inputs[1])
    return 3 * math.prod(shape) if shape is not None else 0


def _whole(us: float) -> int:
    """Nanoseconds."""
    return round(us * 1000)


def _constant(tensor: Tensor) -> bool:
    return isinstance(tensor, Constant) or (len(tensor.inputs) == 1 and tensor.inputs[0].op == "Constant")
