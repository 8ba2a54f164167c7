"""Metrics by name. Each gives a few numbers a row, and a figure made of their means: so one streaming pass is enough.

`top1`, `top5` compare with labels; `agree` and `sqnr` with a reference model; `mse`, `mae`, `psnr`, `cosine` with a
reference model, or with labels that look like the output. `package.module:function` is a metric of one's own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from zc.errors import ZcError, nearest
from zc.ir.graph import Array
from zc.measure.tensor_error import decibels

Truth = Literal["labels", "reference", "either"]
Outputs = Mapping[str, Array]


@dataclass(frozen=True)
class Metric:
    """How well outputs do: `rows` gives float64 [rows, columns], `figure` makes the value of the columns' means."""

    name: str
    unit: str
    higher_is_better: bool
    truth: Truth
    columns: int
    rows: Callable[[Array, Array], Array]
    """(output, truth), the rows first in both -> the numbers of each row."""
    figure: Callable[[Array], float]


def find_metric(name: str) -> Metric:
    """The metric of that name. ZcError with the names that there are."""
    found = METRICS.get(name)
    if found is None:
        listed = ", ".join(METRICS)
        raise ZcError(
            f"no metric '{name}'{nearest(name, list(METRICS))}; there are {listed}, or package.module:function"
        )
    return found


def class_ids(labels: Array, offset: int, classes: int, where: str) -> Array:
    """Labels as class indices int64 [rows], with the offset added.

    Raises:
        ZcError: labels that are no class numbers, or that the model has no class for.
    """
    flat = labels.reshape(len(labels), -1) if labels.ndim > 1 else labels[:, None]
    whole = flat.dtype.kind in "iu" or (flat.dtype.kind == "f" and bool(np.all(flat == np.floor(flat))))
    if flat.shape[1] != 1 or not whole:
        raise ZcError(
            f"{where}: labels are {labels.dtype}{list(labels.shape)}; top1 and top5 take one class number a row "
            "(to compare with arrays: mse, mae, psnr or cosine)"
        )
    ids = flat[:, 0].astype(np.int64) + offset
    bad = np.flatnonzero((ids < 0) | (ids >= classes))
    if bad.size:
        given = int(flat[bad[0], 0])
        raise ZcError(
            f"{where}: label {given} with offset {offset} is outside of the {classes} classes of the model; "
            "give the offset between labels and classes (--label-offset)"
        )
    return ids


def scores_of(output: Array, where: str) -> Array:
    """Class scores [rows, classes] of an output, whose further axes must have size 1. ZcError otherwise, or for NaN."""
    if output.ndim < 2 or output.size != output.shape[0] * output.shape[1] or output.dtype.kind not in "fiu":
        raise ZcError(
            f"{where}: is {output.dtype}{list(output.shape)}; top1 and top5 take scores [rows, classes]; "
            "name another output (--output), or use agree, sqnr or a function"
        )
    if output.dtype.kind == "f" and np.isnan(output).any():
        raise ZcError(f"{where}: has NaN values; there is no best class")
    return output.reshape(output.shape[:2])


def ranks(scores: Array, ids: Array) -> Array:
    """How many classes stand before the given one in each row; equal scores go by index, as in argmax."""
    own = np.take_along_axis(scores, ids[:, None], 1)
    before = np.arange(scores.shape[1])[None] < ids[:, None]
    return np.asarray(((scores > own) | ((scores == own) & before)).sum(axis=1))


def _within(places: int) -> Callable[[Array, Array], Array]:
    def rows(scores: Array, ids: Array) -> Array:
        if scores.shape[1] <= places:
            raise ZcError(f"top{places} says nothing of {scores.shape[1]} classes")
        return (ranks(scores, ids) < places).astype(np.float64)[:, None]

    return rows


def _agree(output: Array, truth: Array) -> Array:
    """Share of places with the same best class. Classes are the last axis; in maps [rows, classes, h, w] the second."""
    axis = 1 if output.ndim > 3 or output.ndim == 2 else output.ndim - 1
    if output.ndim < 2:
        raise ZcError("agree takes outputs [rows, classes]; for others use sqnr or cosine")
    same = output.argmax(axis) == truth.argmax(axis)
    return np.asarray(same.reshape(len(same), -1).mean(axis=1, dtype=np.float64))[:, None]


def _flat(output: Array, truth: Array) -> tuple[Array, Array]:
    return output.reshape(len(output), -1).astype(np.float64), truth.reshape(len(truth), -1).astype(np.float64)


def _noise(output: Array, truth: Array) -> Array:
    got, want = _flat(output, truth)
    return np.stack([(want**2).sum(axis=1), ((got - want) ** 2).sum(axis=1)], axis=1)


def _squared(output: Array, truth: Array) -> Array:
    got, want = _flat(output, truth)
    return np.stack([((got - want) ** 2).sum(axis=1), np.full(len(got), got.shape[1], np.float64)], axis=1)


def _psnr(output: Array, truth: Array) -> Array:
    """Of each image for a peak of 1; images that are equal count 100 dB."""
    got, want = _flat(output, truth)
    return np.asarray(-10 * np.log10(np.maximum(((got - want) ** 2).mean(axis=1), 1e-10)))[:, None]


def _absolute(output: Array, truth: Array) -> Array:
    got, want = _flat(output, truth)
    return np.stack([np.abs(got - want).sum(axis=1), np.full(len(got), got.shape[1], np.float64)], axis=1)


def _cosine(output: Array, truth: Array) -> Array:
    got, want = _flat(output, truth)
    norms = np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1)
    both_zero = ~got.any(axis=1) & ~want.any(axis=1)
    return np.where(norms > 0, (got * want).sum(axis=1) / np.where(norms > 0, norms, 1), both_zero)[:, None]


def _percent(mean: Array) -> float:
    return 100 * float(mean[0])


def _mean(mean: Array) -> float:
    return float(mean[0])


def _ratio(mean: Array) -> float:
    return float(mean[0] / mean[1]) if mean[1] else 0.0


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("top1", "%", True, "labels", 1, _within(1), _percent),
        Metric("top5", "%", True, "labels", 1, _within(5), _percent),
        Metric("agree", "%", True, "reference", 1, _agree, _percent),
        Metric("sqnr", "dB", True, "reference", 2, _noise, lambda mean: decibels(float(mean[0]), float(mean[1]))),
        Metric("mse", "", False, "either", 2, _squared, _ratio),
        Metric("mae", "", False, "either", 2, _absolute, _ratio),
        Metric("psnr", "dB", True, "either", 1, _psnr, _mean),
        Metric("cosine", "", True, "either", 1, _cosine, _mean),
    )
}
"""top1, top5, agree, psnr and cosine are means over rows; sqnr, mse and mae are of all values together.
psnr is for images in 0..1; labels of an integer type are divided by the largest value of the type.
"""
