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


def cut(model: Model, values: Sequence[tuple[Value, np.dtype, int]]) -> Cut:
    """Cut a model at values of its main graph, each given with the type and rank of its float form."""
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
        for name in value.floats:
            replace_uses(tensors[name], given, lambda n, own=own: id(n) not in own)  # type: ignore[misc]
        for codes in value.codes:
            _feed_codes(graph, tensors[codes.name], codes, given, own, names)
    sort_nodes(graph)
    return Cut(copy, fed, {id(v): _needs(tensors[v.seen], stands) for v, _, _ in values})


def _feed_codes(graph: Graph, tensor: Tensor, codes: Codes, given: Variable, own: set[int], names: Names) -> None:
    """Let what reads the codes themselves read codes of what is fed."""
    if all(id(n) in own for n in tensor.outputs):
        return
    rounded = Variable(names.take(f"{given.name}_q"), codes.zero.dtype)
    scale, zero = names.constant(f"{given.name}_scale", codes.scale), names.constant(f"{given.name}_zero", codes.zero)
    attrs = {"axis": codes.axis} if codes.scale.size > 1 else {}
    replace_uses(tensor, rounded, lambda n: id(n) not in own)
    graph.nodes.append(Node("QuantizeLinear", names.take("fed"), attrs, [given, scale, zero], [rounded]))


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
