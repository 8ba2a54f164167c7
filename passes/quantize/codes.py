"""The codes of a layer's weight as they stand in a graph, and as the matrix of the layer.

    codes -> DequantizeLinear(scale, zero) -> w -> Conv        codes of 4 bits may pass a Cast to int8 first
    codes -> Cast(float) -> Sub(zero) -> Mul(scale) -> w       the same in operators that any version has

Behind either, Reshape and Slice may give the weight its shape: codes that have scales by block are stored in blocks.
"""

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from zc.ir.graph import Array, Constant
from zc.passes.layers.layers import Layer
from zc.passes.quantize.rounding import Floats, Grid


@dataclass(frozen=True, eq=False)
class WeightCodes:
    """A weight that is stored as codes."""

    codes: Constant
    scale: Constant
    """[], [n] along `axis`, or as many dimensions as the codes: each 1, as long as theirs, or a block of theirs."""
    zero: Constant | None
    """As the scale."""
    axis: int
    """Of a scale [n]: the axis of the codes."""
    block: int = 0
    """Codes along `axis` that share a scale, where it has as many dimensions as the codes."""
    places: Array | None = None
    """For each weight, in its shape, where its code is among the stored ones, counted flat; None: in its own place."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight."""
        return tuple(int(d) for d in (self.codes if self.places is None else self.places).shape)

    @property
    def symmetric(self) -> bool:
        """Does code 0 stand for 0 everywhere?"""
        return self.zero is None or not self.zero.values.any()

    def turned(self) -> "WeightCodes":
        """The same for a weight of two dimensions that is stored with these the other way round."""
        places = np.arange(self.codes.size).reshape(tuple(self.codes.shape)).T
        return WeightCodes(self.codes, self.scale, self.zero, self.axis, self.block, places)

    def weight_codes(self) -> Array:
        """The codes in the shape of the weight, float64."""
        return self._in_places(self.codes.values.astype(np.float64))

    def spread(self, values: Array) -> Array:
        """Scales or zero points, one for each weight, in its shape, float64."""
        return self._in_places(self._each(values.astype(np.float64)))

    def _in_places(self, stored: Array) -> Array:
        return stored if self.places is None else stored.reshape(-1)[self.places]

    def _each(self, values: Array) -> Array:
        """One scale for each stored code."""
        shape = tuple(self.codes.shape)
        if self.block:
            repeated = np.repeat(values, self.block, axis=self.axis)
            return repeated[tuple(slice(size) for size in shape)]
        if values.ndim == 1 and len(shape) > 1:
            values = values.reshape([-1 if a == self.axis else 1 for a in range(len(shape))])
        return np.broadcast_to(values, shape)

    def values(self) -> Array:
        """What the codes stand for, float64, in the shape of the weight."""
        codes = self.weight_codes()
        if self.zero is not None:
            codes = codes - self.spread(self.zero.values)
        return np.asarray(codes * self.spread(self.scale.values))

    def nearest(self, weight: Array) -> Array:
        """The codes nearest to weights, in their shape, within `bounds`."""
        codes = np.rint(weight / self.spread(self.scale.values))
        if self.zero is not None:
            codes = codes + self.spread(self.zero.values)
        return np.asarray(np.clip(codes, *self.bounds()))

    def limit(self) -> float:
        """The largest magnitude of a code."""
        return max(-self.bounds()[0], self.bounds()[1])

    def bounds(self) -> tuple[float, float]:
        """Lowest and highest code. 4 bits may be stored in 8: no code has more bits than the largest has."""
        codes = self.codes.values
        info = ml_dtypes.iinfo(codes.dtype)  # type: ignore[no-untyped-call]
        if info.bits < 8:
            return float(info.min), float(info.max)
        largest = int(np.abs(codes.astype(np.int64)).max(initial=1))
        highest = 2.0 ** largest.bit_length() - 1
        return (0.0 if info.min == 0 else -highest), highest

    def grid(self, layer: Layer) -> Grid:
        """What the weights may become, in the places of the layer's matrix.

        Symmetric codes of an output with one scale stay within its largest now: whoever wrote them knows why it is no
        larger.
        """
        scale = layer.as_matrix(self.spread(self.scale.values))
        if self.symmetric and (scale == scale[:, :1]).all():
            high = np.abs(layer.as_matrix(self.weight_codes())).max(axis=1, keepdims=True, initial=0)
            return Grid(scale, np.zeros((1, 1, 1)), -high, high)
        zero = np.zeros((1, 1, 1)) if self.zero is None else layer.as_matrix(self.spread(self.zero.values))
        low, high = self.bounds()
        return Grid(scale, zero, np.full((1, 1, 1), low), np.full((1, 1, 1), high))

    def set_weight_codes(self, codes: Array) -> None:
        """Write codes in the shape of the weight."""
        self.codes.values = self._stored(codes, self.codes.values)

    def set_codes(self, layer: Layer, codes: Floats) -> None:
        """Write codes [groups, D, M]."""
        self.set_weight_codes(layer.from_matrix(codes))

    def set_scales(self, layer: Layer, scale: Floats) -> Array:
        """Write scales that broadcast against [groups, D, M]; what was written, over what was there before."""
        before = self.scale.values
        each = self._each(before.astype(np.float64))
        full = self._stored(layer.from_matrix(np.broadcast_to(scale, layer.matrix().shape)), each)
        if self.block:
            found = np.take(full, range(0, full.shape[self.axis], self.block), axis=self.axis)
        elif before.ndim == 1 and full.ndim > 1:
            found = np.moveaxis(full, self.axis, 0).reshape(full.shape[self.axis], -1)[:, 0]
        else:
            lone = tuple(slice(None) if size > 1 else slice(1) for size in (before.shape or (1,) * full.ndim))
            found = full[lone].reshape(before.shape)
        self.scale.values = np.asarray(found, before.dtype)
        return np.asarray(self.scale.values.astype(np.float64) / before)

    def _stored(self, weight: Array, before: Array) -> Array:
        """An array in the weight's shape, as it is stored; what fills up blocks stays as it was."""
        if self.places is None:
            return np.asarray(weight, before.dtype)
        flat = np.array(before).reshape(-1)
        flat[self.places] = weight.astype(before.dtype)
        return flat.reshape(before.shape)
