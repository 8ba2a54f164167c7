"""Structural diff of two models: what changed, not which lines.

    difference = diff(load("a.onnx"), load("b.onnx"))
    print(render_text(difference))

Nodes are matched by what they compute, by name and by their neighbours (`zc.ir.match`), so a renamed value or node is a
rename and not a removal and an addition.
"""

from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import cast

import onnx_graphsurgeon as gs

from zc.ir.changes import (
    Change,
    Diff,
    EndChange,
    HeaderChange,
    NodeChange,
    NodeInfo,
    Rename,
    Sizes,
    ValueChange,
    WeightChange,
    WeightInfo,
)
from zc.ir.diffpage import render_html, render_text, to_json
from zc.ir.graph import Constant, Function, Graph, Tensor, describe
from zc.ir.match import Matching, attribute_key
from zc.ir.model import Model
from zc.ir.text import PROVENANCE
from zc.ir.weightdiff import attribute_text, compare, constant_behind, dequantized, distance, kind_of_type, type_text


def diff(a: Model, b: Model, *, measure: Callable[[Model], tuple[int, int]] | None = None) -> Diff:
    """How `b` differs from `a`. Linear in their size; weights are read once.

    measure: counts the parameters and bytes of a model, for the summary; by default only the bytes of initializers.
    Models with hashed weights (`zc.ir.text.parse_text`) may be compared too.
    """
    return _Comparison(a, b).result(measure)


class _Comparison:
    def __init__(self, a: Model, b: Model) -> None:
        self.a, self.b = a, b
        self.matching = Matching()
        self.added: list[NodeInfo] = []
        self.removed: list[NodeInfo] = []
        self.changed: list[NodeChange] = []
        self.values: list[ValueChange] = []
        self.weights: list[WeightChange] = []
        self.renamed: list[Rename] = []
        self.header: list[HeaderChange] = []
        self.reordered = False
        self.pairs: dict[int, Constant] = {}
        """id of a weight of the first model -> weight of the second."""
        self.back: set[int] = set()
        self.dequantized: set[int] = set()

    def result(self, measure: Callable[[Model], tuple[int, int]] | None) -> Diff:
        self.scopes(self.a.graph, self.b.graph, "")
        self.functions()
        self.headers()
        weights_removed, weights_added = self.single_weights()
        sizes = [measure(m) if measure else (0, m.nbytes()) for m in (self.a, self.b)]
        return Diff(
            names=(self.a.name, self.b.name),
            sizes=Sizes(
                nodes=tuple(sum(len(s.nodes) for s in m.scopes()) for m in (self.a, self.b)),  # type: ignore[arg-type]
                bytes=(sizes[0][1], sizes[1][1]),
                parameters=(sizes[0][0], sizes[1][0]) if measure else None,
            ),
            added=tuple(self.added),
            removed=tuple(self.removed),
            changed=tuple(self.changed),
            values=tuple(self.values),
            weights=tuple(self.weights),
            weights_added=weights_added,
            weights_removed=weights_removed,
            ends=tuple(self.ends()),
            header=tuple(self.header),
            renamed=tuple(self.renamed),
            reordered=self.reordered,
        )

    # ---- nodes

    def scopes(self, a: Graph, b: Graph, scope: str) -> None:
        """Compare two graphs or bodies, and the bodies inside them."""
        matching = self.matching
        matching.scopes(a, b)
        self.removed += [_info(n, scope) for n in matching.free(a)]
        self.added += [_info(n, scope) for n in matching.free(b)]
        order = {id(n): i for i, n in enumerate(b.nodes)}
        last = -1
        bodies = []
        for node in a.nodes:
            twin = matching.nodes.get(id(node))
            if twin is None:
                continue
            self.reordered |= order[id(twin)] < last
            last = max(last, order[id(twin)])
            changes = tuple(self.node(node, twin))
            if changes:
                self.changed.append(NodeChange(scope, twin.op, describe(node), changes))
            if node.name != twin.name:
                self.renamed.append(Rename("node", describe(node), describe(twin)))
            self.outputs(node, twin, scope)
            bodies += [(node, twin, key) for key, value in node.attrs.items() if isinstance(value, gs.Graph)]
        for node, twin, key in bodies:
            if isinstance(twin.attrs.get(key), gs.Graph):
                self.scopes(node.attrs[key], twin.attrs[key], f"{scope}{'/' if scope else ''}{describe(node)}.{key}")
        for mine, other in zip(a.outputs, b.outputs, strict=False):
            if isinstance(mine, Constant) and isinstance(other, Constant):
                self.weight(mine, other, "output of the graph")
            elif scope and self.source(mine) is not other:
                said = f"result: {_kind_of(mine)} -> {_kind_of(other)}"
                change = Change("result", _input_text(mine), _input_text(other), said)
                self.changed.append(NodeChange(scope, "body", scope, (change,)))

    def node(self, a: gs.Node, b: gs.Node) -> Iterator[Change]:
        """What changed about a matched node."""
        if (a.op, a.domain or "") != (b.op, b.domain or ""):
            ops = [f"{n.domain}.{n.op}" if n.domain else n.op for n in (a, b)]
            yield Change("operator", ops[0], ops[1], f"operator {ops[0]} -> {ops[1]}")
        for name in sorted({**a.attrs, **b.attrs}):
            mine, other = a.attrs.get(name), b.attrs.get(name)
            if isinstance(mine, gs.Graph) and isinstance(other, gs.Graph):
                continue  # compared as scopes of their own
            if (name in a.attrs) != (name in b.attrs) or attribute_key(mine) != attribute_key(other):
                before, after = attribute_text(a, name), attribute_text(b, name)
                yield Change(f"attribute {name}", before, after, f"{name}: {before or 'none'} -> {after or 'none'}")
        for place, (first, second) in enumerate(zip_longest(a.inputs, b.inputs)):
            yield from self.input(a, place, first, second)
        counts = [f"{sum(bool(t.name) for t in n.outputs)} outputs" for n in (a, b)]
        if counts[0] != counts[1]:
            yield Change("outputs", counts[0], counts[1], f"{counts[0]} -> {counts[1]}")

    def input(self, node: gs.Node, place: int, mine: Tensor | None, other: Tensor | None) -> Iterator[Change]:
        """What changed about one input of a matched node; weights are compared on the way."""
        where = f"{node.op} '{describe(node)}', input {place}"
        mine, other = (None if t is None or not t.name else t for t in (mine, other))
        if mine is None and other is None:
            return
        if mine is not None and other is not None:
            if self.source(mine) is other:
                return
            values = constant_behind(mine), constant_behind(other)
            if values[0] is not None and values[1] is not None:
                # A Constant node and an initializer say the same.
                self.weight(values[0], values[1], where, (mine.name, other.name))
                return
        self.dequantization(mine, other, where)
        said = self.detour(mine, other) or f"{_kind_of(mine)} -> {_kind_of(other)}"
        yield Change(f"input {place}", _input_text(mine), _input_text(other), f"input {place}: {said}")

    def detour(self, mine: Tensor | None, other: Tensor | None) -> str | None:
        """How the same value arrives through other nodes: nodes that only one of the models has stand on its way."""
        if mine is None or other is None:
            return None
        then, via_then = _origin(mine, self.matching.nodes)
        now, via_now = _origin(other, self.matching.back)
        same = self.source(then) is now or (isinstance(then, Constant) and isinstance(now, Constant))
        if not same:
            return None
        parts = [f"no longer through {', '.join(via_then)}"] if via_then else []
        return " and ".join([*parts, f"now through {', '.join(via_now)}"] if via_now else parts) or None

    def source(self, tensor: Tensor) -> Tensor | None:
        """The value of the second model that a run-time value of the first one is."""
        return self.matching.values.get(id(tensor))

    def outputs(self, a: gs.Node, b: gs.Node, scope: str) -> None:
        """Names, types and shapes of what a matched node makes."""
        for mine, other in zip(a.outputs, b.outputs, strict=False):
            if not (mine.name and other.name):
                continue
            if mine.name != other.name:
                self.renamed.append(Rename("value", mine.name, other.name))
            before, after = type_text(mine), type_text(other)
            known = all(t.dtype is not None and t.shape is not None for t in (mine, other))
            if before != after and (known or kind_of_type(mine) != kind_of_type(other)):
                self.values.append(ValueChange(scope, mine.name, before, after))

    # ---- weights

    def weight(self, mine: Constant, other: Constant, where: str, names: tuple[str, str] | None = None) -> None:
        """Compare two weights, once. `names`: of the values that bring them, where these are not the constants."""
        if self.pairs.get(id(mine)) is other:
            return
        first = id(mine) not in self.pairs and id(other) not in self.back
        same = compare(mine, other, self.matching.digest)
        if not first and same:
            return
        self.pairs.setdefault(id(mine), other)
        self.back.add(id(other))
        names = names or (mine.name, other.name)
        if first and names[0] != names[1]:
            self.renamed.append(Rename("weight", *names))
        if not same:
            self.weights.append(distance(mine, other, names[0], where))

    def dequantization(self, mine: Tensor | None, other: Tensor | None, where: str) -> None:
        """A float weight that became codes with a scale: how far are the numbers that it now stands for?"""
        if not isinstance(mine, Constant) or other is None or id(mine) in self.dequantized:
            return
        numbers = dequantized(other)
        if numbers is not None and tuple(numbers.shape) == tuple(mine.shape):
            codes = cast(Constant, other.inputs[0].inputs[0])
            self.dequantized.add(id(mine))
            self.pairs.setdefault(id(mine), codes)
            self.back.add(id(codes))
            said = f"dequantized from {type_text(codes)} '{codes.name}'"
            self.weights.append(distance(mine, Constant(codes.name, numbers), mine.name, where, said))

    def single_weights(self) -> tuple[tuple[WeightInfo, ...], tuple[WeightInfo, ...]]:
        """The weights that only one model has. Those of the same name that nothing else matched are compared."""
        rest = {c.name: c for c in self.b.constants() if id(c) not in self.back}
        removed = []
        for constant in self.a.constants():
            if id(constant) in self.pairs:
                continue
            other = rest.pop(constant.name, None)
            if other is None:
                removed.append(WeightInfo(constant.name, type_text(constant)))
            else:
                self.weight(constant, other, "")
        return tuple(removed), tuple(WeightInfo(c.name, type_text(c)) for c in rest.values())

    # ---- the model around the nodes

    def functions(self) -> None:
        """Functions are matched by domain and name."""
        sides = [{cast(Function, f).unique_id: cast(Function, f) for f in m.graph.functions} for m in (self.a, self.b)]
        for key in {**sides[0], **sides[1]}:
            before, after = sides[0].get(key), sides[1].get(key)
            label = "::".join(key)
            if before is not None and after is not None:
                self.scopes(before, after, f"function {label}")
                self.entry(f"interface of function {label}", _interface(before), _interface(after))
            else:
                shown = [None if f is None else f"{len(f.nodes)} nodes" for f in (before, after)]
                self.entry(f"function {label}", *shown)

    def headers(self) -> None:
        """What stands in the header of the file."""
        a, b = self.a, self.b
        for domain in sorted({**a.opsets, **b.opsets}):
            versions = [m.opsets.get(domain) for m in (a, b)]
            self.entry(f"opset {domain or 'ai.onnx'}", *(None if v is None else str(v) for v in versions))
        for what, before, after in (
            ("IR version", str(a.ir_version), str(b.ir_version)),
            ("producer", _producer(a), _producer(b)),
            ("domain", a.domain, b.domain),
            ("model version", str(a.version), str(b.version)),
            ("doc string", a.doc, b.doc),
            ("graph name", a.graph.name, b.graph.name),
        ):
            self.entry(what, before or None, after or None)
        for key in sorted({**a.metadata, **b.metadata}):
            if not key.startswith(PROVENANCE):
                self.entry(f"metadata {key}", a.metadata.get(key), b.metadata.get(key))

    def entry(self, what: str, before: str | None, after: str | None) -> None:
        """Note an entry of the header if it changed."""
        if before != after:
            self.header.append(HeaderChange(what, before, after))

    def ends(self) -> Iterator[EndChange]:
        """The inputs and outputs of the model, by name, and their order."""
        for kind, mine, other in (
            ("input", self.a.graph.inputs, self.b.graph.inputs),
            ("output", self.a.graph.outputs, self.b.graph.outputs),
        ):
            before, after = ({t.name: type_text(t) for t in side} for side in (mine, other))
            for name in {**before, **after}:
                if before.get(name) != after.get(name):
                    yield EndChange(kind, name, before.get(name), after.get(name))
            if list(before) != list(after) and set(before) == set(after):
                yield EndChange(kind, "order", ", ".join(before), ", ".join(after))


def _info(node: gs.Node, scope: str) -> NodeInfo:
    output = next((t.name for t in node.outputs if t.name), "")
    return NodeInfo(scope, f"{node.domain}.{node.op}" if node.domain else node.op, describe(node), output)


def _input_text(tensor: Tensor | None) -> str | None:
    if tensor is None:
        return None
    return f"{tensor.name} ({type_text(tensor)})" if isinstance(tensor, Constant) else tensor.name


def _kind_of(tensor: Tensor | None) -> str:
    """Where an input comes from, without its name."""
    if tensor is None:
        return "none"
    if isinstance(tensor, Constant):
        return "constant"
    return tensor.inputs[0].op if tensor.inputs else "input of the graph"


def _origin(tensor: Tensor, matched: dict[int, gs.Node]) -> tuple[Tensor, list[str]]:
    """Back through nodes that are not matched, along their first inputs; and their operators, in order of execution."""
    via: list[str] = []
    while len(tensor.inputs) == 1 and id(tensor.inputs[0]) not in matched and tensor.inputs[0].inputs and len(via) < 6:
        via.insert(0, tensor.inputs[0].op)
        tensor = tensor.inputs[0].inputs[0]
    return tensor, via


def _interface(function: Function) -> str:
    attributes = ", ".join(sorted(function.attrs))
    names = [", ".join(t.name for t in part) for part in (function.inputs, function.outputs)]
    return f"<{attributes}> ({names[0]}) => ({names[1]})"


def _producer(model: Model) -> str:
    return f"{model.graph.producer_name} {model.graph.producer_version}".strip()


__all__ = ["Diff", "diff", "render_html", "render_text", "to_json"]
