"""What custom passes make with plain onnx-graphsurgeon, turned into our classes."""

from typing import Any, cast

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import LazyValues
from onnx_graphsurgeon.util.misc import SynchronizedList, convert_to_onnx_attr_type

from zc.ir.elements import as_dtype
from zc.ir.external import LazySparse, LazyTensor
from zc.ir.graph import Constant, Function, Graph, Node, Tensor, Variable, scopes
from zc.ir.links import Consumers, Links


def adopt(graph: gs.Graph) -> Graph:
    """Turn plain onnx-graphsurgeon objects into ours, in place, wherever they stand in the graph. Linear.

    Afterwards nodes and tensors compare by identity, values have numpy types and all edges are cut in constant time.
    """
    for scope in scopes(_graph(graph)):
        _graph(scope)
        for tensor in (*scope.inputs, *scope.outputs):
            _tensor(tensor)
        for node in scope.nodes:
            _node(node)
        scope.__dict__.pop("_names", None)  # a custom pass may have renamed things
    return cast(Graph, graph)


def _graph(graph: gs.Graph) -> Graph:
    own = cast(Any, graph)
    if type(graph) is gs.Graph or type(graph) is gs.Function:
        own.__class__ = Function if isinstance(graph, gs.Function) else Graph
        own.declared = []
    return cast(Graph, own)


def _node(node: gs.Node) -> None:
    if type(node) is gs.Node:
        cast(Any, node).__class__ = Node
    for links in (node.inputs, node.outputs):
        if type(links) is SynchronizedList:
            cast(Any, links).__class__ = Links
        for tensor in links:
            kind = type(tensor)
            if kind is not Constant and (kind is not Variable or not isinstance(tensor.dtype, np.dtype)):
                _tensor(tensor)
    for name, value in node.attrs.items():
        if isinstance(value, gs.Constant):
            _tensor(value)
        elif isinstance(value, gs.Graph):
            _graph(value)
        elif isinstance(value, gs.Node.AttributeRef):
            kind = convert_to_onnx_attr_type(value.type)
            node.attrs[name] = onnx.AttributeProto(name=name, ref_attr_name=value.name, type=kind)


def _tensor(tensor: Tensor) -> None:
    own = cast(Any, tensor)
    if type(tensor) is gs.Variable:
        own.__class__ = Variable
    elif type(tensor) is gs.Constant:
        own.__class__ = Constant
        values, wanted = own._values, as_dtype(own._export_dtype)
        if type(values) is not LazyTensor and isinstance(values, LazyValues):
            values = _lazy(values)
        if wanted is not None and wanted != values.dtype:
            values = (values.load() if isinstance(values, LazyValues) else values).astype(wanted)
        own._values, own._export_dtype = values, None
    if isinstance(tensor, Variable):
        tensor.dtype = as_dtype(tensor.dtype)
    if type(tensor.outputs) is SynchronizedList:
        cast(Any, tensor.inputs).__class__ = Links
        cast(Any, tensor.outputs).__class__ = Consumers


def _lazy(values: Any) -> Any:
    """A weight that onnx-graphsurgeon's importer has not read yet, as one of ours."""
    if isinstance(values.tensor, onnx.SparseTensorProto):
        return LazySparse(values.tensor)
    if values.tensor.data_location == onnx.TensorProto.EXTERNAL:
        return values.load()
    return LazyTensor(values.tensor, None)
