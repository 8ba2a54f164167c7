"""A model cut at known values: each of its layers computes from values that are fed, whatever the others do.

    before:  x -> A -> Q -> DQ -> B -> Q -> DQ -> y
    after:   x -> A -> Q -> a_q        a -> B -> Q -> y_q      (a is fed, as the other model has it)

So one session measures all layers in isolation at the cost of one forward.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from zc.ir.edit import Names, needs, replace_uses, sort_nodes
from zc.ir.graph import Graph, Node, Tensor, Variable
from zc.ir.model import Model
from zc.measure.compare_values import Codes, Value


@dataclass(frozen=True)
class Cut:
    """A model that is cut, and what each cut is fed by."""

    model: Model
    fed: dict[int, str]
    """By id of a value of the model: the input that stands for it."""
    needs: dict[int, frozenset[int]]
    """By id of a value: the ids of the values that must be fed to compute it."""

    def part(self, values: Sequence[Value]) -> tuple[Model, frozenset[int]]:
        """The cut model with only the inputs that these values need; and the ids of the values to feed."""
        wanted = frozenset[int]().union(*(self.needs[id(v)] for v in values))
        names = {self.fed[key] for key in wanted}
        part = self.model.copy()
        every = set(self.fed.values())
        part.graph.inputs = [t for t in part.graph.inputs if t.name not in every or t.name in names]
        _keep_what_makes(part.graph, {v.seen for v in values})
        return part, wanted


def cut(model: Model, values: Sequence[tuple[Value, np.dtype, int]], *, rounded: bool = False) -> Cut:
    """Cut a model at values of its main graph, each given with the type and rank of its float form.

    rounded: what reads a value behind its DequantizeLinear reads what is fed as codes of this value would hold it; else
    it reads what is fed as it is, and the rounding counts as an error of the layer that makes the value.
    """
    copy = model.copy()
    graph, names = copy.graph, Names(copy.graph)
    sort_nodes(graph)
    tensors = {t.name: t for t in (*graph.inputs, *(t for n in graph.nodes for t in n.outputs)) if t.name}
    results = {id(t) for n in graph.nodes for body in n.subgraphs(recursive=True) for t in body.outputs}
    fed: dict[int, str] = {}
    stands: dict[int, int] = {}  # by id of a tensor that is fed: the id of the value
    for value, dtype, rank in values:
        forms = {*value.floats, *(c.name for c in value.codes)}
        if any(id(tensors[name]) in results for name in forms):
            continue  # a body returns it as it is
        given = Variable(names.take(f"{value.label}_fed"), dtype, [None] * rank)
        graph.inputs.append(given)
        fed[id(value)], stands[id(given)] = given.name, id(value)
        own = {id(n) for name in forms for n in tensors[name].inputs if n.op in {"QuantizeLinear", "DequantizeLinear"}}
        feeder = _Feeder(graph, names, given, own)
        for codes in value.codes:
            feeder.codes(tensors[codes.name], codes)
        for name in value.floats:
            feeder.floats(tensors[name], value.codes[0] if rounded and value.codes and name != value.made else None)
    sort_nodes(graph)
    return Cut(copy, fed, {id(v): _needs(tensors[v.seen], stands) for v, _, _ in values})


@dataclass(frozen=True)
class _Feeder:
    """Lets the readers of one value read what is fed."""

    graph: Graph
    names: Names
    given: Variable
    own: set[int]
    """Ids of the Q/DQ nodes between the forms of the value."""

    def floats(self, tensor: Tensor, codes: Codes | None) -> None:
        """Those of a float form. codes: by which the value is to be rounded first."""
        if not all(id(n) in self.own for n in tensor.outputs):
            source: Tensor = self.given
            if codes is not None:
                source = Variable(self.names.take(f"{self.given.name}_dq"), self.given.dtype, self.given.shape)
                self._node("DequantizeLinear", self._quantized(codes), codes, source)
            replace_uses(tensor, source, lambda n: id(n) not in self.own)

    def codes(self, tensor: Tensor, codes: Codes) -> None:
        """Those that read the codes themselves."""
        if not all(id(n) in self.own for n in tensor.outputs):
            replace_uses(tensor, self._quantized(codes), lambda n: id(n) not in self.own)

    def _quantized(self, codes: Codes) -> Tensor:
        out = Variable(self.names.take(f"{self.given.name}_q"), codes.zero.dtype)
        self._node("QuantizeLinear", self.given, codes, out)
        return out

    def _node(self, op: str, source: Tensor, codes: Codes, out: Tensor) -> None:
        scale = self.names.constant(f"{self.given.name}_scale", codes.scale)
        zero = self.names.constant(f"{self.given.name}_zero", codes.zero)
        attrs = {"axis": codes.axis} if codes.scale.size > 1 else {}
        self.graph.nodes.append(Node(op, self.names.take("fed"), attrs, [source, scale, zero], [out]))


def _keep_what_makes(graph: Graph, names: set[str]) -> None:
    """Drop the nodes that none of these values needs; `graph` is sorted."""
    wanted = set(names)
    kept = []
    for node in reversed(graph.nodes):
        if any(t.name in wanted for t in node.outputs):
            kept.append(node)
            wanted.update(t.name for t in needs(node))
    graph.nodes[:] = reversed(kept)


def _needs(tensor: Tensor, stands: dict[int, int]) -> frozenset[int]:
    """Ids of the values that are fed to compute a tensor."""
    found: set[int] = set()
    seen: set[int] = set()
    stack = [tensor]
    while stack:
        one = stack.pop()
        if id(one) in stands:
            found.add(stands[id(one)])
        elif id(one) not in seen and not isinstance(one, gs.Constant):
            seen.add(id(one))
            stack.extend(t for n in one.inputs for t in needs(n))
    return frozenset(found)
