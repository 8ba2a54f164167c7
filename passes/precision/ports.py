"""Which inputs and outputs of a node may have a half-precision type, by the schema of its operator."""

import numpy as np

from zc.ir.graph import Node, Tensor
from zc.ir.schema import Parameter, parameters
from zc.passes.precision.kinds import Kind


def convertible(node: Node, opset: int, kind: Kind) -> tuple[list[int], list[int]] | str:
    """The inputs and outputs of a node in float32 that become half precision, or the reason why it cannot have any.

    Inputs that the operator wants in float32 whatever the data (the scales of a Resize) are not among them.
    """
    known = parameters(node.op, opset, "")
    if known is None:
        return f"operator set {opset} has no {node.op}"
    values = [t for t in (*node.inputs, *node.outputs) if t.name]
    if any(t.dtype is None or getattr(t, "type", "tensor_type") != "tensor_type" for t in values):
        return "the type of one of its values is unknown, or no tensor"
    found: list[list[int]] = []
    for tensors, formal in ((node.inputs, known[0]), (node.outputs, known[1])):
        places = []
        for i, tensor in enumerate(tensors):
            one = _parameter(formal, i)
            if is_float(tensor) and one is not None and kind.tensor in one.types:
                places.append(i)
        found.append(places)
    inputs, outputs = found
    floats = [i for i, t in enumerate(node.inputs) if is_float(t)]
    made = [i for i, t in enumerate(node.outputs) if is_float(t)]
    if (floats and floats[0] not in inputs) or outputs != made:
        return f"{node.op} has no {kind.name} in operator set {opset}"
    return inputs, outputs


def is_float(tensor: Tensor) -> bool:
    """Is it a tensor of float32?"""
    return bool(tensor.name) and tensor.dtype == np.float32 and getattr(tensor, "type", "tensor_type") == "tensor_type"


def _parameter(formal: tuple[Parameter, ...], index: int) -> Parameter | None:
    if index < len(formal):
        return formal[index]
    return formal[-1] if formal and formal[-1].many else None
