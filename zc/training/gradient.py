"""Which weights no gradient can reach, and the node that stops it: asked before training starts."""

from collections.abc import Iterable

import numpy as np
import onnx_graphsurgeon as gs

from zc.errors import ZcError
from zc.ir.elements import dtype_of
from zc.ir.graph import Constant, Tensor, describe
from zc.ir.model import Model
from zc.training.ops import NO_GRADIENT


def require_gradient(model: Model, outputs: Iterable[str], weights: Iterable[str]) -> None:
    """ZcError when a weight acts on these values only through operators that have no gradient; it names the first."""
    wanted = set(outputs)
    values = [t for t in _values(model) if t.name in wanted]
    reached = _behind(values, through_all=False)
    acting = _behind(values, through_all=True)
    chosen = set(weights)
    for constant in model.constants():
        if constant.name in chosen and id(constant) in acting and id(constant) not in reached:
            node = _stop(constant, acting)
            raise ZcError(
                f"{model.name}: node '{describe(node)}' ({node.op}) has no gradient, and weight '{constant.name}' acts "
                f"on {', '.join(sorted(wanted))} through it alone; leave the weights before it out with skip=..., or "
                "train towards a value before it with outputs=..."
            )


def stops(node: gs.Node) -> bool:
    """Does no gradient pass through the node?"""
    if node.op == "Cast":
        if isinstance(node.inputs[0], Constant) and np.dtype(node.inputs[0].dtype).name.strip("u0123456789") == "int":
            return False  # of codes to wider ones
        return np.dtype(dtype_of(int(node.attrs["to"]))).kind in "iub"
    return node.op in NO_GRADIENT


def _values(model: Model) -> Iterable[Tensor]:
    yield from model.graph.outputs
    for node in model.graph.nodes:
        yield from node.outputs


def _behind(values: Iterable[Tensor], through_all: bool) -> set[int]:
    """Every value that these depend on, by id; through_all: also through operators without a gradient."""
    found: set[int] = set()
    stack = list(values)
    while stack:
        tensor = stack.pop()
        if id(tensor) in found:
            continue
        found.add(id(tensor))
        for node in tensor.inputs:
            if through_all or not stops(node):
                stack.extend(node.inputs)
                for body in node.subgraphs():
                    stack.extend(body.outputs)
    return found


def _stop(constant: Constant, acting: set[int]) -> gs.Node:
    """The first node without a gradient on the way from a weight to what it acts on."""
    queue: list[Tensor] = [constant]
    seen: set[int] = set()
    for tensor in queue:
        for node in tensor.outputs:
            if id(node) in seen or not any(id(t) in acting for t in node.outputs):
                continue
            seen.add(id(node))
            if stops(node):
                return node
            queue.extend(node.outputs)
    return constant.outputs[0]
