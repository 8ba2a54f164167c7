"""Importance of atoms: what the network would lose with them. Higher is more important."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from zc.errors import ZcError
from zc.ir.graph import Array, Constant, Node, Tensor, fixed_value
from zc.passes.prune.flow import Product
from zc.passes.prune.groups import Groups
from zc.passes.prune.labels import Ints

Criterion = Literal["l1", "l2"]
Scores = npt.NDArray[np.float64]


def magnitude(groups: Groups, criterion: Criterion) -> Scores:
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


def _add(scores: Scores, groups: Groups, labels: Ints, sums: Scores, criterion: Criterion) -> None:
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
