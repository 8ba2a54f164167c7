"""Which factors make the channels of values alike."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zc.ir.graph import Array, fixed_value
from zc.passes.prune.labels import Ints, Labels
from zc.passes.quantize.scaling.flow import Flow, Reader, given
from zc.passes.quantize.scaling.rescale import Factors, scaled

WIDEST = 2.0**12
"""A factor is at most this, and at least its reciprocal."""


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of labels that may be scaled. Arrays are indexed by label; only the entries of roots count."""

    flow: Flow
    roots: Ints
    free: npt.NDArray[np.bool_]
    part: Ints
    """Classes of one part meet in some value, so that only ratios of their factors matter."""

    @staticmethod
    def of(flow: Flow) -> "Classes":
        """The classes of an interpreted model."""
        roots = flow.labels.roots()
        free = ~flow.labels.pinned(np.arange(flow.labels.count))
        parts = Labels()
        parts.fresh(flow.labels.count)
        for reader in flow.readers:
            mine = roots[reader.layout.reshape(-1)]
            mine = mine[free[mine]]
            if len(mine):
                parts.tie(mine, 0)
        return Classes(flow, roots, free, parts.roots())

    def largest(self, found: Factors, layout: Ints, sizes: Array) -> None:
        """Raise the entries of the classes in a layout to the sizes, which broadcast against it."""
        labels, sizes = np.broadcast_arrays(self.roots[layout], sizes)
        np.maximum.at(found, labels.reshape(-1), sizes.reshape(-1))

    def made_by(self, reader: Reader, factors: Factors) -> Array:
        """The range of each output channel of a layer's weight, with factors put into it."""
        return _over(np.abs(scaled(reader.edit, factors)), reader.made).reshape(-1)

    def by_label(self, of_root: Factors) -> Factors:
        """Factors by label: those of the classes that are free, 1 elsewhere."""
        return np.where(self.free, of_root[self.roots], 1.0)


def weight_ranges(classes: Classes, factors: Factors | None = None, *, by_row: bool) -> tuple[Factors, Factors]:
    """Largest magnitude of the weights that make a class, and of those that read it, by root.

    factors: by label, as if they were put into the weights already. by_row: what reads is measured in units of the
    largest weight of the same output channel, which is what a scale of its own sees. A channel whose bias is more than
    its weights can add to it (of inputs of 1) counts as large as its bias: it must not be raised as if it were small.
    """
    above, below = np.zeros(classes.flow.labels.count), np.zeros(classes.flow.labels.count)
    ones = np.ones(classes.flow.labels.count) if factors is None else factors
    for reader in classes.flow.readers:
        weight = np.abs(scaled(reader.edit, ones))
        rows = _over(weight, reader.made)
        classes.largest(above, reader.made, rows)
        bias = _bias(reader, ones)
        if bias is not None:
            made = reader.made.reshape(-1)
            classes.largest(above, made, bias * made.size / max(weight.size, 1))
        if by_row:
            weight = weight / np.where(rows == 0, 1.0, rows)
        classes.largest(below, reader.taken, _over(weight, reader.taken))
    return above, below


def _bias(reader: Reader, factors: Factors) -> Array | None:
    """Magnitude of the bias of each output channel, if the layer itself has one for each."""
    node = reader.edit.node
    if node.op == "MatMul" or not given(node, 2):
        return None
    channels, values = reader.made.reshape(-1), fixed_value(node.inputs[2])
    if values is None or values.size != channels.size:
        return None
    return np.asarray(np.abs(values.astype(np.float64)).reshape(-1) * factors[channels])


def _over(weight: Array, labels: Ints) -> Array:
    """Largest along the axes that the labels do not tell apart."""
    axes = tuple(a for a, size in enumerate(labels.shape) if size == 1)
    return np.asarray(weight.max(axis=axes, keepdims=True, initial=0.0))


def activation_ranges(classes: Classes, extremes: Mapping[str, tuple[Array, Array]]) -> Factors:
    """Largest magnitude of the values of a class, of those that layers read and that were looked at, by root."""
    found = np.zeros(classes.flow.labels.count)
    for reader in classes.flow.readers:
        if reader.value.name in extremes:
            low, high = extremes[reader.value.name]
            classes.largest(found, reader.layout, np.maximum(-low, high))
    return found


def balanced(classes: Classes, above: Factors, below: Factors, alpha: float) -> Factors:
    """Factors by root: below**(1 - alpha) / above**alpha, with geometric mean 1 in each part.

    alpha 1 makes what is above alike, 0 what is below; a class that has no range on a side that counts keeps 1.
    """
    usable = classes.free & (classes.roots == np.arange(len(classes.roots)))
    usable &= ((above > 0) | (alpha == 0)) & ((below > 0) | (alpha == 1))
    wanted = (1 - alpha) * _log(below) - alpha * _log(above)
    logs = np.where(usable, wanted, 0.0)
    counts = np.bincount(classes.part[usable], minlength=len(logs))
    sums = np.bincount(classes.part[usable], weights=logs[usable], minlength=len(logs))
    logs[usable] -= (sums / np.maximum(counts, 1))[classes.part[usable]]
    return np.asarray(np.exp(np.clip(logs, -np.log(WIDEST), np.log(WIDEST))))


def _log(ranges: Factors) -> Factors:
    return np.log(np.where(ranges > 0, ranges, 1.0))


def within_limits(classes: Classes, factors: Factors, extremes: Mapping[str, tuple[Array, Array]]) -> Factors:
    """Factors by root that let no Clip cut off what it let through before, as far as its extremes tell.

    A channel that reaches a bound keeps 1. The others may grow until they reach it; a part is shifted as a whole so
    that its factors stay in proportion.
    """
    room = np.full(len(factors), np.inf)
    for limit in classes.flow.limits:
        low, high = extremes[limit.node.outputs[0].name]
        with np.errstate(divide="ignore", invalid="ignore"):
            above = np.where(high > 0, limit.high / high, np.inf)
            under = np.where(low < 0, limit.low / low, np.inf)
        labels, sizes = np.broadcast_arrays(classes.roots[limit.layout], np.maximum(np.minimum(above, under), 1.0))
        np.minimum.at(room, labels.reshape(-1), sizes.reshape(-1))
    limited = np.isfinite(room) & classes.free
    if not limited.any():
        return factors
    logs = np.log(factors)
    shift = np.full(len(factors), np.inf)
    np.minimum.at(shift, classes.part[limited], np.log(room[limited]) - logs[limited])
    shift = np.where(np.isfinite(shift), shift, 0.0)[classes.part]
    return np.where(room == 1.0, 1.0, np.exp(logs + np.where(classes.free, shift, 0.0)))
