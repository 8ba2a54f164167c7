"""Runs a model on labels: every node in order, by the rule of its operator, in the bodies of control flow too."""

import onnx_graphsurgeon as gs

from zc.errors import ZcError
from zc.ir.graph import Node, Tensor
from zc.ir.model import Model
from zc.passes.prune.flow import OPEN, Flow, where
from zc.passes.prune.rules import RULES
from zc.passes.prune.rules.shapes import compute


def interpret(model: Model) -> Flow:
    """The labels of all values of a model whose nodes are sorted. The model is not changed."""
    flow = Flow(model)
    for tensor in model.graph.inputs:
        if tensor.shape is not None and not flow.layouts.get(id(tensor)):
            _enter(flow, tensor, f"is tied to '{tensor.name}', an input of the model")
    _scope(flow, model.graph)
    for tensor in model.graph.outputs:
        _leave(flow, tensor, f"reaches '{tensor.name}', an output of the model")
    return flow


def _leave(flow: Flow, tensor: Tensor, reason: str) -> None:
    flow.pin(tensor, reason)
    for counts in flow.numbers.sizes(tensor):
        flow.labels.pin(counts.labels, f"its size {reason}")


def _enter(flow: Flow, tensor: Tensor, reason: str) -> None:
    if isinstance(tensor, gs.Variable):
        flow.put(tensor, (), reason)


def _scope(flow: Flow, graph: gs.Graph) -> None:
    for node in graph.nodes:
        bodies = list(node.subgraphs())
        for body in bodies:
            for tensor in body.inputs:
                _enter(flow, tensor, f"is tied to '{tensor.name}', an input of a body of {where(node)}")
            _scope(flow, body)
            for tensor in body.outputs:
                _leave(flow, tensor, f"reaches '{tensor.name}', an output of a body of {where(node)}")
        assert isinstance(node, Node)
        _step(flow, node, len(bodies) > 0)


def _step(flow: Flow, node: Node, control: bool) -> None:
    key = node.op if node.standard else f"{node.domain}.{node.op}"
    rule = RULES.get(key)
    ends = [t for t in (*node.inputs, *node.outputs) if not t.is_empty()]
    unknown = next((t.name for t in ends if t.shape is None), None)
    if control:
        # What the bodies take from around them was followed there, node by node.
        flow.stop(node, node.inputs, f"enters {where(node)}")
    elif rule is None:
        flow.stop(node, node.inputs, f"reaches {where(node)}, an operator without a pruning rule")
    elif unknown is not None:
        flow.stop(node, node.inputs, f"reaches {where(node)}: the rank of '{unknown}' is {OPEN}")
    elif not compute(node, flow):
        try:
            rule(node, flow)
        except ZcError as err:
            flow.stop(node, node.inputs, str(err))
        for tensor in node.outputs:
            if not tensor.is_empty() and id(tensor) not in flow.layouts:
                flow.put(tensor, (), f"is made by {where(node)}")
    for counts in flow.numbers.misused(node):
        flow.labels.pin(counts.labels, f"its size is read at run time and used by {where(node)}")
