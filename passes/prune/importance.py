"""Importance of atoms: what the network would lose with them. Higher is more important."""

from dataclasses import dataclass
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
Reduction = Literal["sum", "mean", "max", "product"]
Normalizer = Literal["mean", "max", "sum", "none"]


@dataclass(frozen=True)
class Combine:
    """How the norms of an atom in several weights become its score."""

    reduction: Reduction = "sum"
    normalizer: Normalizer = "mean"
    """By what the norms of a group in one weight are divided first, so that large weights do not decide alone."""


USUAL = Combine()


class _Board:
    """Scores by root label as they come together."""

    def __init__(self, groups: Groups, combine: Combine) -> None:
        self.groups, self.combine = groups, combine
        count = groups.flow.labels.count
        self._scores, self._times = np.zeros(count, np.float64), np.zeros(count, np.int64)

    def add(self, labels: Ints, sums: Scores, criterion: Norm) -> None:
        """Add the norms of one axis of one weight to the scores of the atoms that occur there."""
        roots = self.groups.classes.roots[labels.ravel()]
        found, at = np.unique(roots, return_inverse=True)
        norms = np.bincount(at, weights=sums.ravel(), minlength=len(found))
        norms = np.sqrt(norms) if criterion == "l2" else norms
        owners = self.groups.group_of[found]
        for group in np.unique(owners[owners >= 0]):
            mine = owners == group
            scale = self._scale(norms[mine])
            if scale > 0:
                self._put(found[mine], norms[mine] / scale)

    def scores(self) -> Scores:
        """By root label; 0 where nothing was added."""
        if self.combine.reduction == "mean":
            return self._scores / np.maximum(self._times, 1)
        return self._scores

    def _scale(self, norms: Scores) -> float:
        if self.combine.normalizer == "none":
            return 1.0
        if self.combine.normalizer == "max":
            return float(norms.max())
        return float(norms.mean() if self.combine.normalizer == "mean" else norms.sum())

    def _put(self, roots: Ints, values: Scores) -> None:
        before, first = self._scores[roots], self._times[roots] == 0
        self._times[roots] += 1
        if self.combine.reduction == "max":
            after = np.maximum(before, values)
        elif self.combine.reduction == "product":
            after = np.where(first, values, before * values)
        else:
            after = before + values
        self._scores[roots] = after


def magnitude(groups: Groups, criterion: Norm, combine: Combine = USUAL) -> Scores:
    """The norm of the weights of each atom, by root label; 0 where there is no atom.

    A weight counts once for the channels that it makes and once for those that it takes. In each, the norms are divided
    as `combine` says, and then brought together.

    Raises:
        ZcError: a weight has NaN or infinite values.
    """
    board = _Board(groups, combine)
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
            board.add(block.labels, sums, criterion)
    return board.scores()


def geometric_median(groups: Groups, combine: Combine = USUAL) -> Scores:
    """How far the filters of each atom are from the others of its group: what is near the middle of all is replaceable.

    (He et al., Filter Pruning via Geometric Median, 2019.) By root label; 0 where there is no atom.
    """
    board = _Board(groups, combine)
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
            board.add(product.labels[mine], np.sqrt(np.maximum(squares, 0)).sum(axis=1), "l1")
    return board.scores()


def normalization_scale(groups: Groups, combine: Combine = USUAL) -> Scores:
    """The size of the scales of the BatchNormalization nodes behind each atom.

    (Liu et al., Network Slimming, 2017.) By root label; 0 where there is no such node: after `clean` most are folded.
    """
    board = _Board(groups, combine)
    for node in groups.flow.model.nodes("BatchNormalization"):
        scale = fixed_value(node.inputs[1])
        layout = groups.flow.of(node.inputs[1])
        if scale is not None and len(layout) == 1:
            board.add(layout[0].labels, np.abs(scale.astype(np.float64)), "l1")
    return board.scores()


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
