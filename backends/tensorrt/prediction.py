"""What TensorRT will fuse, by its rules of placement: nothing of it runs here."""

from typing import cast

from zc.backends.base import Prediction
from zc.backends.qdq import dequantised, nodes_of
from zc.backends.tensorrt.target import SMALLEST, WEIGHTED
from zc.ir.graph import Node, describe, fixed_value
from zc.ir.model import Model

_FUSES = frozenset({"Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "Elu", "HardSwish", "Gelu"})


def predict(model: Model) -> Prediction:
    """Layers on int8 kernels, those in float and why, and what vanishes into a layer in front of it."""
    integer, floats, fused = [], [], []
    for node in nodes_of(model):
        if node.op in WEIGHTED and node.standard:
            why = _float_because(node)
            if why is None:
                integer.append(f"{describe(node)} ({node.op})")
            else:
                floats.append((describe(node), why))
            fused += _followers(node)
    return Prediction(tuple(integer), tuple(fused), tuple(floats))


def _float_because(node: Node) -> str | None:
    if len(node.inputs) < 2:
        return "it has no weight"
    data, weight = (dequantised(t) for t in node.inputs[:2])
    if data and weight:
        return None
    if weight:
        return "its weight alone is in codes, which are turned into floats inside the kernel"
    if data:
        return "it takes codes, but its weight is float"
    values = fixed_value(node.inputs[1])
    if values is None:
        return "both factors are computed"
    if node.op in {"Gemm", "MatMul"} and min(values.shape) < SMALLEST:
        return f"its weight is {' x '.join(map(str, values.shape))}: int8 gains nothing"
    return "its data and weight are float"


def _followers(node: Node) -> list[tuple[str, str]]:
    """What runs inside the kernel of a layer: a residual sum and an activation right behind it."""
    found, value = [], node.outputs[0]
    for ops in (frozenset({"Add"}), _FUSES):
        if len(value.outputs) == 1 and value.outputs[0].op in ops:
            after = cast(Node, value.outputs[0])
            found.append((describe(after), describe(node)))
            value = after.outputs[0]
    return found
