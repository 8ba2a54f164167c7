"""Runs a model on labels: every node of the main graph in order, by the rule of its operator."""

from zc.errors import ZcError
from zc.ir.edit import outer_values
from zc.ir.graph import Constant, Node
from zc.ir.model import Model
from zc.passes.quantize.scaling.elementwise import RULES as ELEMENTWISE
from zc.passes.quantize.scaling.flow import Flow, rank, where
from zc.passes.quantize.scaling.layers import RULES as LAYERS
from zc.passes.quantize.scaling.movement import RULES as MOVEMENT
from zc.passes.quantize.scaling.rule import Rule

RULES: dict[str, Rule] = {**LAYERS, **ELEMENTWISE, **MOVEMENT}
"""By operator of ONNX. An operator without a rule lets no factor through."""


def interpret(model: Model, *, residual: bool = True, limits: bool = False) -> Flow:
    """The labels of all values of the main graph, whose nodes must be sorted. The model is not changed.

    residual: let values that meet in an Add share factors; otherwise theirs are 1.
    limits: let factors through a Clip, which is then recorded in `Flow.limits`; otherwise they are 1 there.
    """
    flow = Flow(model, residual=residual, clips=limits)
    for tensor in model.graph.inputs:
        flow.put(tensor, flow.rigid(rank(tensor), f"'{tensor.name}' is an input of the model"))
    for node in model.nodes():
        _step(flow, node)
    for tensor in model.graph.outputs:
        flow.pin(tensor, f"reaches '{tensor.name}', an output of the model")
    return flow


def _step(flow: Flow, node: Node) -> None:
    rule = RULES.get(node.op) if node.standard else None
    ends = [t for t in (*node.inputs, *node.outputs) if not t.is_empty() and not isinstance(t, Constant)]
    unknown = next((t.name for t in ends if t.shape is None), None)
    for tensor in outer_values(node) if any(True for _ in node.subgraphs()) else ():
        flow.pin(tensor, f"is read inside {where(node)}")
    if rule is None:
        flow.stop(node, f"reaches {where(node)}, through which no factor passes")
    elif unknown is not None:
        flow.stop(node, f"reaches {where(node)}: the rank of '{unknown}' is not known")
    else:
        try:
            rule(node, flow)
        except ZcError as err:
            flow.stop(node, str(err))
    for tensor in node.outputs:
        if tensor.name and id(tensor) not in flow.layouts:
            flow.put(tensor, flow.rigid(rank(tensor), f"is made by {where(node)}"))
