"""The element type of every value, also behind operators that shape inference does not know."""

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from zc.ir.edit import sort_nodes
from zc.ir.graph import Tensor, Variable, fixed_value
from zc.ir.model import Model

ZERO_POINT = {
    "QuantizeLinear": 2,
    "QLinearConv": 7,
    "QLinearMatMul": 7,
    "QGemm": 8,
    "QLinearAdd": 7,
    "QLinearMul": 7,
    "QLinearAveragePool": 4,
    "QLinearGlobalAveragePool": 4,
    "QLinearSigmoid": 4,
    "QLinearLeakyRelu": 4,
    "QLinearSoftmax": 4,
    "QLinearConcat": 1,
}
"""Which input is the zero point of the output: codes have its type."""

KEEPING = frozenset(
    {
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Identity",
        "Transpose",
        "Slice",
        "Split",
        "Pad",
        "MaxPool",
        "Concat",
    }
    | {"DepthToSpace", "SpaceToDepth", "Resize", "Upsample", "Clip", "Expand", "Tile", "Gather"}
)
"""Operators whose outputs have the type of their first input."""


def code_types(model: Model) -> dict[str, np.dtype[Any]]:
    """The element type of each value by name, float32 where nothing tells; set on the tensors too."""
    sort_nodes(model.graph)
    types: dict[str, np.dtype[Any]] = {}
    for tensor in model.graph.inputs:
        types[tensor.name] = np.dtype(np.float32) if tensor.dtype is None else np.dtype(tensor.dtype)
    for node in model.graph.nodes:
        for tensor in node.outputs:
            kind = tensor.dtype if tensor.dtype is not None else _kind(node, types)
            if kind is not None and tensor.dtype is None and isinstance(tensor, Variable):
                tensor.dtype = kind
            types[tensor.name] = np.dtype(np.float32) if kind is None else np.dtype(kind)
    return types


def _kind(node: gs.Node, types: dict[str, np.dtype[Any]]) -> np.dtype[Any] | None:
    position = ZERO_POINT.get(node.op)
    if position is not None:
        zero: Tensor | None = node.inputs[position] if len(node.inputs) > position else None
        if zero is None or not zero.name:
            return np.dtype(np.float32) if node.op == "QGemm" else np.dtype(np.uint8)
        values = fixed_value(zero)
        return None if values is None else values.dtype
    if node.op in KEEPING and node.inputs:
        first = node.inputs[0]
        return first.dtype if first.dtype is not None else types.get(first.name)
    return None
