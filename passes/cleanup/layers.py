"""Conv, ConvTranspose, Gemm and MatMul with constant weights, read and rewritten by channel."""

from dataclasses import dataclass

import numpy as np

from zc.ir.graph import Array, Constant, Node, Tensor
from zc.ir.shapes import static_shape
from zc.passes.cleanup.operands import given, is_float, plain, rank_of
from zc.passes.cleanup.rules import Site

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Layer:
    """A node with a weight that may be rewritten. Channels are the output's; `axis` is where the output has them."""

    node: Node
    weight: Tensor
    channels: int
    axis: int

    @property
    def constant(self) -> Constant:
        """The weight, of a layer whose weight may be rewritten."""
        assert isinstance(self.weight, Constant)
        return self.weight

    def scaled_outputs(self, factor: Array) -> Array:
        """The weight with each output channel times its factor, rounded once."""
        w = self.constant.values
        factor = np.broadcast_to(factor, self.channels)
        match self.node.op:
            case "Conv":
                return _times(w, factor.reshape(-1, *[1] * (w.ndim - 1)))
            case "ConvTranspose":
                group = plain(self.node, "group", 1)
                grouped = w.reshape(group, w.shape[0] // group, *w.shape[1:])
                shape = (group, 1, -1, *[1] * (w.ndim - 2))
                return _times(grouped, factor.reshape(shape)).reshape(w.shape)
            case _:
                return _times(w, factor[:, None] if plain(self.node, "transB", 0) else factor)

    def bias(self, site: Site) -> Array | str:
        """The bias of each channel, in float64 (zero when there is none), or the reason why it cannot be rewritten."""
        tensor = given(self.node, 2)
        if tensor is None or self.node.op == "MatMul":
            return np.zeros(self.channels)
        array = site.fixed(tensor)
        if array is None:
            return "its bias is not constant"
        if array.size not in (1, self.channels) or (array.ndim and array.shape[-1] != array.size):
            return "its bias differs within a channel"
        beta = plain(self.node, "beta", 1.0) if self.node.op == "Gemm" else 1.0
        return np.broadcast_to(array.astype(np.float64).reshape(-1) * beta, self.channels)

    def scaled_inputs(self, factor: Array, dtype: type | None = None) -> Array:
        """The weight of a Conv, Gemm or MatMul with each input channel times its factor; in `dtype` or its own."""
        w = self.constant.values
        if self.node.op == "Conv":
            group = plain(self.node, "group", 1)
            factor = np.broadcast_to(factor, w.shape[1] * group).reshape(group, 1, -1, *[1] * (w.ndim - 2))
            return _times(w.reshape(group, -1, *w.shape[1:]), factor, dtype).reshape(w.shape)
        inputs = w.shape[1] if plain(self.node, "transB", 0) else w.shape[0]
        factor = np.broadcast_to(factor, inputs)
        return _times(w, factor if plain(self.node, "transB", 0) else factor[:, None], dtype)

    def response(self, offset: Array) -> Array:
        """What a constant offset of each input channel adds to each output channel (no padding), float64[channels]."""
        spread = self.scaled_inputs(offset, np.float64)
        if self.node.op == "Conv":
            return np.asarray(spread.reshape(self.channels, -1).sum(axis=1))
        alpha = plain(self.node, "alpha", 1.0)
        return np.asarray(spread.sum(axis=1 if plain(self.node, "transB", 0) else 0) * alpha)

    def write(self, site: Site, weight: Array | None, bias: Array | None) -> None:
        """Give the node new numbers, under the names of the old ones where they were its own."""
        dtype = np.dtype(self.weight.dtype)
        if weight is not None:
            self.constant.values = weight.astype(dtype, copy=False)
        if bias is None:
            return
        old = given(self.node, 2)
        values = bias.astype(dtype)
        if self.node.op == "MatMul":
            self.node.op = "Gemm"
        if self.node.op == "Gemm" and "beta" in self.node.attrs:
            self.node.attrs["beta"] = 1.0
        if old is not None and site.private(old, self.node) and isinstance(old, Constant):
            old.values = values
            return
        new = site.names.constant(f"{self.weight.name}_bias", values)
        if old is not None or len(self.node.inputs) > 2:
            self.node.inputs[2] = new
        else:
            self.node.inputs.append(new)


def _times(weight: Array, factor: Array, dtype: type | None = None) -> Array:
    """The product in float64, rounded once to `dtype` (the weight's by default), without a copy of the weight."""
    out = np.empty(weight.shape, dtype or weight.dtype)
    with np.errstate(all="ignore"):
        return np.multiply(weight, factor, out=out, dtype=np.float64, casting="unsafe")


def layer_of(node: Node, site: Site, *, rewritten: bool) -> Layer | str:
    """The node as a layer, or the reason why not. rewritten: its weight is to change, so it must be its own."""
    weight = node.inputs[1]
    if not is_float(weight):
        return f"its weight is {weight.dtype}: rewriting would round it anew"
    if rewritten:
        if not isinstance(weight, Constant) or site.fixed(weight) is None:
            return "its weight is not constant, or a caller may replace it"
        if not site.private(weight, node):
            return f"its weight '{weight.name}' is shared with another node"
    shape = static_shape(weight)
    rank = rank_of(node.outputs[0])
    if shape is None or rank is None:
        return "the shape of its weight or the rank of its output is unknown"
    match node.op:
        case "Conv":
            return Layer(node, weight, shape[0], 1)
        case "ConvTranspose":
            return Layer(node, weight, shape[1] * plain(node, "group", 1), 1)
        case "Gemm":
            return Layer(node, weight, shape[0] if plain(node, "transB", 0) else shape[1], 1)
    if len(shape) != 2 or rank < 2:
        return "its weight is not a matrix"
    return Layer(node, weight, shape[1], rank - 1)


def takes_bias(node: Node) -> bool:
    """Can the node add a bias, if need be as a Gemm?"""
    return node.op != "MatMul" or (rank_of(node.inputs[0]) == 2 and rank_of(node.inputs[1]) == 2)
