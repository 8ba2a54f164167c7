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
    part = cut_out(model, _with_constants(nodes), [source], [target])
    return _tabled(part, {source.name: _as_codes(CODES, source)}, target)


def pair_table(model: Model, nodes: Sequence[Node], left: Tensor, right: Tensor, target: Tensor) -> Array:
    """uint8[256, 256]: what the nodes make of each pair of codes, by the code of `right`, then that of `left`."""
    part = cut_out(model, _with_constants(nodes), [left, right], [target])
    rows, columns = np.meshgrid(CODES, CODES, indexing="ij")
    return _tabled(part, {left.name: _as_codes(columns, left), right.name: _as_codes(rows, right)}, target)


def tables_of(
    model: Model, nodes: Sequence[Node], source: Tensor, target: Tensor, constant: Tensor, values: Array
) -> Array:
    """uint8[len(values), 256]: what the nodes make of each code where a constant has each of these values.

    The operator sees one value for each row; a single one as a scalar, as it may treat that in its own way.
    """
    part = cut_out(model, _with_constants(nodes), [source], [target])
    put = cast(Constant, part.graph.tensors()[constant.name])
    put.values = values.reshape(()) if len(values) == 1 else values.reshape(-1, 1)
    codes = np.tile(CODES, (len(values), 1))
    return _tabled(part, {source.name: _as_codes(codes, source)}, target)


def _with_constants(nodes: Sequence[Node]) -> list[Node]:
    """The nodes and those Constant nodes that they read."""
    constants = [t.inputs[0] for n in nodes for t in n.inputs if len(t.inputs) == 1 and t.inputs[0].op == "Constant"]
    return list({id(n): cast(Node, n) for n in (*constants, *nodes)}.values())


def _as_codes(codes: Array, tensor: Tensor) -> Array:
    """Codes in memory as a value of the model has them."""
    return (codes ^ np.uint8(128)).view(np.int8) if tensor.dtype == np.int8 else codes


def _tabled(part: Model, feeds: Mapping[str, Array], target: Tensor) -> Array:
    shape = next(iter(feeds.values())).shape
    for tensor in (*part.graph.inputs, *part.graph.outputs):
        cast(Variable, tensor).shape = list(shape)
    result = Runner(part, threads=1).run(feeds)[target.name]
    if result.shape != shape or result.dtype not in (np.uint8, np.int8):
        raise ZcError(f"{part.name}: '{target.name}': codes {list(shape)} became {result.dtype}{list(result.shape)}")
    return result.view(np.uint8) ^ np.uint8(128) if result.dtype == np.int8 else result
