"""Copies of graphs: nodes, edges and attributes of their own, arrays shared."""

from typing import Any, cast

import onnx_graphsurgeon as gs

from zc.ir.graph import Constant, Function, Graph, Node, Tensor, TypedList


def copy_graph(graph: Graph, copies: dict[int, Tensor], top: bool) -> Graph:
    """`Graph.copy`: `copies` maps the id of each tensor of the outer scopes to its copy, and grows."""

    def tensor(old: Tensor) -> Tensor:
        new = copies.get(id(old))
        if new is None:
            new = cast(Any, old).copy()
            if old.name:
                copies[id(old)] = new
        return new

    declared = [cast(Constant, tensor(c)) for c in graph.declared if isinstance(c, Constant)]
    nodes: list[gs.Node] = []
    for node in graph.nodes:
        new = Node(
            node.op,
            node.name,
            {k: copy_attribute(v, copies) for k, v in node.attrs.items()},
            [tensor(t) for t in node.inputs],
            [tensor(t) for t in node.outputs],
            node.domain,
        )
        new.take_notes(cast(Node, node))
        nodes.append(new)
    fields: dict[str, Any] = {
        "nodes": nodes,
        "inputs": [tensor(t) for t in graph.inputs],
        "outputs": [tensor(t) for t in graph.outputs],
        "name": graph.name,
        "doc_string": graph.doc_string,
        "opset": graph.opset,
        "import_domains": graph.import_domains,
        "ir_version": graph.ir_version,
    }
    result: Graph
    if isinstance(graph, Function):
        result = Function(
            domain=graph.domain, attrs={k: copy_attribute(v, copies) for k, v in graph.attrs.items()}, **fields
        )
        result.overload = graph.overload
    else:
        result = Graph(**fields)
        if top:
            result.producer_name, result.producer_version = graph.producer_name, graph.producer_version
            result.functions = [cast(Function, copy_graph(cast(Graph, f), {}, top=False)) for f in graph.functions]
    result.declared, result.metadata, result.quantization = declared, graph.metadata, graph.quantization
    return result


def copy_attribute(value: Any, copies: dict[int, Tensor]) -> Any:
    """An attribute's value with bodies, lists and constants of its own; `copies` as for `copy_graph`."""
    if isinstance(value, Graph):
        return copy_graph(value, copies, top=False)
    if isinstance(value, Constant):
        return value.copy()
    if isinstance(value, TypedList):
        return TypedList(value.kind, value)
    if type(value) is list:
        return [copy_attribute(v, copies) if isinstance(v, Graph | Constant) else v for v in value]
    return value
