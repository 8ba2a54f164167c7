"""Layers whose weight is stored as codes, to be refitted like others: what is set is rounded to codes of a new scale.

codes -> DequantizeLinear(scale) -> w -> Conv        bias codes -> DequantizeLinear(input scale * scale) -> b -> Conv
"""

from dataclasses import dataclass

import numpy as np

from zc.ir.edit import Names
from zc.ir.graph import Array, Constant, Node
from zc.ir.model import Model
from zc.passes.layers.layers import Layer, find_layers, followed_by_bias
from zc.passes.quantize.codes import WeightCodes
from zc.passes.quantize.find_codes import input_scale, weight_codes
from zc.passes.quantize.scheme import bias_codes, overflow_room

_OPS = frozenset({"Conv", "Gemm", "MatMul"})


@dataclass(eq=False)
class CodedLayer(Layer):
    """A layer with symmetric codes as its weight; `weight` holds what they stand for and is in no graph."""

    codes: WeightCodes
    coded_bias: WeightCodes | None
    """Codes of a bias; one in float is `bias`."""

    @property
    def may_shift(self) -> bool:
        """A bias that was not there would keep the layer from running in integers."""
        return self.bias is not None or self.coded_bias is not None

    def set_matrix(self, matrix: Array) -> None:
        """Round to the nearest codes, with the finest scales that reach all weights and let no int32 overflow."""
        if np.array_equal(matrix, self.matrix()):
            return
        offset, values = self.offset(), self.from_matrix(matrix)
        before = self.codes.scale.values
        axes = tuple(a for a in range(values.ndim) if before.size == 1 or a != self.codes.axis)
        scale = np.abs(values).max(axis=axes) / self.codes.limit()
        source = input_scale(self.node)
        if source is not None:
            room = overflow_room(values, 0 if self.convolves or self.turned else 1, offset, source)
            scale = np.maximum(scale, room if scale.ndim else room.max())
        scale = np.where(scale > 0, scale, before.reshape(scale.shape)).reshape(before.shape)
        self.codes.scale.values = scale.astype(before.dtype)
        self.codes.set_weight_codes(self.codes.nearest(values))
        self.weight.values = self.codes.values().astype(np.float32)
        if self.coded_bias is not None:
            ratio = self.codes.scale.values.astype(np.float64) / before
            scales = self.coded_bias.scale
            scales.values = (scales.values * ratio.reshape(-1)).reshape(scales.shape).astype(scales.dtype)
            self._write_bias(self.coded_bias, offset)

    def offset(self) -> Array:
        """See `Layer.offset`."""
        return super().offset() if self.coded_bias is None else self.coded_bias.values().reshape(-1)

    def set_offset(self, offset: Array, names: Names) -> None:
        """See `Layer.set_offset`."""
        if self.coded_bias is not None:
            self._write_bias(self.coded_bias, offset)
        elif self.bias is not None:
            super().set_offset(offset, names)

    def _write_bias(self, bias: WeightCodes, offset: Array) -> None:
        codes = bias_codes(offset, np.broadcast_to(bias.scale.values, offset.shape))
        bias.codes.values = codes.reshape(bias.codes.values.shape).astype(bias.codes.values.dtype)


def find_all_layers(model: Model) -> tuple[list[Layer], list[tuple[Node, str]]]:
    """The layers of the main graph in its order, those with codes as well, and the nodes that are none, and why."""
    plain, refused = find_layers(model)
    by_node = {id(one.node): one for one in plain}
    left = []
    for node in model.nodes():
        if id(node) in by_node or not node.standard or node.op not in _OPS:
            continue
        one = coded_layer(node, model)
        if isinstance(one, Layer):
            by_node[id(node)] = one
        elif one is not None:
            left.append((node, one))
    told = {id(node) for node, _ in left} | by_node.keys()
    layers = [by_node[id(node)] for node in model.nodes() if id(node) in by_node]
    return layers, [*left, *((node, why) for node, why in refused if id(node) not in told)]


def coded_layer(node: Node, model: Model) -> CodedLayer | str | None:
    """The layer of a node, or why it is none; None where its weight is no codes at all."""
    fed = {id(t) for t in (*model.graph.inputs, *model.graph.outputs)}
    codes = weight_codes(node)
    if isinstance(codes, str):
        return codes if "shared" in codes else None
    if codes.places is not None or codes.block or not codes.symmetric:
        return "its codes have a zero point" if not codes.symmetric else "its codes have a scale for each block"
    if len(codes.shape) != 2 and node.op != "Conv":
        return "its weight is no plain matrix"
    if id(codes.codes) in fed:
        return f"its weight '{codes.codes.name}' is a graph input"
    loose = Constant(f"{codes.codes.name}_values", codes.values().astype(np.float32))
    channels = Layer(node, loose, None, node.outputs[0]).channels
    if node.op == "MatMul":
        bias, end = followed_by_bias(node, channels, fed)
        return CodedLayer(node, loose, bias, end, codes, None)
    third = node.inputs[2] if len(node.inputs) > 2 and not node.inputs[2].is_empty() else None
    if third is None or isinstance(third, Constant):
        own = third is None or (id(third) not in fed and len(third.outputs) == 1 and third.size == channels)
        return CodedLayer(node, loose, third, node.outputs[0], codes, None) if own else "its bias is shared"
    stored = weight_codes(node, 2)
    if isinstance(stored, str) or not stored.symmetric or stored.scale.size not in (1, channels):
        return "its bias is computed, shared, or of another form"
    if stored.scale.size != codes.scale.size and stored.scale.size == 1:
        return "its bias has one scale where its weight has many"
    return CodedLayer(node, loose, None, node.outputs[0], codes, stored)
