"""Importance of atoms: what the network would lose with them. Higher is more important."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from zc.errors import ZcError
from zc.ir.graph import Array, Constant, Node, Tensor, fixed_value
from zc.passes.prune.flow import Product
from zc.passes.prune.groups import Groups
from zc.passes.prune.labels import Ints

Norm = Literal["l1", "l2"]
Scores = npt.NDArray[np.float64]


def magnitude(groups: Groups, criterion: Norm) -> Scores:
    """The norm of the weights of each atom, by root label; 0 where there is no atom.

    A weight counts once for the channels that it makes and once for those that it takes. In each, the norms are divided
    by their mean over the group, so that large weights do not decide alone; the sum is the score.

    Raises:
        ZcError: a weight has NaN or infinite values.
    """
    scores = np.zeros(groups.flow.labels.count, np.float64)
    for product in groups.flow.products:
        layout = groups.flow.of(product.weight)
        if not any((groups.group_of[groups.classes.roots[b.labels]] >= 0).any() for b in layout):
            continue
        values = _values(product)
        if values is None:
            continue
        for block in layout:
            axes = tuple(a for a in range(values.ndim) if a not in block.axes)
            sums = np.abs(values).sum(axis=axes) if criterion == "l1" else np.square(values).sum(axis=axes)
            _add(scores, groups, block.labels, sums, criterion)
    return scores


def geometric_median(groups: Groups) -> Scores:
    """How far the filters of each atom are from the others of its group: what is near the middle of all is replaceable.

    (He et al., Filter Pruning via Geometric Median, 2019.) Divided by the mean over the group, summed over the weights
    that make the channels. By root label; 0 where there is no atom.
    """
    scores = np.zeros(groups.flow.labels.count, np.float64)
    for product in groups.flow.products:
        axis = next((b.axes[0] for b in groups.flow.of(product.weight) if b.labels is product.labels), None)
        values = _values(product) if axis is not None else None
        if values is None or axis is None:
            continue
        filters = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
        owners = groups.group_of[groups.classes.roots[product.labels]]
        for group in np.unique(owners[owners >= 0]):
            mine = np.flatnonzero(owners == group)
            own = filters[mine]
            power = np.square(own).sum(axis=1)
            squares = power[:, None] + power[None] - 2 * own @ own.T
            distances = np.sqrt(np.maximum(squares, 0)).sum(axis=1)
            _add(scores, groups, product.labels[mine], distances, "l1")
    return scores


def normalization_scale(groups: Groups) -> Scores:
    """The size of the scales of the BatchNormalization nodes behind each atom, divided by the mean over the group.

    (Liu et al., Network Slimming, 2017.) By root label; 0 where there is no such node: after `clean` most are folded.
    """
    scores = np.zeros(groups.flow.labels.count, np.float64)
    for node in groups.flow.model.nodes("BatchNormalization"):
        scale = fixed_value(node.inputs[1])
        layout = groups.flow.of(node.inputs[1])
        if scale is not None and len(layout) == 1:
            _add(scores, groups, layout[0].labels, np.abs(scale.astype(np.float64)), "l1")
    return scores


def _add(scores: Scores, groups: Groups, labels: Ints, sums: Scores, criterion: Norm) -> None:
    """Add the norms of one axis of one weight to the scores of the atoms that occur there."""
    roots = groups.classes.roots[labels.ravel()]
    found, at = np.unique(roots, return_inverse=True)
    norms = np.bincount(at, weights=sums.ravel(), minlength=len(found))
    norms = np.sqrt(norms) if criterion == "l2" else norms
    owners = groups.group_of[found]
    for group in np.unique(owners[owners >= 0]):
        mine = owners == group
        mean = norms[mine].mean()
        if mean > 0:
            scores[found[mine]] += norms[mine] / mean


def _values(product: Product) -> Scores | None:
    """The weight as numbers, also one stored in integers with a scale; None when it is computed at run time."""
    values = _stored(product.weight)
    if values is None:
        return None
    if not np.isfinite(values).all():
        what = "NaN" if np.isnan(values).any() else "infinite values"
        raise ZcError(f"weight '{product.weight.name}' of node '{product.node.name}' has {what}; the model is damaged")
    return values


def _stored(tensor: Tensor) -> Scores | None:
    if isinstance(tensor, Constant):
        return tensor.values.astype(np.float64) if tensor.values.dtype.kind not in "OUS" else None
    if len(tensor.inputs) != 1:
        return None
    node = tensor.inputs[0]
    if node.op == "DequantizeLinear":
        return _dequantized(node)  # type: ignore[arg-type]
    if node.op == "Transpose":
        inner = _stored(node.inputs[0])
        return None if inner is None else inner.transpose(node.attrs.get("perm"))
    return _stored(node.inputs[0]) if node.op in ("Identity", "Cast") else None


def _dequantized(node: Node) -> Scores | None:
    """(code - zero point) * scale, one scale or one along an axis."""
    parts: list[Array | None] = [fixed_value(t) for t in node.inputs]
    if any(p is None for p in parts) or parts[0] is None or parts[1] is None:
        return None
    shape = [1] * parts[0].ndim
    if parts[1].size > 1:
        shape[int(node.attrs.get("axis", 1))] = -1
    else:
        shape = []
    codes = parts[0].astype(np.float64)
    if len(parts) > 2 and parts[2] is not None:
        codes = codes - parts[2].astype(np.float64).reshape(shape)
    return np.asarray(codes * parts[1].astype(np.float64).reshape(shape))
