"""Groups: values that share one scale, because the operators between them only move codes or ask for it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from zc.ir.graph import Graph, Node, Tensor
from zc.passes.quantize.operators import FREE, Bounds, data_inputs, stands_as_codes
from zc.target import FixedScale, Target


@dataclass(eq=False)
class Group:
    """Values that share one scale. `measured` are those whose range calibration must find."""

    members: list[Tensor] = field(default_factory=list)
    measured: list[Tensor] = field(default_factory=list)
    bounds: Bounds = FREE
    """What absorbed activations guarantee of the values."""
    fixed: FixedScale | None = None
    """The scale and zero point that the target demands."""


class Grouping:
    """Collects the groups of one scope, node after node in graph order."""

    def __init__(self, target: Target, top: Graph, bounds: Mapping[int, Bounds], native: Collection[int]) -> None:
        """bounds: by id of a value. native: ids of the values that are put out as codes."""
        self.target, self.top, self.bounds, self.native = target, top, bounds, native
        self.groups: dict[int, Group] = {}
        """By id of each value with codes."""
        self.unlike: list[Node] = []
        """Operators of `tied_ops` whose values cannot share a scale as they stand."""

    def of(self, value: Tensor) -> Group:
        """The group of a value with codes; a new one if it has none yet."""
        if id(value) not in self.groups:
            bounds = self.bounds.get(id(value), FREE) if id(value) in self.native else FREE
            fixed = self.target.fixed_scales.get(value.inputs[0].op) if value.inputs else None
            self.groups[id(value)] = Group([value], [value] if fixed is None else [], bounds, fixed)
        return self.groups[id(value)]

    def add(self, node: Node, end: Tensor | None, *, weighted: bool) -> None:
        """A node that runs on codes. end: what it puts out, behind the activations that it absorbs."""
        if weighted:
            self.of(node.inputs[0])
            if id(end) in self.native:
                assert end is not None
                self.of(end)
        elif node.op in self.target.transparent_ops:
            group = self.of(node.inputs[0])
            for out in node.outputs:
                if out.name:
                    group.members.append(out)
                    self.groups[id(out)] = group
        else:
            assert end is not None
            group = self.of(end)
            if node.op in self.target.tied_ops:
                self._tie(node, group, end)
            else:
                self._inputs(node)

    def _inputs(self, node: Node) -> list[Group]:
        return [self.of(t) for t in data_inputs(node) if not stands_as_codes(node, t, self.top, self.target)]

    def _tie(self, node: Node, group: Group, end: Tensor) -> None:
        inputs = self._inputs(node)
        # One scale cannot express differing activations: it would let through what one of them cuts off.
        alike = len({(g.bounds, g.fixed) for g in inputs}) == 1 and group.bounds == FREE and group.fixed is None
        if not alike:
            self.unlike.append(node)
            return
        group.bounds, group.fixed = inputs[0].bounds, inputs[0].fixed
        for one in inputs:
            self._join(group, one)
        group.measured = [t for t in group.measured if t is not end]

    def _join(self, one: Group, other: Group) -> None:
        if one is not other:
            one.members += other.members
            one.measured += other.measured
            self.groups.update({id(t): one for t in other.members})
