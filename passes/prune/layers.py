"""Layers that can be repaired: Conv, Gemm and MatMul with a constant weight, seen as matrix products.

    rows [groups, R, D] x matrix [groups, D, M / groups] + bias [M] = output [R, M]

A row holds what one output position sees of the input: the window of a convolution, or one vector. D counts the
positions of the window first, then the channels of the group.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zc.errors import ZcError
from zc.ir.edit import Names
from zc.ir.graph import Array, Constant, Node, Tensor, attribute
from zc.ir.model import Model

POSITIONS = 64
"""Output positions of a sample that are looked at: enough for the normal equations, and little to hold."""


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
    def channels(self) -> int:
        """Number of its outputs."""
        return int(self.weight.shape[0 if self.convolves or self._transposed else -1])

    @property
    def groups(self) -> int:
        """Groups of a convolution, else 1."""
        return int(attribute(self.node, "group", 1)) if self.convolves else 1

    @property
    def _transposed(self) -> bool:
        return self.node.op == "Gemm" and bool(attribute(self.node, "transB", 0))

    def matrix(self) -> Array:
        """The weight as float64 [groups, D, M / groups]."""
        values = self.weight.values.astype(np.float64)
        if not self.convolves:
            return (values.T if self._transposed else values)[None]
        groups = self.groups
        last = np.moveaxis(values, 1, -1)  # [M, window..., C / groups]
        return last.reshape(groups, values.shape[0] // groups, -1).transpose(0, 2, 1)

    def set_matrix(self, matrix: Array) -> None:
        """The inverse of `matrix`."""
        shape, dtype = tuple(self.weight.shape), self.weight.values.dtype
        if not self.convolves:
            values = matrix[0].T if self._transposed else matrix[0]
        else:
            last = matrix.transpose(0, 2, 1).reshape(shape[0], *shape[2:], shape[1])
            values = np.moveaxis(last, -1, 1)
        self.weight.values = np.ascontiguousarray(values.astype(dtype))

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


def find_layers(model: Model) -> tuple[list[Layer], list[tuple[Node, str]]]:
    """The layers of the main graph in its order, and the nodes that look like layers but are none, with the reason."""
    fed = {id(t) for t in (*model.graph.inputs, *model.graph.outputs)}
    layers: list[Layer] = []
    refused: list[tuple[Node, str]] = []
    for node in model.nodes():
        if node.op not in ("Conv", "Gemm", "MatMul", "ConvTranspose") or not node.standard:
            continue
        why = _why_not(node, fed)
        if why is None:
            layers.append(_layer(node, fed))
        elif why:
            refused.append((node, why))
    return layers, refused


def _why_not(node: Node, fed: set[int]) -> str | None:
    """The reason why a node cannot be repaired; empty for one without a weight."""
    weight = node.inputs[1]
    if not isinstance(weight, Constant):
        return "" if node.op == "MatMul" and weight.inputs and _computed(weight) else "its weight is no plain constant"
    if node.op == "ConvTranspose":
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
    if node.op == "Conv" and attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "its padding depends on the size of its input"
    third = node.inputs[2] if len(node.inputs) > 2 and not node.inputs[2].is_empty() else None
    if third is not None and not _is_bias(third, int(weight.shape[0 if node.op == "Conv" else -1]), fed, node):
        return "its bias is computed, shared, or of another shape"
    return None


def _computed(tensor: Tensor) -> bool:
    """Does a value depend on more than constants? Only looks through what stores a weight."""
    while len(tensor.inputs) == 1 and tensor.inputs[0].op in ("DequantizeLinear", "Transpose", "Cast", "Identity"):
        tensor = tensor.inputs[0].inputs[0]
    return not isinstance(tensor, Constant)


def _is_bias(tensor: Tensor, channels: int, fed: set[int], node: Node) -> bool:
    if not isinstance(tensor, Constant) or id(tensor) in fed or len(tensor.outputs) > 1:
        return False
    if node.op == "Gemm" and attribute(node, "transB", 0):
        channels = int(node.inputs[1].shape[0])
    return tensor.size == channels and (not tensor.shape or tensor.shape[-1] == channels)


def _layer(node: Node, fed: set[int]) -> Layer:
    weight = node.inputs[1]
    assert isinstance(weight, Constant)
    end = node.outputs[0]
    if node.op != "MatMul":
        bias = node.inputs[2] if len(node.inputs) > 2 and not node.inputs[2].is_empty() else None
        return Layer(node, weight, bias if isinstance(bias, Constant) else None, end)
    follower = end.outputs[0] if len(end.outputs) == 1 and id(end) not in fed else None
    if follower is not None and follower.op == "Add":
        other = next((t for t in follower.inputs if t is not end), None)
        if other is not None and _is_bias(other, int(weight.shape[-1]), fed, node):
            return Layer(node, weight, other, follower.outputs[0])  # type: ignore[arg-type]
    return Layer(node, weight, None, end)


def outputs_of(layer: Layer, source: Array) -> tuple[int, ...]:
    """How many output positions a sample has, along each axis."""
    if not layer.convolves:
        return tuple(source.shape[1:-1]) if source.ndim > 2 else ()
    begin, end, strides, dilations = _geometry(layer, source.ndim - 2)
    window = layer.weight.shape[2:]
    return tuple(
        (size + b + e - d * (k - 1) - 1) // s + 1
        for size, b, e, s, d, k in zip(source.shape[2:], begin, end, strides, dilations, window, strict=True)
    )


def _geometry(layer: Layer, rank: int) -> tuple[list[int], list[int], list[int], list[int]]:
    pads = list(attribute(layer.node, "pads", None) or [0] * 2 * rank)
    if attribute(layer.node, "auto_pad", "NOTSET") == "VALID":
        pads = [0] * 2 * rank
    strides = list(attribute(layer.node, "strides", None) or [1] * rank)
    dilations = list(attribute(layer.node, "dilations", None) or [1] * rank)
    return pads[:rank], pads[rank:], strides, dilations


def padding_of(feeds: Mapping[str, Array]) -> Array | None:
    """Which tokens of each row count: the attention mask among the inputs, bool [samples, tokens], or None."""
    for name, value in feeds.items():
        if "mask" in name.lower() and value.ndim == 2 and value.dtype.kind in "iub":
            return np.asarray(value > 0)
    return None


def choose_positions(layer: Layer, source: Array, seed: int, counts: Array | None = None) -> Array:
    """Flat output positions to look at, int64 [samples, at most `POSITIONS`].

    counts: of `padding_of`; positions of padding are not looked at, others of their row twice instead.
    """
    shape = outputs_of(layer, source)
    total = int(np.prod(shape, dtype=np.int64))
    tokens = counts is not None and not layer.convolves and (len(source), *shape) == counts.shape
    if counts is not None and tokens and counts.any(axis=1).all():
        size = counts.sum(axis=1, keepdims=True)
        order = np.argsort(~counts, axis=1, kind="stable")
        return np.take_along_axis(order, np.arange(min(total, POSITIONS))[None] % size, axis=1)
    if total <= POSITIONS:
        return np.broadcast_to(np.arange(total), (len(source), total))
    random = np.random.default_rng(seed)
    return np.sort(random.integers(0, total, (len(source), POSITIONS)), axis=1)


def rows_of(layer: Layer, source: Array, positions: Array) -> Array:
    """What the chosen output positions see: float32 or float64 [groups, R, D], R = samples x positions."""
    if not layer.convolves:
        flat = source.reshape(len(source), -1, source.shape[-1])
        return np.take_along_axis(flat, positions[:, :, None], axis=1).reshape(1, -1, source.shape[-1])
    rank = source.ndim - 2
    begin, end, strides, dilations = _geometry(layer, rank)
    padded = np.pad(np.moveaxis(source, 1, -1), [(0, 0), *zip(begin, end, strict=True), (0, 0)])
    window = layer.weight.shape[2:]
    index: list[Array] = [np.arange(len(source)).reshape(-1, 1, *[1] * rank)]
    for axis, at in enumerate(np.unravel_index(positions, outputs_of(layer, source))):
        steps = np.arange(window[axis]) * dilations[axis]
        shape = [1] * rank
        shape[axis] = -1
        index.append(at.reshape(*positions.shape, *[1] * rank) * strides[axis] + steps.reshape(shape))
    groups, count = layer.groups, positions.size
    found = padded[tuple(index)].reshape(count, -1, groups, source.shape[1] // groups)
    return np.ascontiguousarray(found.transpose(2, 0, 1, 3)).reshape(groups, count, -1)


def values_at(layer: Layer, value: Array, positions: Array) -> Array:
    """A value of the shape of the layer's output at the chosen positions: [R, M].

    Raises:
        ZcError: it has another number of positions.
    """
    last = np.moveaxis(value, 1, -1) if layer.convolves else value
    flat = last.reshape(len(value), -1, last.shape[-1])
    if len(flat) != len(positions) or positions.max(initial=-1) >= flat.shape[1]:
        raise ZcError(f"node '{layer.node.name}': a value beside its output has another shape")
    return np.take_along_axis(flat, positions[:, :, None], axis=1).reshape(-1, last.shape[-1])
