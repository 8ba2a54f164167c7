"""y = a * x + c for each channel: what BatchNormalization, Mul, Add, Sub and Div by constants all are."""

from dataclasses import dataclass

import numpy as np

from zc.ir.graph import Array, Node, Tensor
from zc.passes.cleanup.operands import plain, rank_of, shape_of
from zc.passes.cleanup.rules import Site


@dataclass(frozen=True)
class Affine:
    """Factor and offset of each channel, float64[channels] or float64[1]; `value` is what they are applied to."""

    value: Tensor
    factor: Array
    offset: Array

    @property
    def finite(self) -> bool:
        """Is every number finite?"""
        return bool(np.isfinite(self.factor).all() and np.isfinite(self.offset).all())


def affine_of(node: Node, site: Site, axis: int) -> Affine | str | None:
    """The node as an affine map over the channels at `axis`; the reason why not; None without a constant operand."""
    if node.op == "BatchNormalization":
        return _normalization(node, site)
    for side in (1, 0):
        array = site.fixed(node.inputs[side])
        if array is not None and not (node.op == "Div" and side == 0):
            return _arithmetic(node, site, axis, side, array)
    return None


def normalization_reason(node: Node, site: Site) -> str | None:
    """Why a BatchNormalization is no fixed affine map, or None."""
    if plain(node, "training_mode", 0):
        return "it is in training mode"
    if not plain(node, "spatial", 1):
        return "it has one set of statistics for each position"
    if any(t.outputs or site.editor.is_output(t) for t in node.outputs[1:]):
        return "its running statistics are read"
    if any(site.fixed(t) is None for t in node.inputs[1:5]):
        return "its parameters are not constant"
    return None


def _normalization(node: Node, site: Site) -> Affine | str:
    why = normalization_reason(node, site)
    if why is not None:
        return why
    scale, bias, mean, var = (np.asarray(site.fixed(t), np.float64) for t in node.inputs[1:5])
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(var + plain(node, "epsilon", 1e-5))
        return Affine(node.inputs[0], factor, bias - mean * factor)


def _arithmetic(node: Node, site: Site, axis: int, side: int, array: Array) -> Affine | str:
    value = node.inputs[1 - side]
    rank, shape = rank_of(value), shape_of(value)
    if rank is None or shape is None:
        return "the rank of its input is unknown"
    if array.ndim > rank:
        return "its constant has more dimensions than its input"
    full = (1,) * (rank - array.ndim) + array.shape
    if any(d != 1 for i, d in enumerate(full) if i != axis):
        return "its constant differs within a channel"
    if full[axis] != 1 and full[axis] != shape[axis]:
        return "its constant spreads the channels"
    c = array.astype(np.float64).reshape(-1)
    one, zero = np.ones(1), np.zeros(1)
    with np.errstate(all="ignore"):
        match node.op:
            case "Mul":
                return Affine(value, c, zero)
            case "Div":
                return Affine(value, 1 / c, zero)
            case "Add":
                return Affine(value, one, c)
            case _:
                return Affine(value, -one, c) if side == 0 else Affine(value, one, -c)
