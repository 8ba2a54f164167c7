"""Random graphs that show what onnxruntime's kernels cost: operators of random shapes, in float and in Q/DQ.

Many stand in one model, so that weights come from where they come from in a net, not from the nearest cache.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from zc.ir.graph import Array
from zc.ir.model import Model

CHANNELS = (
    *(1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 16, 18, 20, 24, 28, 32, 32, 36, 40, 48, 56, 64, 64, 72, 80, 96, 100, 112, 128),
    *(128, 144, 160, 192, 192, 224, 256, 256, 320, 384, 400, 512, 640, 768, 960, 1024),
)
SIDES = (
    *(1, 2, 3, 4, 5, 6, 7, 7, 8, 10, 12, 13, 14, 14, 15, 16, 20, 24, 27, 28, 28, 30, 32, 40, 48, 52, 56, 56, 64, 75),
    *(80, 96, 112, 112, 120, 128, 150, 160, 192, 224, 240),
)
LENGTHS = (16, 32, 64, 100, 128, 256, 500, 1000)
WIDTHS = (16, 32, 48, 64, 100, 128, 256, 384, 512, 768, 1024, 1280)
ROWS = (1, 1, 1, 2, 4, 8, 16, 32, 50, 64, 100, 128, 197)
MOST_MACS, MOST_ELEMENTS = 150e6, 1.4e6

PLAIN_OPS = (
    *("Add", "Mul", "Concat", "Sigmoid", "LeakyRelu", "Softmax", "LayerNormalization", "Erf", "Tanh", "Relu"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Slice", "Transpose", "Resize"),
)
CONVS = (
    *("pointwise", "pointwise", "dense", "dense", "depthwise", "depthwise", "stem"),
    *("grouped", "line", "head", "column"),
)
ACTIVATIONS = (*["Relu"] * 12, "Clip", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid")
CONV_OPS = (
    *("Add", "Mul", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool", "Sigmoid", "LeakyRelu", "Resize"),
    *("Add", "MaxPool"),
)


@dataclass(frozen=True)
class Shape:
    """A convolution."""

    channels: int
    filters: int
    kernel: tuple[int, ...] = (1, 1)
    stride: int = 1
    groups: int = 1
    padded: bool = True


@dataclass
class Builder:
    """Collects nodes; `integer`: with Q/DQ wherever onnxruntime wants them."""

    integer: bool
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    nodes: list[object] = field(default_factory=list)
    constants: list[object] = field(default_factory=list)
    inputs: list[object] = field(default_factory=list)
    outputs: list[object] = field(default_factory=list)

    def constant(self, values: Array) -> str:
        """The name of a new constant."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, op: str, inputs: list[str], **attributes: object) -> str:
        """The output of a new node."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"{op}_{len(self.nodes)}", **attributes))
        return name

    def input(self, *shape: int) -> str:
        """A new input, quantised."""
        name = f"x{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return self.coded(name)

    def output(self, value: str) -> None:
        """Let the model put out a value."""
        self.outputs.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, None))

    def coded(self, value: str) -> str:
        """The value after Q and DQ."""
        if not self.integer:
            return value
        coding = [self.constant(np.float32(0.02)), self.constant(np.uint8(0))]
        return self.add("DequantizeLinear", [self.add("QuantizeLinear", [value, *coding]), *coding])

    def weight(self, *shape: int, axis: int = 0) -> str:
        """A weight with a scale for each index along `axis`."""
        if not self.integer:
            return self.constant((self.rng.standard_normal(shape) * 0.05).astype(np.float32))
        codes = self.rng.integers(-100, 100, shape).astype(np.int8)
        return self._decoded(codes, axis, 5e-4)

    def bias(self, size: int) -> str:
        """A bias."""
        if not self.integer:
            return self.constant((self.rng.standard_normal(size) * 0.05).astype(np.float32))
        return self._decoded(self.rng.integers(-100, 100, size).astype(np.int32), 0, 1e-5)

    def _decoded(self, codes: Array, axis: int, scale: float) -> str:
        size = codes.shape[axis]
        scales = self.constant(np.full(size, scale, np.float32))
        zeros = self.constant(np.zeros(size, codes.dtype))
        return self.add("DequantizeLinear", [self.constant(codes), scales, zeros], axis=axis)

    def conv(self, x: str, shape: Shape, then: str = "Relu") -> str:
        """A convolution, an activation and codes."""
        pads = [size // 2 if shape.padded else 0 for size in shape.kernel] * 2
        attributes = {"kernel_shape": shape.kernel, "strides": [shape.stride] * len(shape.kernel), "pads": pads}
        weight = self.weight(shape.filters, shape.channels // shape.groups, *shape.kernel)
        inputs, groups = [x, weight, self.bias(shape.filters)], shape.groups
        y = self.add("Conv", inputs, group=groups, **attributes)
        if then == "Clip":
            return self.coded(self.add("Clip", [y, self.constant(np.float32(0)), self.constant(np.float32(6))]))
        if self.integer and then != "Relu":  # what the range does not express is an operator of its own
            return self.coded(self.add(then if then == "LeakyRelu" else "Sigmoid", [self.coded(y)]))
        return self.coded(self.add(then, [y]))

    def model(self) -> Model:
        """The model."""
        graph = helper.make_graph(self.nodes, "costs", self.inputs, self.outputs, self.constants)
        opset = helper.make_opsetid("", 17)
        return Model.from_proto(helper.make_model(graph, opset_imports=[opset], ir_version=8))


Case = Callable[[Builder], None]


def cases(chance: random.Random, count: int) -> list[Case]:
    """That many convolutions of random shapes, and other operators in proportion, shuffled."""
    found = [_conv(chance) for _ in range(count)]
    found += [_product(chance) for _ in range(count // 2)]
    found += [_plain(chance) for _ in range(count // 3)]
    found += [_between_convs(chance) for _ in range(count // 3)]
    chance.shuffle(found)
    return found


def build(some: list[Case], integer: bool) -> Model:
    """One model of them all."""
    builder = Builder(integer)
    for case in some:
        case(builder)
    return builder.model()


def _conv(chance: random.Random) -> Case:
    while True:
        shape, sides = _conv_shape(chance)
        out = math.prod(-(-side // shape.stride) for side in sides)
        macs = out * shape.filters * (shape.channels // shape.groups) * math.prod(shape.kernel)
        fits = all(side >= size for side, size in zip(sides, shape.kernel, strict=True))
        elements = max(math.prod(sides) * shape.channels, out * shape.filters)
        if fits and 1000 < macs < MOST_MACS and elements < MOST_ELEMENTS:
            break
    then = chance.choice(ACTIVATIONS)

    def case(b: Builder) -> None:
        b.output(b.conv(b.input(1, shape.channels, *sides), shape, then))

    return case


def _conv_shape(chance: random.Random) -> tuple[Shape, tuple[int, ...]]:
    """A convolution, and the sides of its input."""
    kind = chance.choice(CONVS)
    high = chance.choice(SIDES)
    sides: tuple[int, ...] = (high, chance.choice(SIDES) if chance.random() < 0.3 else high)
    ic, oc, groups, stride = chance.choice(CHANNELS), chance.choice(CHANNELS), 1, chance.choice((1, 1, 2))
    k = chance.choice((3, 3, 3, 5, 2))
    if kind == "pointwise":
        k = 1
    elif kind == "head":
        side = chance.choice((1, 1, 1, 7, 13))
        sides, k, oc = (side, side), 1, chance.choice((2, 10, 90, 255, 1000, 1001))
    elif kind == "depthwise":
        oc, groups, k = ic, ic, chance.choice((3, 3, 3, 5, 7))
    elif kind == "stem":
        side = chance.choice((32, 64, 96, 128, 160, 224))
        sides, ic, oc = (side, side), chance.choice((1, 3, 3, 4)), chance.choice((8, 16, 24, 32, 64))
        k = chance.choice((3, 3, 5, 7))
    elif kind == "grouped":
        groups, k = chance.choice((2, 4, 8, 32)), chance.choice((1, 3, 3))
        ic, oc = groups * chance.choice((2, 4, 8, 16, 32)), groups * chance.choice((1, 2, 4, 8, 16, 32))
    kernel: tuple[int, ...] = (k, k)
    if kind in {"line", "column"}:
        length, k = chance.choice(LENGTHS), chance.choice((1, 3, 5, 9))
        sides, kernel = ((length,), (k,)) if kind == "line" else ((length, 1), (k, 1))
        if chance.random() < 0.3:
            oc, groups = ic, ic
    return Shape(ic, oc, kernel, stride, groups, padded=chance.random() < 0.75), sides


def _product(chance: random.Random) -> Case:
    while True:
        rows, depth, columns = chance.choice(ROWS), chance.choice(WIDTHS), chance.choice((2, 5, 10, 1000, *WIDTHS))
        if rows * depth * columns < MOST_MACS:
            break
    gemm, codes = chance.random() < 0.5, chance.random() < 0.4

    def case(b: Builder) -> None:
        x = b.input(rows, depth) if gemm else b.input(1, rows, depth)
        weight = b.weight(depth, columns, axis=1)
        y = b.add("Gemm", [x, weight, b.bias(columns)]) if gemm else b.add("MatMul", [x, weight])
        b.output(b.coded(b.add("Relu", [y])) if codes else y)

    return case


def _small(chance: random.Random) -> tuple[int, int]:
    while True:
        channels, side = chance.choice(CHANNELS), chance.choice(SIDES)
        if channels * side * side < MOST_ELEMENTS / 2:
            return channels, side


def _operator(b: Builder, op: str, values: list[str], size: int, pool: tuple[int, int]) -> str:
    if op == "Concat":
        return b.add(op, values, axis=1)
    if op in {"MaxPool", "AveragePool"}:
        k, stride = pool
        return b.add(op, values, kernel_shape=[k, k], strides=[stride, stride], pads=[k // 2 if k == 3 else 0] * 4)
    if op == "LayerNormalization":
        return b.add(op, [*values, b.constant(np.ones(size, np.float32)), b.constant(np.ones(size, np.float32))])
    if op == "Slice":
        ends = [b.constant(np.array([n], np.int64)) for n in (0, max(size - 1, 1), 3)]
        return b.add(op, [*values, *ends])
    if op == "Transpose":
        return b.add(op, values, perm=[0, 1, 3, 2])
    if op == "Resize":
        by = b.constant(np.array([1, 1, 2, 2], np.float32))
        floor = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return b.add(op, [*values, "", by], mode="nearest", **floor)
    return b.add(op, values)


def _plain(chance: random.Random) -> Case:
    """An operator without convolutions beside it."""
    op, (channels, side), pool = chance.choice(PLAIN_OPS), _small(chance), chance.choice(((3, 2), (2, 2), (3, 1)))

    def case(b: Builder) -> None:
        terms = 2 if op in {"Add", "Mul", "Concat"} else 1
        y = _operator(b, op, [b.input(1, channels, side, side) for _ in range(terms)], side, pool)
        b.output(y if op in {"Softmax", "LayerNormalization"} else b.coded(y))

    return case


def _between_convs(chance: random.Random) -> Case:
    """An operator between pointwise convolutions, where layouts are those of convolutions."""
    op, (channels, side), pool = chance.choice(CONV_OPS), _small(chance), chance.choice(((3, 2), (2, 2), (3, 1)))
    other = chance.choice((16, 32, channels))

    def case(b: Builder) -> None:
        x = b.input(1, 16, side, side)
        values = [b.conv(x, Shape(16, channels))]
        if op in {"Add", "Mul", "Concat"}:
            values.append(b.conv(x, Shape(16, other if op == "Concat" else channels)))
        y = b.coded(_operator(b, op, values, side, pool))
        wide = channels + (other if op == "Concat" else 0)
        b.output(b.conv(y, Shape(wide, 16)))

    return case
