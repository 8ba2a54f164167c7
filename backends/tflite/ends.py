"""In which layout the inputs of a file hold images: as the operators that read them want it."""

from collections import deque

from zc.backends.tflite.layout import Layout, channels_last
from zc.ir.graph import Constant, Graph, Tensor

_IMAGES = frozenset(
    {
        *("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "DepthToSpace", "SpaceToDepth"),
        *(
            "InstanceNormalization",
            "BatchNormalization",
            "LRN",
            "GlobalAveragePool",
            "GlobalMaxPool",
            "Resize",
            "Upsample",
        ),
    }
)
"""Operators that take channels last."""

_ORDERED = frozenset(
    {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "MatMul", "Gemm", "Transpose", "LSTM", "GRU", "RNN"}
)
"""Operators that read the axes in ONNX's order."""


def input_layouts(graph: Graph) -> dict[int, Layout]:
    """By id of an input of three axes or more: channels last, where the first operator that minds is one on images."""
    found = {}
    for tensor in graph.inputs:
        rank = 0 if isinstance(tensor, Constant) or tensor.shape is None else len(tensor.shape)
        if 3 <= rank <= 5 and _meets_image(tensor):
            found[id(tensor)] = channels_last(rank)
    return found


def _meets_image(tensor: Tensor) -> bool:
    """Does an operator on images come first behind a value, past those that take any layout?"""
    queue, seen = deque([tensor]), {id(tensor)}
    while queue:
        value = queue.popleft()
        for node in value.outputs:
            if node.op in _IMAGES:
                return True
            if node.op in _ORDERED:
                return False
            for out in node.outputs:
                if id(out) not in seen and out.shape is not None and len(out.shape) == len(tensor.shape):
                    seen.add(id(out))
                    queue.append(out)
    return False
