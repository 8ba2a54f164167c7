"""Placement: which values carry codes, which of them share a scale, what stays float and why.

The rule, in three sweeps over the graph:

1. A weighted operator (Conv, Gemm, MatMul with a constant weight) runs in integers wherever the target has a kernel.
   It is what pays. An activation right behind it (Relu, Clip) is absorbed: ranges are taken after it, never before.
2. Forward: what such an operator puts out are codes; operators that only move codes about run on the codes, and an
   operator between codes (a residual Add, a Concat, a pool) may run in integers too.
3. Backward: it does so only if another weighted operator needs its result in codes. Otherwise rounding it anew would
   cost accuracy and buy nothing. So the tail of a net (Softmax, box decoding) and everything between the matrix
   products of a transformer (LayerNorm, Softmax, GELU, the residual stream) stay float without being named.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import onnx_graphsurgeon as gs

from zc.ir.graph import Graph, Node, Tensor, describe, fixed_value
from zc.passes.quantize.groups import Group, Grouping
from zc.passes.quantize.operators import FREE, Bounds, activation_bounds, data_inputs, moves_codes, stands_as_codes
from zc.passes.quantize.sites import Site, match_site
from zc.passes.quantize.tables import picks_rows, table_reason
from zc.target import Target


@dataclass(eq=False)
class Placement:
    """The abstract assignment, before ranges are known and before anything is written. Lists are in graph order."""

    graph: Graph
    sites: list[Site]
    integer: list[Node]
    """Other operators that round their output to codes anew."""
    transparent: list[Node]
    """Operators that run on the codes of their first input."""
    lookups: list[Node]
    """Operators that pick rows of a constant table, which becomes int8."""
    absorbed: dict[int, list[Node]]
    """By id of a value with codes: the activations between the operator that computes it and the value."""
    groups: dict[int, Group]
    """By id of each value with codes."""
    native: set[int]
    """Ids of the values whose producer puts out codes; the others are rounded where an integer operator reads them."""
    kept_values: set[int]
    """Ids of the values that something outside the scope's nodes reads: its outputs, and what bodies inside it take."""
    declined: list[tuple[str, str]]
    residuals: list[tuple[Node, int]] = field(default_factory=list)
    """Sums whose other input a weighted operator puts out in float, and the position of the input that gets codes."""
    around: list[Graph] = field(default_factory=list)
    """The scopes around this one, whose initializers it may read."""
    dynamic: list[Site] = field(default_factory=list)
    """Products that quantise what they read when they run; not among `sites`."""

    def deciders(self) -> Iterator[tuple[Tensor, Node]]:
        """Values with codes, and the nodes whose settings count for their range; of a value named twice, the last.

        That is the node that makes it in integers, else the first that reads it.
        """
        ends = {id(chain[0].inputs[0]): chain[-1].outputs[0] for chain in self.absorbed.values()}
        reads = [(site.node, [site.source]) for site in self.sites] + [(n, data_inputs(n)) for n in self.integer]
        for node, tensors in reversed(reads):
            yield from ((tensor, node) for tensor in tensors)
        for node, _ in reads:
            out = node.outputs[0]
            end = ends.get(id(out), out)
            if id(end) in self.native:
                yield end, node

    def measured(self) -> list[Tensor]:
        """The values whose range calibration must find, each once."""
        unique = {id(g): g for g in self.groups.values()}
        return [t for g in unique.values() for t in g.measured]


def place(
    graph: Graph, target: Target, keep_float: Callable[[Node], str | None], around: Iterable[Graph] = ()
) -> Placement:
    """Decide for every node and value of one scope. `graph.nodes` must be sorted.

    keep_float: the reason why the user wants a node float, or None. around: the scopes around a body.
    """
    apart: set[int] = set()
    floats: dict[int, str] = {}

    def reason(node: Node) -> str | None:
        return floats.get(id(node)) or keep_float(node)

    while True:
        placer = _Placer(graph, target, reason, list(around), apart)
        placement = placer.run()
        if not target.strict_ties or not placer.grouping.unlike:
            return placement
        # Without the activations in front of them their ranges can be one; fixed scales never can.
        more = {id(n) for op in placer.grouping.unlike for n in placer.makers(op)} - apart
        floats.update({} if more else {id(op): "its inputs cannot share a scale" for op in placer.grouping.unlike})
        apart |= more


class _Placer:
    def __init__(
        self,
        graph: Graph,
        target: Target,
        keep_float: Callable[[Node], str | None],
        around: list[Graph],
        apart: Collection[int],
    ) -> None:
        """apart: ids of nodes that absorb no activation."""
        self.graph, self.target, self.keep_float, self.around, self.apart = graph, target, keep_float, around, apart
        self.top = (around or [graph])[0]  # its inputs may override initializers
        self.nodes = [cast(Node, n) for n in graph.nodes]
        self.outputs = {id(t) for t in graph.outputs}
        self.outer = {id(t) for n in graph.nodes for body in n.subgraphs(recursive=True) for t in _reads(body)}
        self.sites: dict[int, Site] = {}
        self.ends: dict[int, Tensor] = {}  # by id of a node: its output after absorbed activations
        self.absorbed: dict[int, list[Node]] = {}
        self.bounds: dict[int, Bounds] = {}
        self.gone: set[int] = set()  # absorbed nodes
        # A range around zero has codes for what an activation cuts off.
        self.absorbs = frozenset[str]() if target.symmetric_activations else target.absorbed_activations
        self.declined: list[tuple[str, str]] = []
        self.float_because: dict[int, str] = {}

    def run(self) -> Placement:
        for node in self.nodes:
            self._match(node)
        native = self._forward()
        needed = self._backward(native)
        kept, native = self._settle(native, needed)
        residuals = self._residuals() if self.target.residual_sums else []
        self.grouping = Grouping(self.target, self.top, self.bounds, native)
        for node in self.nodes:
            if id(node) in kept:
                self.grouping.add(node, self.ends.get(id(node)), weighted=id(node) in self.sites)
        for node, position in residuals:
            self.grouping.of(node.inputs[position])
        self._explain(kept, native)
        integer = [n for n in self.nodes if id(n) in kept and n.op in self.target.integer_ops]
        moving = [n for n in self.nodes if id(n) in kept and n.op in self.target.transparent_ops]
        sites = [self.sites[id(n)] for n in self.nodes if id(n) in self.sites]
        absorbed = {k: v for k, v in self.absorbed.items() if k in native}
        return Placement(
            self.graph,
            sites,
            integer,
            moving,
            self._lookups(),
            absorbed,
            self.grouping.groups,
            native,
            self.outputs | self.outer,
            self.declined,
            residuals,
            self.around,
        )

    # ---- matching

    def _match(self, node: Node) -> None:
        """Find sites, and the activations that each operator with an int8 kernel absorbs."""
        if id(node) in self.gone or not node.standard:
            return
        why = self.keep_float(node)
        if why is not None:
            self.float_because[id(node)] = why
            if node.op in self.target.weighted_ops | self.target.lookup_ops:
                self.declined.append((describe(node), why))
        elif node.op in self.target.weighted_ops:
            site = match_site(node, self.top, self.target)
            if isinstance(site, str):
                self.declined.append((describe(node), f"{node.op} stays float: {site}"))
                return
            self.sites[id(node)] = site
            self._absorb(node)
        elif node.op in self.target.integer_ops:
            self._absorb(node)

    def _absorb(self, node: Node) -> None:
        value, chain, bounds = node.outputs[0], [], FREE
        while id(node) not in self.apart and id(value) not in self.outputs | self.outer and len(value.outputs) == 1:
            after = cast(Node, value.outputs[0])
            limits = activation_bounds(after, self.top)
            if after.op not in self.absorbs or limits is None or self.keep_float(after):
                break
            chain.append(after)
            bounds = (max(bounds[0], limits[0]), min(bounds[1], limits[1]))
            value = after.outputs[0]
        self.ends[id(node)] = value
        if chain:
            self.absorbed[id(value)], self.bounds[id(value)] = chain, bounds
            self.gone.update(id(n) for n in chain)

    # ---- codes forward, need backward

    def _forward(self) -> set[int]:
        """Ids of the values that could be put out as codes."""
        native: set[int] = set()
        for node in self.nodes:
            if id(node) in self.gone or id(node) in self.float_because or not node.standard:
                continue
            integer = node.op in self.target.integer_ops and self._codes_in(node, native)
            if id(node) in self.sites or integer:
                native.add(id(self.ends[id(node)]))
            elif (
                node.op in self.target.transparent_ops
                and id(node.inputs[0]) in native
                and moves_codes(node, self.top) is None
            ):
                native.update(id(t) for t in node.outputs if t.name)
        return native

    def _codes_in(self, node: Node, native: set[int]) -> bool:
        """Are all data inputs of an integer operator codes, or numbers that one code represents exactly?"""
        data = data_inputs(node)
        if node.op in self.target.rounds_floats:
            return all(fixed_value(t, self.top) is None for t in data)
        return any(id(t) in native for t in data) and all(
            id(t) in native or stands_as_codes(node, t, self.top, self.target) for t in data
        )

    def _backward(self, native: set[int]) -> set[int]:
        """Ids of the values that a weighted operator needs in codes, directly or through operators on codes."""
        needed: set[int] = set(self.outputs) if self.target.whole else set()
        for node in reversed(self.nodes):
            if id(node) in self.sites:
                needed.add(id(node.inputs[0]))
            elif id(node) not in self.gone and id(node) not in self.float_because and node.standard:
                end = self.ends.get(id(node))
                if end is not None and id(end) in needed and id(end) in native:
                    needed.update(id(t) for t in data_inputs(node))
                elif node.op in self.target.transparent_ops and any(
                    id(t) in needed and id(t) in native for t in node.outputs
                ):
                    needed.add(id(node.inputs[0]))
        return needed

    def _settle(self, native: set[int], needed: set[int]) -> tuple[set[int], set[int]]:
        """Ids of the nodes that run on codes, and of the values that they put out."""
        kept: set[int] = set()
        final: set[int] = set()
        for node in self.nodes:
            end = self.ends.get(id(node))
            if id(node) in self.sites:
                kept.add(id(node))
                if node.op not in self.target.float_output_ops or self._only_codes_wanted(end, native, needed):
                    final.add(id(end))
            elif end is not None and id(end) in native and id(end) in needed and self._codes_in(node, final):
                kept.add(id(node))
                final.add(id(end))
            elif node.op in self.target.transparent_ops and id(node) not in self.gone:
                outs = [id(t) for t in node.outputs if t.name]
                if id(node.inputs[0]) in final and all(o in native for o in outs):
                    kept.add(id(node))
                    final.update(outs)
        return kept, final

    def _only_codes_wanted(self, value: Tensor | None, native: set[int], needed: set[int]) -> bool:
        """Would every consumer take codes? Then an operator that could put out float puts out codes."""
        stack = [value]
        while stack:
            one = stack.pop()
            if one is None or id(one) in self.outputs | self.outer or id(one) not in needed:
                return False
            for node in one.outputs:
                if id(node) in self.sites:
                    continue
                if node.op not in self.target.transparent_ops or id(node) in self.float_because:
                    return False
                stack.extend(t for t in node.outputs if t.name)
        return True

    # ---- sums

    def _residuals(self) -> list[tuple[Node, int]]:
        """Sums of what a weighted operator alone puts out for them, and the position of the other input."""
        ends = {id(end) for key, end in self.ends.items() if key in self.sites and len(end.outputs) == 1}
        ends -= self.outputs | self.outer
        depth: dict[int, int] = {}
        found = []
        for node in self.nodes:
            below = max((depth.get(id(t), 0) for t in node.inputs), default=0)
            depth.update((id(t), below + 1) for t in node.outputs)
            if node.op != "Add" or not node.standard or id(node) in self.float_because:
                continue
            made = [i for i, t in enumerate(node.inputs) if id(t) in ends]
            if not made or any(fixed_value(t, self.top) is not None for t in node.inputs):
                continue
            longest = max(made, key=lambda i: (depth.get(id(node.inputs[i]), 0), i))  # the branch that fuses
            found.append((node, 1 - longest))
        return found

    def makers(self, node: Node) -> list[Node]:
        """The operators with int8 kernels that make what this one reads, and itself."""
        ends = {id(end): key for key, end in self.ends.items()}
        keys = {ends[id(t)] for t in data_inputs(node) if id(t) in ends} | {id(node)}
        return [n for n in self.nodes if id(n) in keys]

    def _lookups(self) -> list[Node]:
        """Gathers of rows of a table that is worth storing as int8 and that nothing else reads."""
        found = []
        for node in self.nodes:
            if id(node) not in self.float_because and picks_rows(node, self.top, self.target):
                why = table_reason(node)
                if why is None:
                    found.append(node)
                else:
                    self.declined.append((describe(node), f"{node.op} stays float: {why}"))
        return found

    # ---- reasons

    def _explain(self, kept: set[int], native: set[int]) -> None:
        """Reasons for what one might expect in integers: kernels that are not used, and operators that read codes."""
        counts: Counter[tuple[str, str]] = Counter()
        for node in self.nodes:
            if id(node) in kept or id(node) in self.gone or id(node) in self.float_because or not node.standard:
                continue
            if node.op in self.target.float_ops:
                counts[node.op, self.target.float_ops[node.op]] += 1
            elif node.op in self.target.integer_ops and node.outputs[0].dtype in (None, np.float32):
                counts[node.op, "not between operators that run in integers, so rounding it would gain nothing"] += 1
            elif any(id(t) in native for t in node.inputs):
                why = moves_codes(node, self.top) if node.op in self.target.transparent_ops else None
                counts[node.op, why or f"{self.target.name} has no int8 kernel for it"] += 1
        for (op, why), count in sorted(counts.items()):
            self.declined.append((f"{op} ({count} node{'s'[: count > 1]})", f"stays float: {why}"))


def _reads(body: gs.Graph) -> list[Tensor]:
    return [t for n in body.nodes for t in n.inputs] + list(body.outputs)
