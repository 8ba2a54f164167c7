"""Biases of quantised operators, and of those in float behind them: shift them, and follow new weight scales."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zc.ir.edit import Names
from zc.ir.graph import Array, Constant, Node, Tensor
from zc.ir.model import Model
from zc.passes.layers.layers import find_layers
from zc.passes.quantize.scheme import BIAS_LIMIT, bias_codes
from zc.passes.quantize.weights import Coded

ROUNDING = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})


@dataclass(frozen=True, eq=False)
class Kept:
    """A layer that stayed float behind quantised ones: it reads what they spoiled, and its bias can make up for it."""

    node: Node
    output: Tensor
    """What it puts out, the bias included."""
    channel_axis: int
    bias: Constant
    bias_scales: None = None

    @property
    def float_name(self) -> str:
        """The name of its output in the float model."""
        return self.output.name


def kept_layers(model: Model, coded: Sequence[Coded]) -> list[Kept]:
    """The layers of the main graph in float that read what is quantised, directly or not; each gets a bias.

    Those that cannot have one of their own are left out. `model` is sorted.
    """
    spoiled: set[int] = set()
    for node in model.graph.nodes:
        if node.op in ROUNDING or any(id(t) in spoiled for t in node.inputs):
            spoiled.update(id(t) for t in node.outputs)
    integer = {id(one.node) for one in coded}
    names, found = Names(model.graph), []
    for layer in find_layers(model)[0]:
        if id(layer.node) in integer or id(layer.source) not in spoiled or not layer.may_shift:
            continue
        if layer.bias is None:
            layer.set_offset(layer.offset(), names)
        assert layer.bias is not None
        found.append(Kept(layer.node, layer.end, 1 if layer.convolves else -1, layer.bias))
    return found


def shift_bias(one: Coded | Kept, wanted: Array) -> Array:
    """Add to the bias of an operator that has one, by channel; what was really added, float32[channels]."""
    assert one.bias is not None
    before = one.bias.values
    if one.bias_scales is None:
        one.bias.values = before + wanted.astype(np.float32).reshape(before.shape)
        return wanted.astype(np.float32)
    scales = one.bias_scales.values.astype(np.float64)
    after = np.clip(before + np.rint(wanted / scales), -BIAS_LIMIT, BIAS_LIMIT).astype(np.int32)
    one.bias.values = after
    return np.asarray((after.astype(np.int64) - before) * scales, np.float32)


def bias_values(one: Coded) -> Array | float:
    """What the bias of an operator stands for, float64[channels]; 0 where it has none."""
    if one.bias is None:
        return 0.0
    values = one.bias.values.astype(np.float64).reshape(-1)
    return values if one.bias_scales is None else values * one.bias_scales.values.astype(np.float64)


def rescale_bias(one: Coded, ratio: Array) -> None:
    """Keep what the codes of a bias stand for after the weight scales were multiplied by `ratio`, by channel."""
    if one.bias is None or one.bias_scales is None:
        return
    before = one.bias_scales.values.astype(np.float64)
    after = (before * ratio).astype(np.float32)
    one.bias.values = bias_codes(one.bias.values * before, after)
    one.bias_scales.values = after
