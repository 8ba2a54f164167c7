"""A net of the size and shape of ResNet-50 with random weights: for costs, where accuracy does not matter.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2016, table 1; BatchNormalization folded.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
"""Channels inside the blocks of a stage, and how many blocks it has."""
WIDER = 4


class _Net:
    """Nodes and weights as they are added."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        """A node; the name of its output."""
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def weight(self, *shape: int, gain: float = 2.0) -> str:
        """Weights that keep the variance of what passes through (He initialisation)."""
        values = self.rng.normal(0, np.sqrt(gain / np.prod(shape[1:])), shape).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def conv(self, x: str, inner: int, outer: int, kernel: int = 1, stride: int = 1, gain: float = 2.0) -> str:
        """A convolution of `inner` to `outer` channels."""
        pads = [kernel // 2] * 4
        return self.add(
            "Conv", x, self.weight(outer, inner, kernel, kernel, gain=gain), strides=[stride] * 2, pads=pads
        )

    def block(self, x: str, inner: int, mid: int, stride: int) -> str:
        """1x1, 3x3, 1x1 beside a shortcut, which has a convolution where the shape changes."""
        y = self.add("Relu", self.conv(x, inner, mid))
        y = self.add("Relu", self.conv(y, mid, mid, 3, stride))
        y = self.conv(y, mid, mid * WIDER, gain=0.2)
        short = x if inner == mid * WIDER else self.conv(x, inner, mid * WIDER, stride=stride, gain=1.0)
        return self.add("Relu", self.add("Add", y, short))


def resnet50(seed: int = 0) -> onnx.ModelProto:
    """Input x float32[N,3,224,224], output float32[N,1000]; 25.5 million parameters."""
    net, channels = _Net(seed), 64
    x = net.add("Relu", net.conv("x", 3, channels, 7, 2))
    x = net.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for stage, (mid, blocks) in enumerate(STAGES):
        for number in range(blocks):
            x = net.block(x, channels, mid, 2 if stage and not number else 1)
            channels = mid * WIDER
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    y = net.add("Gemm", x, net.weight(1000, channels, gain=1.0), transB=1)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in _ends(y)]
    graph = helper.make_graph(net.nodes, "resnet50", ends[:1], ends[1:], net.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _ends(output: str) -> list[tuple[str, list[str | int]]]:
    return [("x", ["N", 3, 224, 224]), (output, ["N", 1000])]
