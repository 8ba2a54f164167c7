"""The codes of a layer's weight as they stand in a graph, and as the matrix of the layer.

codes -> DequantizeLinear(scale, zero) -> w -> Conv        codes of 4 bits may pass a Cast to int8 first
"""

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from zc.ir.graph import Array, Constant, Node, Tensor, attribute
from zc.passes.layers.layers import Layer
from zc.passes.quantize.rounding import Floats, Grid

PASSED = ("Cast", "Identity")


@dataclass(frozen=True, eq=False)
class WeightCodes:
    """A weight behind a DequantizeLinear."""

    codes: Constant
    scale: Constant
    zero: Constant | None
    axis: int | None
    """Along which scales differ; None: one scale."""
    block: int
    """Weights along `axis` that share a scale; 0: one index along `axis` has one."""

    @property
    def symmetric(self) -> bool:
        """Does code 0 stand for 0 everywhere?"""
        return self.zero is None or not self.zero.values.any()

    def spread(self, values: Array) -> Array:
        """Scales or zero points, broadcast to the shape of the codes."""
        shape = tuple(self.codes.shape)
        if self.axis is None or values.size == 1:
            return np.broadcast_to(values.reshape((1,) * len(shape)), shape)
        if self.block:
            repeated = np.repeat(values, self.block, axis=self.axis)
            return repeated[tuple(slice(size) for size in shape)]
        sizes = [-1 if a == self.axis else 1 for a in range(len(shape))]
        return np.broadcast_to(values.reshape(sizes), shape)

    def values(self) -> Array:
        """What the codes stand for, float64."""
        codes = self.codes.values.astype(np.float64)
        if self.zero is not None:
            codes = codes - self.spread(self.zero.values.astype(np.float64))
        return np.asarray(codes * self.spread(self.scale.values.astype(np.float64)))

    def nearest(self, weight: Array) -> Array:
        """The codes nearest to weights of the same shape, within `bounds`."""
        codes = np.rint(weight / self.spread(self.scale.values.astype(np.float64)))
        if self.zero is not None:
            codes = codes + self.spread(self.zero.values.astype(np.float64))
        return np.asarray(np.clip(codes, *self.bounds()).astype(self.codes.values.dtype))

    def limit(self) -> float:
        """The largest magnitude of a code."""
        return max(-self.bounds()[0], self.bounds()[1])

    def bounds(self) -> tuple[float, float]:
        """Lowest and highest code. 4 bits may be stored in 8: no code has more bits than the largest has."""
        codes = self.codes.values
        info = ml_dtypes.iinfo(codes.dtype)  # type: ignore[no-untyped-call]
        if info.min == 0:
            return 0.0, 2.0 ** int(codes.max(initial=1)).bit_length() - 1
        if info.bits < 8:
            return float(info.min), float(info.max)
        largest = int(np.abs(codes.astype(np.int64)).max(initial=1))
        return -(2.0 ** largest.bit_length() - 1), 2.0 ** largest.bit_length() - 1

    def grid(self, layer: Layer) -> Grid:
        """What the weights may become, in the places of the layer's matrix.

        Symmetric codes stay within the largest that their output has now: whoever wrote them knows why it is no larger.
        """
        codes = self.codes.values.astype(np.float64)
        scale = layer.as_matrix(self.spread(self.scale.values.astype(np.float64)))
        if self.symmetric and not self.block:
            high = np.abs(layer.as_matrix(codes)).max(axis=1, keepdims=True, initial=0)
            return Grid(scale, np.zeros((1, 1, 1)), -high, high)
        zero = np.zeros((1, 1, 1))
        if self.zero is not None:
            zero = layer.as_matrix(self.spread(self.zero.values.astype(np.float64)))
        low, high = self.bounds()
        return Grid(scale, zero, np.full((1, 1, 1), low), np.full((1, 1, 1), high))

    def set_codes(self, layer: Layer, codes: Floats) -> None:
        """Write codes [groups, D, M]."""
        self.codes.values = layer.from_matrix(codes).astype(self.codes.values.dtype)

    def set_scales(self, layer: Layer, scale: Floats) -> Array:
        """Write scales that broadcast against [groups, D, M]; what was written, over what was there before."""
        before = self.scale.values
        full = layer.from_matrix(np.broadcast_to(scale, layer.matrix().shape))
        if self.axis is None:
            found = full.reshape(-1)[:1].reshape(before.shape)
        elif self.block:
            found = np.take(full, range(0, full.shape[self.axis], self.block), axis=self.axis)
        else:
            found = np.moveaxis(full, self.axis, 0).reshape(full.shape[self.axis], -1)[:, 0]
        self.scale.values = np.asarray(found, before.dtype)
        return np.asarray(self.scale.values.astype(np.float64) / before)


def stored_codes(node: Node, position: int = 1) -> Constant | None:
    """The codes that an operator reads as its weight through a DequantizeLinear; None where it reads no such weight."""
    maker = _maker(node.inputs[position]) if len(node.inputs) > position else None
    return _stored(maker.inputs[0]) if maker is not None and maker.op == "DequantizeLinear" else None


def weight_codes(node: Node, position: int = 1) -> WeightCodes | str:
    """The codes that an operator reads as its weight, or the reason why they cannot be chosen anew."""
    if node.op == "MatMulInteger":
        return _integer_codes(node)
    real = node.inputs[position]
    maker = _maker(real)
    if maker is None or maker.op != "DequantizeLinear":
        return "its weight is not behind a DequantizeLinear"
    if len(real.outputs) > 1:
        return f"its weight '{real.name}' is shared"
    stored = _stored(maker.inputs[0])
    scale = _stored(maker.inputs[1])
    zero = _stored(maker.inputs[2]) if len(maker.inputs) > 2 and maker.inputs[2].name else None
    if stored is None or scale is None or (zero is None and len(maker.inputs) > 2 and maker.inputs[2].name):
        return "its codes are no constants"
    if len(stored.outputs) > 1 or len(scale.outputs) > 1:
        return f"its codes '{stored.name}' are shared"
    rank = len(stored.shape)
    axis = None if scale.size == 1 and not scale.shape else int(attribute(maker, "axis", 1)) % rank
    return WeightCodes(stored, scale, zero, axis, int(attribute(maker, "block_size", 0)))


def loaded_codes(codes: Constant) -> Tensor:
    """The value that holds the codes once a model is loaded: behind a Cast, if there is one."""
    first = codes.outputs[0] if codes.outputs else None
    return first.outputs[0] if first is not None and first.op == "Cast" else codes


def _integer_codes(node: Node) -> WeightCodes | str:
    """Of a product whose scales stand behind it: MatMulInteger -> Cast -> Mul(input scale * weight scale)."""
    stored = _stored(node.inputs[1])
    scaled = node.outputs[0].outputs[0].outputs[0].outputs[0]
    both = next((m for t in scaled.inputs if (m := _maker(t)) is not None and m.op == "Mul"), None)
    scale = None if both is None else next((t for t in both.inputs if isinstance(t, Constant)), None)
    if stored is None or scale is None:
        return "its codes are no constants"
    if len(stored.outputs) > 1 or len(scale.outputs) > 1:
        return f"its codes '{stored.name}' are shared"
    return WeightCodes(stored, scale, None, 1 if scale.shape else None, 0)


def what_is_read(node: Node) -> Tensor:
    """The value that a quantised operator reads: before its codes where they are made at run time."""
    maker = _maker(node.inputs[0])
    if maker is not None and maker.op == "DynamicQuantizeLinear":
        return maker.inputs[0]
    return node.inputs[0]


def input_scale(node: Node) -> float | None:
    """The scale of the codes that an operator reads, or None where it reads floats."""
    maker = _maker(node.inputs[0])
    if maker is None or maker.op != "DequantizeLinear" or not isinstance(maker.inputs[1], Constant):
        return None
    return float(maker.inputs[1].values.reshape(-1)[0])


def _maker(tensor: Tensor) -> Node | None:
    node = tensor.inputs[0] if len(tensor.inputs) == 1 else None
    return node if isinstance(node, Node) else None


def _stored(tensor: Tensor) -> Constant | None:
    while (node := _maker(tensor)) is not None and node.op in PASSED:
        tensor = node.inputs[0]
    return tensor if isinstance(tensor, Constant) else None
