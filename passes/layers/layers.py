"""Layers as matrix products: Conv, Gemm and MatMul with a constant weight.

    rows [groups, R, D] x matrix [groups, D, M / groups] + bias [M] = output [R, M]

A row holds what one output position sees of the input: the window of a convolution, or one vector. D counts the
positions of the window first, then the channels of the group.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zc.ir.edit import Names
from zc.ir.graph import Array, Constant, Node, Tensor, attribute
from zc.ir.model import Model


@dataclass(eq=False)
class Layer:
    """A node with its weight and bias."""

    node: Node
    weight: Constant
    bias: Constant | None
    end: Tensor
    """Its output, behind the Add of its bias where that is a node of its own."""

    @property
    def source(self) -> Tensor:
        """The value it reads."""
        return self.node.inputs[0]

    @property
    def convolves(self) -> bool:
        """Is it a convolution?"""
        return self.node.op == "Conv"

    @property
    def spreads(self) -> bool:
        """Is it a transposed convolution? A row is an input position then, and the matrix has a column for each tap."""
        return self.node.op == "ConvTranspose"

    @property
    def channels(self) -> int:
        """Number of its outputs."""
        if self.spreads:
            return int(self.weight.shape[1]) * self.groups
        return int(self.weight.shape[0 if self.convolves or self.turned else -1])

    @property
    def groups(self) -> int:
        """Groups of a convolution, else 1."""
        return int(attribute(self.node, "group", 1)) if self.convolves or self.spreads else 1

    @property
    def inputs(self) -> int:
        """Weights of an output; of a transposed convolution, of a tap of one."""
        if self.spreads:
            return int(self.weight.shape[0]) // self.groups
        return self.weight.size // max(self.channels, 1)

    @property
    def turned(self) -> bool:
        """Is the weight [outputs, inputs] although it is no convolution's?"""
        return self.node.op == "Gemm" and bool(attribute(self.node, "transB", 0))

    def matrix(self) -> Array:
        """The weight as float64 [groups, D, M / groups]."""
        return self.as_matrix(self.weight.values)

    def as_matrix(self, values: Array) -> Array:
        """An array of the weight's shape (numbers, codes, scales) as float64 [groups, D, M / groups]."""
        values = values.astype(np.float64)
        if self.spreads:
            return values.reshape(self.groups, values.shape[0] // self.groups, -1)
        if not self.convolves:
            return (values.T if self.turned else values)[None]
        groups = self.groups
        last = np.moveaxis(values, 1, -1)  # [M, window..., C / groups]
        return last.reshape(groups, values.shape[0] // groups, -1).transpose(0, 2, 1)

    def set_matrix(self, matrix: Array) -> None:
        """The inverse of `matrix`."""
        self.weight.values = self.from_matrix(matrix).astype(self.weight.values.dtype)

    def from_matrix(self, matrix: Array) -> Array:
        """The inverse of `as_matrix`: an array of the weight's shape."""
        if self.spreads:
            return np.ascontiguousarray(matrix.reshape(tuple(self.weight.shape)))
        if not self.convolves:
            return np.ascontiguousarray(matrix[0].T if self.turned else matrix[0])
        shape = tuple(self.weight.shape)
        last = matrix.transpose(0, 2, 1).reshape(shape[0], *shape[2:], shape[1])
        return np.ascontiguousarray(np.moveaxis(last, -1, 1))

    def offset(self) -> Array:
        """The bias as float64 [M]; zeros where it has none."""
        if self.bias is None:
            return np.zeros(self.channels)
        return np.broadcast_to(self.bias.values.astype(np.float64).reshape(-1), (self.channels,))

    @property
    def may_shift(self) -> bool:
        """Has it a bias, or a place for one?"""
        return self.bias is not None or self.node.op != "MatMul"

    def set_offset(self, offset: Array, names: Names) -> None:
        """Write the bias, float [M]; a layer that `may_shift` gets one if it has none."""
        values = offset.astype(self.weight.values.dtype)
        if self.bias is not None:
            self.bias.values = values.reshape([1] * (len(self.bias.shape) - 1) + [-1])
            return
        self.bias = names.constant(f"{self.weight.name}_bias", values)
        if len(self.node.inputs) > 2:
            self.node.inputs[2] = self.bias
        else:
            self.node.inputs.append(self.bias)

    def columns(self, labels: Sequence[int] | Array) -> Array:
        """By group and place in D, what `labels` says of the input channel: [groups, D]."""
        groups = self.groups
        own = np.asarray(labels).reshape(groups, -1)
        window = int(np.prod(self.weight.shape[2:])) if self.convolves else 1
        return np.tile(own, (1, window))


def find_layers(model: Model, spreading: bool = False) -> tuple[list[Layer], list[tuple[Node, str]]]:
    """The layers of the main graph in its order, and the nodes that look like layers but are none, with the reason.

    spreading: transposed convolutions are layers too, for who needs no output of a row.
    """
    fed = {id(t) for t in (*model.graph.inputs, *model.graph.outputs)}
    layers: list[Layer] = []
    refused: list[tuple[Node, str]] = []
    for node in model.nodes():
        if node.op not in ("Conv", "Gemm", "MatMul", "ConvTranspose") or not node.standard:
            continue
        why = _why_not(node, fed, spreading)
        if why is None:
            layers.append(_layer(node, fed))
        elif why:
            refused.append((node, why))
    return layers, refused


def by_value(layers: Sequence[Layer]) -> dict[str, Layer]:
    """Layers by the names of what they put out, before and behind the Add of a bias."""
    return {t.name: one for one in layers for t in (one.end, *one.node.outputs)}


def _why_not(node: Node, fed: set[int], spreading: bool) -> str | None:
    """The reason why a node cannot be repaired; empty for one without a weight."""
    weight = node.inputs[1]
    if not isinstance(weight, Constant):
        return "" if node.op == "MatMul" and weight.inputs and _computed(weight) else "its weight is no plain constant"
    if node.op == "ConvTranspose" and not spreading:
        return "repair knows no ConvTranspose"
    if id(weight) in fed or len(weight.outputs) > 1:
        return f"its weight '{weight.name}' is {'a graph input' if id(weight) in fed else 'shared'}"
    if weight.values.dtype.kind != "f" or weight.values.dtype.itemsize not in (4, 8):
        return f"its weight is of type {weight.values.dtype}"
    if node.op == "Gemm" and (
        attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1 or attribute(node, "beta", 1.0) != 1
    ):
        return "it transposes or scales its inputs"
    if node.op == "MatMul" and (len(weight.shape) != 2 or isinstance(node.inputs[0], Constant)):
        return "its weight is no plain matrix"
    third = node.inputs[2] if len(node.inputs) > 2 and not node.inputs[2].is_empty() else None
    if third is not None and not _is_bias(third, Layer(node, weight, None, node.outputs[0]).channels, fed):
        return "its bias is computed, shared, or of another shape"
    return None


def _computed(tensor: Tensor) -> bool:
    """Does a value depend on more than constants? Only looks through what stores a weight."""
    while len(tensor.inputs) == 1 and tensor.inputs[0].op in ("DequantizeLinear", "Transpose", "Cast", "Identity"):
        tensor = tensor.inputs[0].inputs[0]
    return not isinstance(tensor, Constant)


def _is_bias(tensor: Tensor, channels: int, fed: set[int]) -> bool:
    if not isinstance(tensor, Constant) or id(tensor) in fed or len(tensor.outputs) > 1:
        return False
    return tensor.size == channels and (not tensor.shape or tensor.shape[-1] == channels)


def _layer(node: Node, fed: set[int]) -> Layer:
    weight = node.inputs[1]
    assert isinstance(weight, Constant)
    if node.op == "MatMul":
        return Layer(node, weight, *followed_by_bias(node, int(weight.shape[-1]), fed))
    bias = node.inputs[2] if len(node.inputs) > 2 and not node.inputs[2].is_empty() else None
    return Layer(node, weight, bias if isinstance(bias, Constant) else None, node.outputs[0])


def followed_by_bias(node: Node, channels: int, fed: set[int]) -> tuple[Constant | None, Tensor]:
    """The bias that an Add behind a product adds, and the sum; no bias and the product's output where there is none.

    fed: ids of inputs and outputs of the model.
    """
    end = node.outputs[0]
    follower = end.outputs[0] if len(end.outputs) == 1 and id(end) not in fed else None
    if follower is not None and follower.op == "Add":
        other = next((t for t in follower.inputs if t is not end), None)
        if isinstance(other, Constant) and _is_bias(other, channels, fed):
            return other, follower.outputs[0]
    return None, end
