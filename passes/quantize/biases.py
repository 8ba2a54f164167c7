"""Biases of quantised operators: shift them, and follow new weight scales."""

import numpy as np

from zc.ir.graph import Array
from zc.passes.quantize.scheme import BIAS_LIMIT, bias_codes
from zc.passes.quantize.weights import Coded


def shift_bias(one: Coded, wanted: Array) -> Array:
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
