"""Recognising convolutions and matrix products with constant weights, in Q/DQ form and as QLinear operators."""

from dataclasses import replace
from typing import Literal, cast

import numpy as np

from zc.ir.graph import Array, Node, Tensor, attribute, describe
from zc.kernels import rules
from zc.runtime.ops import BatchedProduct, Coding, Convolution, Op, Product, Weights
from zc.runtime.quantum import Declined, Scope, check_scale, coding, given, maker, pair, read, written

F32 = np.float32

BEFORE_CODES = frozenset({"QuantizeLinear", "Relu", "Clip"})
"""What reads an output that becomes codes."""


def conv(scope: Scope, node: Node) -> Op:
    """DQ -> Conv -> [Relu, Clip] -> Q."""
    source, x = read(scope, given(node, 0))
    target, y, passed = written(scope, node.outputs[0])
    weights = _weight(scope, given(node, 1), axis=0)
    weights = replace(weights, bias=_bias(scope, given(node, 2), x, weights.scale))
    return _convolution(node, (node, *passed), source, target, x, y, weights)


def qlinear_conv(scope: Scope, node: Node) -> Op:
    """QLinearConv(x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias)."""
    if attribute(node, "channels_last", 0):
        raise Declined("it is channels last")
    x, y = coding(scope, node, node.inputs[1], node.inputs[2]), coding(scope, node, node.inputs[6], node.inputs[7])
    weights = _constants(scope, node, node.inputs[3], node.inputs[4], node.inputs[5], axis=0)
    bias = scope.constant(given(node, 8))
    if given(node, 8) is not None and bias is None:
        raise Declined("its bias is not constant")
    weights = weights if bias is None else replace(weights, bias=bias)
    return _convolution(node, (node,), node.inputs[0], node.outputs[0], x, y, weights)


def _convolution(
    node: Node, nodes: tuple[Node, ...], source: Tensor, target: Tensor, x: Coding, y: Coding, weights: Weights
) -> Op:
    codes = weights.codes
    if codes.ndim not in (3, 4):
        raise Declined(f"it has {codes.ndim - 2} spatial dimensions")
    if codes.ndim == 3:
        weights = replace(weights, codes=codes[:, :, None])
    if x.signed != y.signed:
        raise Declined("it reads and writes codes of different types")
    _check_range(weights, 0, x, y)
    pads, same = padding(node)
    return Convolution(
        nodes,
        (source.name,),
        (target.name,),
        x=x,
        y=y,
        weights=weights,
        strides=pair(attribute(node, "strides", None), 1),
        pads=pads,
        dilations=pair(attribute(node, "dilations", None), 1),
        group=int(attribute(node, "group", 1)),
        same=same,
    )


Same = Literal["lower", "upper"] | None


def padding(node: Node) -> tuple[tuple[int, int, int, int] | None, Same]:
    """(top, left, bottom, right), or how to pad to the same size ("lower", "upper")."""
    auto = attribute(node, "auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        return None, "upper" if auto == "SAME_UPPER" else "lower"
    pads = list(attribute(node, "pads", None) or [0, 0, 0, 0])
    if auto == "VALID":
        pads = [0] * len(pads)
    if len(pads) == 2:
        pads = [0, pads[0], 0, pads[1]]
    if len(pads) != 4 or min(pads) < 0:
        raise Declined(f"its pads are {pads}")
    return cast(tuple[int, int, int, int], tuple(int(p) for p in pads)), None


def gemm(scope: Scope, node: Node) -> Op:
    """DQ -> Gemm -> Q, or without Q: then the result is float."""
    if float(attribute(node, "alpha", 1.0)) != 1 or (given(node, 2) and float(attribute(node, "beta", 1.0)) != 1):
        raise Declined("alpha or beta is not 1")
    if int(attribute(node, "transA", 0)):
        raise Declined("its first factor is transposed")
    source, x = read(scope, given(node, 0))
    turned = bool(attribute(node, "transB", 0))
    weights = _weight(scope, given(node, 1), axis=0 if turned else 1)
    rounded = any(r.op in BEFORE_CODES for r in node.outputs[0].outputs)
    bias = _bias(scope, given(node, 2), x, weights.scale, rounded=rounded)
    return _product(scope, node, source, x, _matrix(weights, turned, bias))


def matmul(scope: Scope, node: Node) -> Op:
    """DQ -> MatMul -> Q, or without Q: then the result is float. The second factor is computed or a constant matrix."""
    source, x = read(scope, given(node, 0))
    if _is_computed(scope, given(node, 1)):
        return _batched(scope, node, source, x)
    _check_alone(node)
    return _product(scope, node, source, x, _matrix(_weight(scope, given(node, 1), axis=1)))


def _check_alone(node: Node) -> None:
    """Declined where onnxruntime makes one float operator of a MatMul and what follows, before it looks for codes."""
    found = next((r for r in node.outputs[0].outputs if r.op == "Add"), None)
    if found is not None:
        raise Declined(f"'{node.outputs[0].name}' is read in float by Add '{describe(found)}'")


def _is_computed(scope: Scope, tensor: Tensor | None) -> bool:
    """Is a factor read from codes that are not constant?"""
    node = maker(tensor, "DequantizeLinear")
    return node is not None and scope.constant(node.inputs[0]) is None


def _batched(scope: Scope, node: Node, left: Tensor, a: Coding) -> Op:
    _check_alone(node)
    right, b = read(scope, given(node, 1))
    names = (left.name, right.name)
    if any(r.op in BEFORE_CODES for r in node.outputs[0].outputs):
        target, y, passed = written(scope, node.outputs[0])
        return BatchedProduct((node, *passed), names, (target.name,), a=a, b=b, y=_fitting(y, a))
    return BatchedProduct((node,), names, (node.outputs[0].name,), a=a, b=b, y=None)


def _fitting(y: Coding, a: Coding) -> Coding:
    if y.signed != a.signed:
        raise Declined("it reads and writes codes of different types")
    return y


def _product(scope: Scope, node: Node, source: Tensor, x: Coding, weights: Weights) -> Op:
    readers = list(node.outputs[0].outputs)
    if any(r.op in BEFORE_CODES for r in readers):
        target, y, passed = written(scope, node.outputs[0])
        _check_range(weights, 1, x, y)
        return Product((node, *passed), (source.name,), (target.name,), x=x, y=y, weights=weights)
    return Product((node,), (source.name,), (node.outputs[0].name,), x=x, y=None, weights=weights)


def _matrix(weights: Weights, turned: bool = False, bias: Array | None = None) -> Weights:
    codes = weights.codes
    if codes.ndim != 2:
        raise Declined(f"its weight has {codes.ndim} dimensions")
    return replace(weights, codes=codes.T if turned else codes, bias=weights.bias if bias is None else bias)


def qgemm(scope: Scope, node: Node) -> Op:
    """QGemm(a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero)."""
    if float(attribute(node, "alpha", 1.0)) != 1 or int(attribute(node, "transA", 0)):
        raise Declined("alpha is not 1, or its first factor is transposed")
    x = coding(scope, node, node.inputs[1], node.inputs[2])
    turned = bool(attribute(node, "transB", 0))
    weights = _constants(scope, node, node.inputs[3], node.inputs[4], node.inputs[5], axis=0 if turned else 1)
    bias = scope.constant(given(node, 6))
    if given(node, 6) is not None and bias is None:
        raise Declined("its bias is not constant")
    if bias is not None:
        bias = np.broadcast_to(bias, (1, len(weights.scale))).reshape(-1)
    y = coding(scope, node, node.inputs[7], given(node, 8)) if given(node, 7) else None
    weights = _matrix(weights, turned, bias)
    if y is not None:
        _check_range(weights, 1, x, y)
    return Product((node,), (node.inputs[0].name,), (node.outputs[0].name,), x=x, y=y, weights=weights)


def qlinear_matmul(scope: Scope, node: Node) -> Op:
    """QLinearMatMul(a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero)."""
    x, y = coding(scope, node, node.inputs[1], node.inputs[2]), coding(scope, node, node.inputs[6], node.inputs[7])
    if scope.constant(node.inputs[3]) is None:
        b = coding(scope, node, node.inputs[4], node.inputs[5])
        names = (node.inputs[0].name, node.inputs[3].name)
        return BatchedProduct((node,), names, (node.outputs[0].name,), a=x, b=b, y=_fitting(y, x))
    weights = _matrix(_constants(scope, node, node.inputs[3], node.inputs[4], node.inputs[5], axis=1))
    _check_range(weights, 1, x, y)
    return Product((node,), (node.inputs[0].name,), (node.outputs[0].name,), x=x, y=y, weights=weights)


def _check_range(weights: Weights, axis: int, x: Coding, y: Coding) -> None:
    """Declined where an accumulator times its multiplier might not fit into 32 bits: the rounding is then undefined."""
    values = np.moveaxis(weights.codes, axis, 0).reshape(len(weights.scale), -1).astype(np.int64)
    reach = np.abs(values - weights.zero[:, None]).sum(1) * 255 + np.abs(weights.bias.astype(np.int64))
    largest = np.minimum(reach, 2**31) * rules.multiplier(x.scale, weights.scale, y.scale).astype(np.float64)
    if (largest >= rules.LARGEST_PRODUCT).any():
        raise Declined("its results may not fit into 32 bits before they are rounded")


# ---- constants


def _weight(scope: Scope, tensor: Tensor | None, axis: int) -> Weights:
    node = maker(tensor, "DequantizeLinear")
    if node is None:
        raise Declined("its weight is not read from codes")
    if int(attribute(node, "block_size", 0)):
        raise Declined("its weight is quantised by block")
    found = _constants(scope, node, node.inputs[0], given(node, 1), given(node, 2), axis)
    rank = found.codes.ndim
    scales = scope.constant(given(node, 1))
    if scales is not None and scales.size > 1 and int(attribute(node, "axis", 1)) % rank != axis % rank:
        raise Declined("its weight is quantised along another axis than the output channels")
    return found


def _constants(
    scope: Scope, node: Node, codes: Tensor | None, scale: Tensor | None, zero: Tensor | None, axis: int
) -> Weights:
    """Codes, with zero points and scales for each output channel; no bias."""
    values, scales, zeros = scope.constant(codes), scope.constant(scale), scope.constant(zero)
    if values is None or scales is None or (zero is not None and zeros is None):
        raise Declined("its weight, scale or zero point is not constant")
    if values.dtype not in (np.int8, np.uint8) or scales.dtype != np.float32:
        raise Declined(f"its weight has codes of {values.dtype} and scales of {scales.dtype}")
    if values.size == 0:
        raise Declined("its weight is empty")
    check_scale(scope, node, scales)
    channels = values.shape[axis] if values.ndim > axis else 0
    if scales.size not in (1, channels) or (zeros is not None and zeros.size not in (1, channels)):
        raise Declined("the scales of its weight are not one, nor one for each output channel")
    zeros = np.zeros(1, values.dtype) if zeros is None else zeros
    zeros, each = (np.broadcast_to(a.reshape(-1), (channels,)) for a in (zeros.astype(np.int32), scales))
    return Weights(values, zeros, each, np.zeros(channels, np.int32), per_channel=scales.size > 1)


def _bias(
    scope: Scope,
    tensor: Tensor | None,
    x: Coding,
    scale: Array,
    rounded: bool = True,
) -> Array:
    """int32[channels], in units of x scale times weight scale.

    rounded: does the output become codes? Then onnxruntime rounds a float bias, too.
    """
    size = len(scale)
    if tensor is None:
        return np.zeros(size, np.int32)
    unit = (x.scale * scale).astype(np.float32)
    node = maker(tensor, "DequantizeLinear")
    if node is None:
        values = scope.constant(tensor)
        if not rounded:
            raise Declined("its bias is float, and so is its output")
        if values is None or values.dtype != np.float32 or values.shape != (size,):
            raise Declined("its bias is not constant, or of another shape")
        return rules.round_bias(values, unit)
    codes, scales = scope.constant(node.inputs[0]), scope.constant(given(node, 1))
    if codes is None or codes.dtype != np.int32 or scales is None:
        raise Declined("its bias is not constant int32")
    if codes.size != size or not np.allclose(np.broadcast_to(scales.reshape(-1), (size,)), unit, rtol=1e-3, atol=0):
        raise Declined("the scale of its bias is not that of its products")
    return codes.reshape(-1)
