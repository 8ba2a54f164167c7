"""Which nodes of a graph compute in half precision, and why the others do not.

A node stays in float32 where the user wants it, where its operator is a risk or has no such type, where a constant of
its does not fit, or where a value that it reads or makes is out of range on the samples. Light operators (additions,
activations, moves) between nodes in float32 stay with them: to round for their sake, and back, would only cost.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

from zc.ir.graph import Graph, Node, Tensor, describe, fixed_value
from zc.passes.precision.blocked import BLOCKED
from zc.passes.precision.kinds import Kind
from zc.passes.precision.ports import convertible, is_float
from zc.target import Target

HEADROOM = 2.0
"""Samples do not show all: a value may be twice as large as on them."""

FITS = 4.0
"""A constant fits if its rounding error is at most so many times that of numbers spread evenly."""

HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN", "Gather"})
"""Operators that are worth a Cast."""

Ports = tuple[list[int], list[int]]


@dataclass
class Plan:
    """What becomes of each node of a scope."""

    half: dict[int, Ports] = field(default_factory=dict)
    """By id of a node in half precision: which of its inputs and outputs are."""
    reasons: list[tuple[str, str]] = field(default_factory=list)
    """Where and why nodes stay in float32; of one cause in one line where it is the operator's."""
    between: int = 0
    """Light nodes that stay with those around them."""


def plan(
    graph: Graph,
    kind: Kind,
    target: Target,
    keep_float: Callable[[Node], str | None],
    allow: frozenset[str],
    largest: Mapping[str, float],
) -> Plan:
    """Decide for each node of the main graph. `largest`: magnitude of each value on samples, empty without samples.

    keep_float: the reason why the user wants a node in float32, or None. allow: blocked operators to convert.
    """
    result, causes = Plan(), Counter[tuple[str, str]]()
    for node in [cast(Node, n) for n in graph.nodes]:
        if node.op == "Constant" or not any(is_float(t) for t in (*node.inputs, *node.outputs)):
            continue
        of_node = keep_float(node)
        ports = None if of_node else _ports(node, graph, kind, target, allow)
        if isinstance(ports, str):
            causes[node.op, ports] += 1
        elif ports is not None:
            of_node = _unfit(node, graph, kind, ports, largest)
            if of_node is None:
                result.half[id(node)] = ports
        if of_node:
            result.reasons.append((describe(node), of_node))
    result.between = _settle(graph, result.half)
    for (op, why), count in sorted(causes.items()):
        result.reasons.append((f"{op} ({count} node{'s'[: count > 1]})", f"stays in float32: {why}"))
    return result


def _ports(node: Node, graph: Graph, kind: Kind, target: Target, allow: frozenset[str]) -> Ports | str:
    if not node.standard:
        return "it is no operator of ONNX itself"
    if any(True for _ in node.subgraphs()):
        return "its bodies are not converted"
    if node.op in BLOCKED and node.op not in allow:
        return BLOCKED[node.op]
    if kind.name not in target.casts_half and node.op not in target.half_ops.get(kind.name, frozenset()):
        return f"{target.name} has no {kind.name} kernel for it"
    return convertible(node, int(graph.opset), kind)


def _unfit(node: Node, graph: Graph, kind: Kind, ports: Ports, largest: Mapping[str, float]) -> str | None:
    """The number that half precision has no room for, or None."""
    for i in ports[0]:
        values = fixed_value(node.inputs[i], graph)
        if values is not None and values.size:
            loss = kind.loss(values)
            if loss > FITS * 2.0 ** -(kind.digits + 1):
                number = abs(values).max()
                return f"its constant '{node.inputs[i].name}' ({number:.3g}) does not fit {kind.name}"
    for tensor in (*(node.inputs[i] for i in ports[0]), *(node.outputs[i] for i in ports[1])):
        size = largest.get(tensor.name)
        if size is None:
            continue
        if size * HEADROOM > kind.largest:
            return f"value '{tensor.name}' reaches {size:.3g} on the samples; {kind.name} ends at {kind.largest:g}"
        if 0 < size < kind.smallest:
            return f"value '{tensor.name}' stays below {size:.3g}, where {kind.name} loses its digits"
    return None


def _settle(graph: Graph, half: dict[int, Ports]) -> int:
    """Take out of `half` the light nodes that touch no heavy one in half precision; how many. Linear."""
    seen: set[int] = set()
    dropped = 0
    for first in [cast(Node, n) for n in graph.nodes]:
        if id(first) not in half or id(first) in seen or first.op in HEAVY:
            continue
        island, stack, heavy = [], [first], False
        seen.add(id(first))
        while stack:
            node = stack.pop()
            island.append(node)
            for near in _around(node, half[id(node)]):
                if id(near) not in half:
                    continue
                if near.op in HEAVY:
                    heavy = True
                elif id(near) not in seen:
                    seen.add(id(near))
                    stack.append(near)
        if not heavy:
            dropped += len(island)
            for node in island:
                del half[id(node)]
    return dropped


def _around(node: Node, ports: Ports) -> list[Node]:
    tensors: list[Tensor] = [node.inputs[i] for i in ports[0]]
    found = [cast(Node, p) for t in tensors for p in t.inputs]
    return found + [cast(Node, c) for i in ports[1] for c in node.outputs[i].outputs]
