"""Choose the codes of one layer anew, from what it reads and what it should say."""

from dataclasses import dataclass

import numpy as np

from zc.ir.graph import Array
from zc.passes.layers.layers import Layer
from zc.passes.layers.normal import FLOOR, Normal, choose_ridge
from zc.passes.quantize.biases import rescale_bias
from zc.passes.quantize.codes import WeightCodes
from zc.passes.quantize.find_codes import input_scale
from zc.passes.quantize.rounding import Floats, Grid, best_clips, second_order
from zc.passes.quantize.saturation import certified
from zc.passes.quantize.scheme import BIAS_LIMIT, overflow_room
from zc.passes.quantize.weights import Coded

WIDEST = 2400
"""Inputs of an output, its window included, that are rounded together; those of a wider layer in several parts."""
DAMPING = 0.01
FEW_BITS = 31
"""Largest code up to which it may pay to clip weights."""


@dataclass(frozen=True)
class Parts:
    """A layer in parts that are rounded each by itself: covariances of more inputs would not fit into memory."""

    count: int
    size: int
    """Inputs of a part; the last is filled up."""

    @classmethod
    def of(cls, layer: Layer) -> "Parts":
        """The parts of a layer: one, unless it is wide."""
        count = max(-(-layer.inputs // WIDEST), 1)
        return cls(count, -(-layer.inputs // count))

    def split(self, array: Array, axis: int, fill: float = 0.0) -> Array:
        """[groups, ...] as [groups * count, ...]: `axis`, of all inputs, holds those of a part."""
        if self.count == 1:
            return array
        room = [(0, 0)] * array.ndim
        room[axis] = (0, self.count * self.size - array.shape[axis])
        full = np.pad(array, room, constant_values=fill)
        shape = (*full.shape[:axis], self.count, self.size, *full.shape[axis + 1 :])
        return np.moveaxis(full.reshape(shape), axis, 1).reshape(-1, *shape[1:axis], *shape[axis + 1 :])

    def join(self, matrix: Array, inputs: int) -> Array:
        """The inverse of `split` for a matrix [groups * count, size, M]."""
        return matrix.reshape(-1, self.count * self.size, matrix.shape[2])[:, :inputs]


def recode(
    one: Coded, layer: Layer, codes: WeightCodes, train: Normal, held: Normal, free: bool, damping: float = DAMPING
) -> None:
    """Write the codes of a layer's weight, and with few bits its scales.

    train, held: what the layer reads and should say, in the parts of `Parts.of`. free: its bias makes up for means.
    damping: added to the variances of the inputs, in units of their mean, before weights are rounded by them.
    """
    parts, total, old = Parts.of(layer), train.merged(held), layer.matrix()
    inputs = old.shape[1]
    aim = parts.split(old, 1)
    if total.cross is not None:
        ridge = choose_ridge(train, held, old, free)
        if np.isfinite(ridge):
            aim, damping = total.solve(old, ridge, free)[:, :-1], max(ridge, damping)
    moments = _damped(total.moments(free), damping)
    whole = codes.grid(layer)
    # The taps of a transposed convolution are outputs here, but share the scale of their channel.
    own = whole.one_scale_each and codes.scale.size > 1 and not layer.spreads
    clips = own and codes.symmetric and codes.limit() <= FEW_BITS
    grid = _in_parts(whole, parts, old.shape)
    if not clips:
        chosen = second_order(aim, moments, grid)
    else:
        grid = _widened(grid, aim, parts)
        least = parts.split(np.broadcast_to(_least_scales(one, layer), old.shape), 1)
        chosen, shares = best_clips(aim, moments, grid, least, parts.count)
        scale = parts.join(np.broadcast_to(grid.scale * shares, aim.shape), inputs)
        rescale_bias(one, codes.set_scales(layer, scale))
    chosen = parts.join(chosen, inputs)
    codes.set_codes(layer, np.where(_overflows(one, layer, chosen), layer.as_matrix(codes.weight_codes()), chosen))
    if one.exact_pairs:
        codes.codes.values = certified(one.node, codes.codes.values)


def _damped(moments: Floats, damping: float) -> Floats:
    level = np.trace(moments, axis1=1, axis2=2)[:, None, None] / moments.shape[1]
    return np.asarray(moments + (damping * level + FLOOR * level.mean() + 1e-12) * np.eye(moments.shape[1]))


def _in_parts(grid: Grid, parts: Parts, shape: tuple[int, ...]) -> Grid:
    def split(field: Floats, fill: float = 0.0) -> Floats:
        return parts.split(np.broadcast_to(field, shape), 1, fill)

    return Grid(split(grid.scale, 1), split(grid.zero), split(grid.lowest), split(grid.highest))


def _widened(grid: Grid, aim: Floats, parts: Parts) -> Grid:
    """The grid whose highest code stands for the largest weight that is aimed at, of each output."""
    largest = np.abs(aim).max(axis=1, keepdims=True)
    largest = largest.reshape(-1, parts.count, 1, aim.shape[2]).max(axis=1).repeat(parts.count, axis=0)
    high = np.maximum(grid.highest, 1)
    scale = np.where((grid.highest > 0) & (largest > 0), largest / high, grid.scale)
    return Grid(scale, grid.zero, grid.lowest, grid.highest)


def _least_scales(one: Coded, layer: Layer) -> Floats:
    """Scales below which a bias or an accumulator could overflow int32, for each output, as the layer's matrix."""
    source = input_scale(one.node)
    if source is None:
        return np.zeros((layer.groups, 1, layer.channels // layer.groups))
    axis = 0 if layer.convolves or layer.turned else 1
    room = overflow_room(layer.weight.values, axis, layer.offset(), source)
    return room.reshape(layer.groups, 1, -1)


def _overflows(one: Coded, layer: Layer, codes: Floats) -> Floats:
    """For each output, [groups, 1, M]: could an int32 accumulator overflow with these codes?"""
    need = 255 * np.abs(codes).sum(axis=1, keepdims=True)
    if one.bias is not None and one.bias_scales is not None:
        need = need + np.abs(one.bias.values.astype(np.float64)).reshape(layer.groups, 1, -1)
    return np.asarray(need > BIAS_LIMIT)
