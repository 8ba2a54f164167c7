"""Rules that fold arithmetic by channel (see `zc.passes.cleanup.affine`) into the layer before or after it."""

import numpy as np

from zc.ir.graph import Array, Constant, Node, Tensor
from zc.passes.cleanup.affine import Affine, affine_of, normalization_reason
from zc.passes.cleanup.layers import LAYERS, layer_of, takes_bias
from zc.passes.cleanup.operands import is_float, plain, rank_of
from zc.passes.cleanup.rules import Match, Rule, Site

_ARITHMETIC = ("Mul", "Add", "Sub", "Div")
_ROOTS = ("BatchNormalization", *_ARITHMETIC)


def _operand(node: Node, site: Site) -> Tensor | None:
    """What the node computes with beside its constant; None when it has no constant operand."""
    if node.op == "BatchNormalization":
        return node.inputs[0]
    for side in (1, 0):
        if site.fixed(node.inputs[side]) is not None and not (node.op == "Div" and side == 0):
            return node.inputs[1 - side]
    return None


# ---- into the layer before it


def _find_before(node: Node, site: Site) -> Match | None:
    value = _operand(node, site)
    layer = site.producer(value, *LAYERS) if value is not None else None
    if layer is None or value is None:
        return None
    if node.op in ("Add", "Sub") and not takes_bias(layer):
        return None  # a bias after MatMul on more than two dimensions has no other form
    if layer.op == "MatMul" and node.op in ("Mul", "Div") and not isinstance(layer.inputs[1], Constant):
        return None  # a product of two values, as in attention: there is no weight
    return node, layer


def _check_before(match: Match, site: Site) -> str | None:
    node, before = match
    if not site.alone(before.outputs[0], node):
        return f"the output of '{before.name or before.op}' is read elsewhere too"
    axis = 1 if before.op != "MatMul" else (rank_of(before.outputs[0]) or 0) - 1
    affine = affine_of(node, site, axis)
    if not isinstance(affine, Affine):
        return affine or "it has no constant operand"
    if node.op == "BatchNormalization" and axis != 1:
        return "it has the channels elsewhere"
    if not affine.finite:
        return "its numbers are not all finite"
    scales = bool((affine.factor != 1).any())
    layer = layer_of(before, site, rewritten=scales)
    if isinstance(layer, str):
        return layer
    if layer.axis != axis or affine.factor.size not in (1, layer.channels):
        return "its channels are not those of the layer"
    bias = layer.bias(site)
    if isinstance(bias, str):
        return bias
    biased = bool(bias.any() or affine.offset.any())
    if biased and not takes_bias(before):
        return "a MatMul on more than two dimensions takes no bias"
    weight = layer.scaled_outputs(affine.factor) if scales else None
    new_bias = bias * affine.factor + affine.offset if biased else None
    why = _unfit(weight, new_bias, layer.weight)
    if why is None:
        site.planned[id(node)] = layer, weight, new_bias
    return why


def _unfit(weight: Array | None, bias: Array | None, like: Tensor) -> str | None:
    """Why numbers cannot be stored in the type of `like`: they overflow, or were NaN or Inf before."""
    with np.errstate(all="ignore"):
        for array in (weight, bias):
            if array is not None and not np.isfinite(array.astype(np.dtype(like.dtype), copy=False)).all():
                return "the weights together are NaN, Inf or out of range"
    return None


def _into_before(match: Match, site: Site) -> None:
    node, before = match
    layer, weight, bias = site.planned.pop(id(node))
    if bias is not None and bias.size != layer.channels:
        bias = np.broadcast_to(bias, layer.channels)
    layer.write(site, weight, bias)
    site.take_over(before, node)


# ---- into the BatchNormalization before it


def _find_normalization(node: Node, site: Site) -> Match | None:
    value = _operand(node, site)
    before = site.producer(value, "BatchNormalization") if value is not None else None
    return (node, before) if before is not None and site.alone(before.outputs[0], node) else None


def _check_normalization(match: Match, site: Site) -> str | None:
    node, normal = match
    why = normalization_reason(normal, site)
    if why is not None:
        return why
    if not is_float(normal.inputs[1]):
        return f"the BatchNormalization computes in {normal.inputs[1].dtype}"
    affine = affine_of(node, site, 1)
    if not isinstance(affine, Affine):
        return affine or "it has no constant operand"
    scale, bias = (np.asarray(site.fixed(t), np.float64) for t in normal.inputs[1:3])
    scale, bias = scale * affine.factor, bias * affine.factor + affine.offset
    why = _unfit(scale, bias, normal.inputs[1])
    if why is None:
        site.planned[id(node)] = scale, bias
    return why


def _into_normalization(match: Match, site: Site) -> None:
    node, normal = match
    for index, values in zip((1, 2), site.planned.pop(id(node)), strict=True):
        old = normal.inputs[index]
        values = values.astype(np.dtype(old.dtype))
        if isinstance(old, Constant) and site.private(old, normal):
            old.values = values
        else:
            normal.inputs[index] = site.names.constant(old.name, values)
    site.take_over(normal, node)


# ---- into the layer after it


def _find_after(node: Node, site: Site) -> Match | None:
    value = node.inputs[0]
    before = site.producer(value, *_ROOTS)
    if before is None or _operand(before, site) is None or value is not before.outputs[0]:
        return None
    return node, before


def _check_after(match: Match, site: Site) -> str | None:
    node, before = match
    if not site.alone(node.inputs[0], node):
        return f"the output of '{before.name or before.op}' is read elsewhere too"
    axis = 1 if node.op != "MatMul" else (rank_of(node.inputs[0]) or 0) - 1
    affine = affine_of(before, site, axis)
    if not isinstance(affine, Affine):
        return affine or "it has no constant operand"
    layer = layer_of(node, site, rewritten=True)
    if isinstance(layer, str):
        return layer
    if not affine.finite:
        return "the numbers before it are not all finite"
    if node.op == "Gemm" and plain(node, "transA", 0):
        return "it transposes its input"
    if before.op == "BatchNormalization" and axis != 1:
        return "its input has the channels elsewhere"
    shifts = bool(affine.offset.any())
    if shifts and node.op == "Conv" and (any(plain(node, "pads", [])) or _automatic(node)):
        return "an offset in front of a padded Conv is not the same at the border"
    if shifts and not takes_bias(node):
        return "a MatMul on more than two dimensions takes no bias"
    bias = layer.bias(site)
    if isinstance(bias, str):
        return bias
    weight = layer.scaled_inputs(affine.factor) if (affine.factor != 1).any() else None
    new_bias = bias + layer.response(affine.offset) if shifts else None
    why = _unfit(weight, new_bias, layer.weight)
    if why is None:
        site.planned[id(node)] = layer, weight, new_bias, affine.value
    return why


def _automatic(node: Node) -> bool:
    return plain(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")


def _into_after(match: Match, site: Site) -> None:
    node, _ = match
    layer, weight, bias, value = site.planned.pop(id(node))
    layer.write(site, weight, bias)
    node.inputs[0] = value


RULES = [
    Rule("arithmetic into the layer before", _ROOTS, _find_before, _check_before, _into_before),
    Rule(
        "arithmetic into BatchNormalization",
        _ARITHMETIC,
        _find_normalization,
        _check_normalization,
        _into_normalization,
    ),
    Rule("arithmetic into the layer after", ("Conv", "Gemm", "MatMul"), _find_after, _check_after, _into_after),
]
