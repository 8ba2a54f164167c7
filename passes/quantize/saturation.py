"""Saturation: which weights are exact on processors without an int8 dot product, and scales with which all are.

Processors with AVX2 or AVX-512 but without VNNI multiply uint8 activations with int8 weights and add two neighbouring
products in 16 bits, where the sum saturates (`vpmaddubsw`). It cannot as long as, for each pair of weights,

    255 * (positive ones) <= 32767  and  255 * (magnitudes of negative ones) <= 32768,

that is, both are at most 128. Pairs are elements 2i and 2i+1 along the reduction, in the order in which kernels pack
it: the rows of a Gemm's or MatMul's weight; for a convolution the positions of the kernel, and within each position the
channels of one group (a lone last element is a pair with zero). Depthwise convolutions widen to 32 bits and are always
exact. All of this was seen by running onnxruntime 1.32 on an emulated processor with AVX2 and comparing every bit.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from zc.ir.graph import Array, Node, attribute
from zc.passes.quantize.scheme import Floats

MOST: Final = 32767 // 255
"""What the codes of one sign in a pair may sum up to."""


def reduction(node: Node, values: Array) -> Array | None:
    """A Conv's, Gemm's or MatMul's weights (or codes) as [channels, elements of the reduction in the kernels' order].

    None for depthwise convolutions, whose products are never added in pairs.
    """
    if node.op == "Conv":
        channels, depth = values.shape[:2]
        if depth == 1 and attribute(node, "group", 1) == channels > 1:
            return None
        return np.moveaxis(values, 1, -1).reshape(channels, -1)
    return values if attribute(node, "transB", 0) else values.T


def unreduced(node: Node, rows: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `reduction`: weights of that shape."""
    if node.op == "Conv":
        return np.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1)
    return rows if attribute(node, "transB", 0) else rows.T


def pair_sums(rows: Array) -> tuple[Floats, Floats]:
    """The sums of the positive and of the negative elements (as magnitudes) of each pair: [channels, pairs] each."""
    even = np.pad(rows.astype(np.float64), ((0, 0), (0, rows.shape[1] % 2)))
    pairs = even.reshape(len(rows), -1, 2)
    return np.maximum(pairs, 0).sum(axis=2), np.maximum(-pairs, 0).sum(axis=2)


def saturating(rows: Array) -> npt.NDArray[np.bool_]:
    """By channel: could a pair of products saturate 16 bits, with activations of any codes 0..255?

    rows: codes as `reduction` lays them out. False is a certificate: the products are exact on every processor.
    """
    up, down = pair_sums(rows)
    return np.asarray((up > MOST).any(axis=1) | (down > MOST).any(axis=1))


def certified(node: Node, codes: Array) -> Array:
    """Codes of a weight that are certified: what a pair has too much is taken off the larger of the two."""
    rows = reduction(node, codes)
    if rows is None or not could_saturate(node, codes):
        return codes
    even = np.pad(rows.astype(np.int64), ((0, 0), (0, rows.shape[1] % 2))).reshape(len(rows), -1, 2)
    for sign in (1, -1):
        same = np.maximum(sign * even, 0)
        excess = np.maximum(same.sum(axis=2, keepdims=True) - MOST, 0)
        larger = np.arange(2) == same.argmax(axis=2)[:, :, None]
        even = even - sign * excess * larger
    exact = even.reshape(len(rows), -1)[:, : rows.shape[1]].astype(codes.dtype)
    return np.ascontiguousarray(unreduced(node, exact, codes.shape))


def could_saturate(node: Node, codes: Array) -> bool:
    """Could a pair of products of any channel, in the kernel that this node gets?"""
    rows = reduction(node, codes)
    return rows is not None and bool(saturating(rows).any())


def exact_scales(rows: Array, scales: Array) -> npt.NDArray[np.float32]:
    """Scales, none below those given, with which the nearest codes of the weights are certified.

    rows: weights as `reduction` lays them out. scales: float32[channels], or [1] for all. Only the channels that fail
    are raised, and only as far as they must be: at most to 7 bits.
    """
    each = np.broadcast_to(scales, (len(rows),)).astype(np.float64)
    failing = saturating(np.rint(rows / each[:, None]))
    if not failing.any():
        return scales.astype(np.float32)
    up, down = pair_sums(rows[failing])
    # Rounding adds one half to each of two, so this is enough; less may be: codes shrink steadily as the scale grows.
    high = np.maximum(up.max(axis=1), down.max(axis=1)) / (MOST - 1)
    low = each[failing]
    for _ in range(20):
        middle = (low + high) / 2
        fails = saturating(np.rint(rows[failing] / middle[:, None]))
        low, high = np.where(fails, middle, low), np.where(fails, high, middle)
    each[failing] = np.nextafter(high.astype(np.float32), np.float32(np.inf))
    return each.astype(np.float32) if scales.size > 1 else each.max(keepdims=True).astype(np.float32)
