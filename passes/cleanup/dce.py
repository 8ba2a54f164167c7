"""dce: drop what reaches no output."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, cast

import onnx_graphsurgeon as gs

from zc.ir.edit import sweep
from zc.ir.graph import Graph, Node, Tensor, Variable
from zc.ir.model import Model
from zc.ir.schema import node_schema
from zc.passes.cleanup.operands import plain
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register


@register
@dataclass(frozen=True)
class DeadCode(Pass):
    """Drop nodes, outputs, initializers, functions and operator sets that nothing reads. All scopes.

    before:  x -> MaxPool -> y, indices;  y -> Relu -> z (graph output);  x -> Exp -> lost
    after:   x -> MaxPool -> y;           y -> Relu -> z (graph output)

    Graph inputs and outputs stay. So does what training information or quantization annotations may name.
    """

    name: ClassVar[str] = "dce"
    exact: ClassVar[bool] = True

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Remove what is dead; never declines."""
        stats = drop_dead(model)
        return PassResult(any(stats.values()), {k: v for k, v in stats.items() if v})


def drop_dead(model: Model) -> dict[str, int]:
    """Remove what is dead in all scopes; how many of each kind. Linear."""
    nodes = drop_dead_nodes(model)
    return {
        "nodes": nodes,
        "outputs": sum(_trim_outputs(scope) for scope in model.scopes()),
        "initializers": sum(_drop_initializers(scope) for scope in model.scopes()) if not model.training else 0,
        "functions": _drop_functions(model),
        "opsets": _drop_opsets(model),
    }


def drop_dead_nodes(model: Model) -> int:
    """Remove nodes without effect in all scopes; their number."""
    scopes = list(model.scopes())
    kept = {id(t) for scope in scopes for t in scope.outputs}
    todo: list[gs.Node] = [node for scope in scopes for node in scope.nodes if _dead(node, kept)]
    for node in todo:  # grows
        todo.extend(discard(node, kept))
    # A swept If takes its bodies along: they count as one with it.
    return sum(sweep(scope) for scope in scopes)


def _dead(node: gs.Node, kept: set[int]) -> bool:
    return not any(t.outputs or id(t) in kept for t in node.outputs)


def discard(node: gs.Node, kept: set[int] | None = None) -> list[gs.Node]:
    """Cut all edges of a node and of the bodies inside it; the producers that died of it. `sweep` takes it out then.

    kept: ids of the values that are outputs of a scope; the results of the bodies leave it.
    """
    fed: list[Tensor] = []
    for body in [*node.subgraphs(recursive=True)]:
        for result in body.outputs:
            if kept is not None:
                kept.discard(id(result))
            fed.append(result)
        for inner in body.nodes:
            fed.extend(inner.inputs)
            inner.inputs.clear()
            inner.outputs.clear()
    fed.extend(node.inputs)
    node.inputs.clear()
    node.outputs.clear()
    if kept is None:
        return []
    producers = {id(p): p for t in fed for p in t.inputs}
    return [p for p in producers.values() if p.outputs and _dead(p, kept)]


def _trim_outputs(scope: Graph) -> int:
    """Drop optional outputs that nobody reads; an empty name keeps later ones in place."""
    kept = {id(t) for t in scope.outputs}
    count = 0
    for node in _nodes(scope):
        if len(node.outputs) < 2 or (node.op == "BatchNormalization" and plain(node, "training_mode", 0)):
            continue
        optional = _optional_outputs(node, scope.opset)
        for i, tensor in enumerate(node.outputs):
            if i in optional and not tensor.is_empty() and not tensor.outputs and id(tensor) not in kept:
                node.outputs[i] = Variable("")
                count += 1
        while len(node.outputs) > 1 and node.outputs[-1].is_empty() and len(node.outputs) - 1 in optional:
            del node.outputs[-1]
    return count


def _optional_outputs(node: Node, opset: int) -> frozenset[int]:
    schema = node_schema(node.op, opset, "") if node.standard else ""
    return frozenset() if isinstance(schema, str) else schema.optional_outputs


def _drop_initializers(scope: Graph) -> int:
    ends = {id(t) for t in (*scope.inputs, *scope.outputs)}
    named = {p.value for q in scope.quantization for p in q.quant_parameter_tensor_names}
    used = [c for c in scope.declared if c.outputs or id(c) in ends or c.name in named]
    # A declared initializer that became a run-time value is no longer one.
    count = len(scope.declared) - len(used)
    if count:
        scope.declared = used
    return count


def _drop_functions(model: Model) -> int:
    functions = {(f.domain, f.name): f for f in model.graph.functions}
    if not functions or model.training:
        return 0
    reached: set[tuple[str, str]] = set()
    todo: list[gs.Graph] = [model.graph, *model.graph.subgraphs(recursive=True)]
    for graph in todo:  # grows
        for node in _nodes(graph):
            key = (node.domain or "", node.op)
            if key in functions and key not in reached:
                reached.add(key)
                todo.extend([functions[key], *functions[key].subgraphs(recursive=True)])
    kept = [f for f in model.graph.functions if (f.domain, f.name) in reached]
    count = len(model.graph.functions) - len(kept)
    if count:
        model.graph.functions = kept
    return count


def _nodes(graph: gs.Graph) -> Iterable[Node]:
    return cast(Iterable[Node], graph.nodes)


def _drop_opsets(model: Model) -> int:
    if model.training:
        return 0
    used = {"", "ai.onnx", *(f.domain for f in model.graph.functions)}
    used.update(node.domain or "" for scope in model.scopes() for node in _nodes(scope))
    imports = list(model.graph.import_domains or ())
    kept = [o for o in imports if o.domain in used]
    if len(kept) < len(imports):
        model.graph.import_domains = kept
    return len(imports) - len(kept)
