"""Float islands: parts of a graph that onnxruntime runs, cut out as models of their own."""

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import numpy as np

from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.edit import needs
from zc.ir.graph import Array, Constant, Graph, Node, Tensor, Variable
from zc.ir.model import Model
from zc.runtime.reference import session_options

CODES = np.arange(256, dtype=np.uint8)

SECOND = ":read outside"
"""Behind the name of a value: its second reader."""


def cut_out(model: Model, nodes: Sequence[Node], inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> Model:
    """The nodes as a model of their own, values under their own names. Shapes of inputs are kept as far as known.

    A value that nodes read inside and outside has a second reader here, too: onnxruntime decides by their number what
    becomes an integer kernel.
    """
    outputs = list(outputs)
    values: dict[int, Tensor] = {}

    def own(tensor: Tensor) -> Tensor:
        if not tensor.name:
            return Variable("")
        if id(tensor) not in values:
            values[id(tensor)] = cast(Variable, tensor).copy()
        return values[id(tensor)]

    graph = Graph(nodes=[], inputs=[own(t) for t in inputs], outputs=[own(t) for t in outputs], opset=model.opset)
    graph.name, graph.import_domains, graph.functions = "island", model.graph.import_domains, model.graph.functions
    graph.producer_name = graph.producer_version = ""
    for node in nodes:
        graph.nodes.append(node.copy([own(t) for t in node.inputs], [own(t) for t in node.outputs]))
        for tensor in needs(node):
            if isinstance(tensor, Constant) and id(tensor) not in values:  # read by a body
                graph.declared.append(own(tensor))  # type: ignore[arg-type]
    inside = {id(n) for n in nodes}
    for tensor in outputs:
        readers = {id(n) in inside for n in tensor.outputs}
        if readers == {True, False}:
            size = Variable(f"{tensor.name}{SECOND}", np.int64)
            graph.nodes.append(Node("Shape", f"{tensor.name}{SECOND}", {}, [own(tensor)], [size]))
            graph.outputs.append(size)
    return Model(graph, model.path, model.ir_version)


class IslandRunner:
    """A cut-out in an onnxruntime session."""

    def __init__(self, model: Model, threads: int, signed: bool) -> None:
        """signed: are there int8 activations in the model?"""
        # As the whole is run: left to itself, onnxruntime makes other codes of signed ones in float parts, too.
        self.runner = Runner(
            model,
            threads=threads,
            config={"session.intra_op.allow_spinning": "0", **session_options(signed=signed)},
        )
        self.inputs = self.runner.inputs
        self.outputs = tuple(name for name in self.runner.outputs if not name.endswith(SECOND))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name."""
        values = self.runner.run(feeds)
        return {name: values[name] for name in self.outputs}


def table_of(model: Model, nodes: Sequence[Node], source: Tensor, target: Tensor) -> Array:
    """uint8[256]: what the nodes make of each code, both as codes in memory. Computed by onnxruntime itself."""
    part = cut_out(model, nodes, [source], [target])
    for tensor in (*part.graph.inputs, *part.graph.outputs):
        cast(Variable, tensor).shape = [256]
    signed = source.dtype == np.int8
    codes = (CODES ^ np.uint8(128)).view(np.int8) if signed else CODES
    result = Runner(part, threads=1).run({source.name: codes})[target.name]
    if result.shape != (256,) or result.dtype not in (np.uint8, np.int8):
        raise ZcError(f"{model.name}: '{target.name}': 256 codes became {result.dtype}{list(result.shape)}")
    return result.view(np.uint8) ^ np.uint8(128) if result.dtype == np.int8 else result
