"""If with a constant condition: the branch that is taken moves into the scope around it."""

from collections import Counter

import onnx_graphsurgeon as gs

from zc.ir.edit import Names, replace_uses, sort_nodes, sweep
from zc.ir.graph import Constant, Graph, Node, Tensor
from zc.ir.model import Model
from zc.passes.cleanup.dce import discard
from zc.passes.cleanup.operands import computing_scopes, fixed, standard


def inline_branches(model: Model, loose: frozenset[int]) -> int:
    """Replace every If whose condition never changes by the branch it takes; their number.

    before:  y = If(true) <then: t = Exp(x), return t;  else: ...>         after:  y = Exp(x)
    """
    found = [
        (scope, node)
        for scope in computing_scopes(model)
        for node in scope.nodes
        if standard(node, "If") and fixed(node.inputs[0], loose, 1) is not None
    ]
    if not found:
        return 0
    names, uses = Names(model.graph), _uses(model.graph)
    for scope, node in reversed(found):  # inner ones first: they move together with the outer one
        condition = fixed(node.inputs[0], loose, 1)
        assert condition is not None
        _take(scope, node, node.attrs["then_branch" if condition.reshape(-1)[0] else "else_branch"], names, uses)
    for scope in {id(scope): scope for scope, _ in found}.values():
        sweep(scope)
        sort_nodes(scope)
    return len(found)


def _uses(graph: gs.Graph) -> Counter[str]:
    """How many scopes have a node, a value or an initializer of each name."""
    count: Counter[str] = Counter()
    for scope in (graph, *graph.subgraphs(recursive=True)):
        count.update(_own_names(scope))
    return count


def _own_names(scope: gs.Graph) -> set[str]:
    names = {t.name for n in scope.nodes for t in n.outputs} | {n.name for n in scope.nodes}
    names |= {t.name for n in scope.nodes for t in n.inputs if isinstance(t, Constant)}
    return names | {t.name for t in scope.inputs} | {c.name for c in getattr(scope, "declared", ())}


def _take(scope: Graph, node: gs.Node, body: Graph, names: Names, uses: Counter[str]) -> None:
    own = {id(t): t for n in body.nodes for t in n.outputs}
    own.update({id(c): c for c in body.declared if isinstance(c, Constant)})
    moved = list(body.nodes)
    named: list[gs.Tensor | gs.Node] = [*own.values(), *moved]
    for thing in named:
        # The other branch, or a scope elsewhere, may use the name too; here it must be the only one.
        if thing.name and uses[thing.name] > 1:
            thing.name = names.take(thing.name)
    results = list(body.outputs)
    body.nodes[:] = []
    scope.declared.extend(c for c in body.declared if isinstance(c, Constant))
    outputs = list(node.outputs)
    discard(node)
    became: dict[int, Tensor] = {}
    for outer, inner in zip(outputs, results, strict=True):
        if outer.is_empty():
            continue
        if id(inner) in own and inner.inputs:
            producer = inner.inputs[0]
            producer.outputs[next(i for i, t in enumerate(producer.outputs) if t is inner)] = outer
            replace_uses(inner, outer)
            became[id(inner)] = outer
        else:
            scope.nodes.append(Node("Identity", names.take("branch"), {}, [became.get(id(inner), inner)], [outer]))
    scope.nodes.extend(moved)
