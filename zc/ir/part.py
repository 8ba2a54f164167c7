"""Some nodes of a model as a model of its own, to run them apart. Nodes and weights are shared, nothing is copied."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from zc.ir.graph import Array, Graph, Node, Tensor, Variable
from zc.ir.model import Model


def part_model(model: Model, nodes: Sequence[Node], reads: Mapping[str, Array], gives: Iterable[Tensor]) -> Model:
    """A model of these nodes, in this order. Its inputs and outputs stand for the values; it is for running only.

    reads: the values that the nodes take from others, by name; their types and ranks are those of the inputs.
    """
    inputs = [Variable(name, value.dtype, [None] * value.ndim) for name, value in reads.items()]
    outputs = [Variable(t.name, np.float32 if t.dtype is None else t.dtype) for t in gives]
    graph = Graph(nodes=list(nodes), inputs=inputs, outputs=outputs, name="part", functions=model.graph.functions)
    graph.opset, graph.import_domains = model.graph.opset, model.graph.import_domains
    return Model(graph, model.path, model.ir_version)
