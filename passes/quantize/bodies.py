"""Subgraph bodies: which can be calibrated, and how their inner values are read out.

    before:  If(c) { then: .. a .. -> y } { else: .. b .. -> y } -> y
    after:   If(c) { then: .. a .. -> y, a, [] } { else: .. b .. -> y, [], b } -> y, if_a, if_b

A branch that does not run gives empty arrays, so that its values are seen as not seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zc.ir.edit import Names
from zc.ir.graph import Constant, Graph, Node, Tensor, Variable
from zc.ir.model import Model

Key = tuple[int, int]
"""The id of a region's graph, and of a value that is read there: branches may read the same outer value."""


@dataclass(frozen=True, eq=False)
class Region:
    """A scope that may be quantised: the main graph, or a body that runs at most once for each run of the model."""

    graph: Graph
    around: tuple[Graph, ...] = ()
    """The scopes around it, whose initializers it may read."""
    where: str = ""
    """How a message names it."""


def regions(model: Model) -> list[Region]:
    """The main graph, and the branches of every If that is not inside a loop or a function."""
    found = [Region(model.graph)]
    for region in found:  # grows while it is walked
        for node in region.graph.nodes:
            if node.op == "If":
                for branch, body in node.attrs.items():
                    if isinstance(body, Graph):
                        around = (*region.around, region.graph)
                        found.append(Region(body, around, f"{node.name or 'If'}/{branch}"))
    return found


def read_out(model: Model, wanted: Mapping[int, Sequence[Tensor]]) -> tuple[Model, dict[Key, str]]:
    """A copy of the model with inner values as outputs, and the name of each.

    wanted: by id of a region's graph, values that it computes or reads. Those of the main graph keep their names.
    """
    if all(key == id(model.graph) or not values for key, values in wanted.items()):
        return model, {(id(model.graph), id(t)): t.name for t in wanted.get(id(model.graph), ())}
    copy = model.copy()
    lifter = _Lifter(Names(copy.graph), dict(zip(map(id, copy.scopes()), model.scopes(), strict=True)), wanted)
    return copy, {key: tensor.name for key, tensor in lifter.lift(copy.graph)}


@dataclass(frozen=True)
class _Lifter:
    names: Names
    source: dict[int, Graph]
    """By id of a scope of the copy: the scope that it was copied from."""
    wanted: Mapping[int, Sequence[Tensor]]

    def lift(self, scope: Graph) -> list[tuple[Key, Tensor]]:
        """The wanted values as tensors of this scope, those of the branches inside it included."""
        by_name = {t.name: t for n in scope.nodes for t in (*n.inputs, *n.outputs)} | {t.name: t for t in scope.inputs}
        region = id(self.source[id(scope)])
        found = [((region, id(t)), by_name[t.name]) for t in self.wanted.get(region, ())]
        for node in list(scope.nodes):
            if node.op == "If":
                found += self._from_branches(node)
        return found

    def _from_branches(self, node: object) -> list[tuple[Key, Tensor]]:
        assert isinstance(node, Node)
        bodies = [body for body in node.attrs.values() if isinstance(body, Graph)]
        inner = [self.lift(body) for body in bodies]
        for number, body in enumerate(bodies):
            for other, values in enumerate(inner):
                for _, tensor in values:
                    body.outputs.append(self._copy(body, tensor) if other == number else self._nothing(body))
        found: list[tuple[Key, Tensor]] = []
        for values in inner:
            for key, tensor in values:
                out = Variable(self.names.take(f"{node.name or 'if'}_{tensor.name}"), np.dtype(np.float32))
                node.outputs.append(out)
                found.append((key, out))
        return found

    def _copy(self, body: Graph, tensor: Tensor) -> Variable:
        out = Variable(self.names.take(f"{tensor.name}_out"), np.dtype(np.float32))
        body.nodes.append(Node("Identity", self.names.take("read_out"), {}, [tensor], [out]))
        return out

    def _nothing(self, body: Graph) -> Variable:
        out = Variable(self.names.take("nothing"), np.dtype(np.float32))
        empty = Constant(self.names.take("empty"), np.zeros(0, np.float32))
        body.nodes.append(Node("Constant", self.names.take("read_out"), {"value": empty}, [], [out]))
        return out
