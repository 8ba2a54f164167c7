"""The ways to write a layer as smaller layers in a row, with what each costs and loses.

Weights are [groups, D, M] as in `zc.passes.layers`; moments H [D, D] say what an error e of the weights costs: e^T H e.

    rank       x -> W V_r -> V_r^T        V: the principal directions of the outputs. Of all products of rank r this
                                          says the outputs best (Zhang et al., 2015, without the non-linearity).
    tucker     x -> U^T -> core -> V^T    a narrow convolution between two pointwise ones (Kim et al., 2016)
    separable  x -> depthwise -> 1x1      each input channel through q filters of its own, then mixed: the q-th best of
                                          each channel's [window, M] matrix (Howard et al., 2017, for the form)
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from zc.ir.graph import Array, attribute
from zc.passes.layers.chosen import Moments
from zc.passes.layers.layers import Layer

RANKS = 16
"""About so many ranks of a form are looked at."""


@dataclass(frozen=True, eq=False)
class Factors:
    """A layer as a row of smaller ones."""

    form: str
    """rank, tucker or separable."""
    ranks: tuple[int, ...]
    parts: tuple[Array, ...]
    """The weights, in the shapes that the nodes take: [M, C / groups, ...] of a convolution, [D, M] of a product."""
    weights: int
    """Elements of all parts."""
    work: float
    """Multiply-accumulates for an output position of the layer."""
    loss: float
    """Part of the variance of the layer's outputs that is lost."""


def candidates(layer: Layer, moments: Moments) -> Iterator[Factors]:
    """All forms of a layer at several ranks; those that are no smaller are left out."""
    if layer.groups != 1:
        return
    own = layer.weight.size
    for one in (*_ranks(layer, moments), *_tuckers(layer, moments), *_separables(layer, moments)):
        if max(one.weights, one.work) < own:
            yield one


def product_of(layer: Layer, factors: Factors) -> Array:
    """The weight that the parts make together, [1, D, M]: for tests, and for what is lost."""
    if factors.form == "rank":
        first, second = factors.parts
        left = _as_matrix(layer, first)
        return (left @ (second.reshape(second.shape[0], -1).T if layer.convolves else second))[None]
    if factors.form == "tucker":
        first, core, last = factors.parts
        mixed = np.einsum("ab...,bc->ac...", core, first.reshape(first.shape[:2]))
        whole = np.einsum("ma,ac...->mc...", last.reshape(last.shape[:2]), mixed)
        return _as_matrix(layer, whole)[None]
    deep, point = factors.parts
    channels = int(layer.weight.shape[1])
    deep = deep.reshape(channels, -1, *deep.shape[2:])
    mix = point.reshape(point.shape[0], channels, -1)
    return _as_matrix(layer, np.einsum("mcq,cq...->mc...", mix, deep))[None]


def _as_matrix(layer: Layer, values: Array) -> Array:
    """[D, M'] of an array like the layer's weight but for its outputs."""
    if not layer.convolves:
        return values
    return np.moveaxis(values, 1, -1).reshape(values.shape[0], -1).T


def _loss(layer: Layer, moments: Moments, form: str, ranks: tuple[int, ...], parts: tuple[Array, ...]) -> Factors:
    whole = layer.matrix()
    weights = sum(p.size for p in parts)
    # What stands before the window of a strided convolution runs at all its input positions.
    strides = float(np.prod(attribute(layer.node, "strides", [1]))) if form == "tucker" else 1.0
    made = Factors(form, ranks, parts, weights, weights + (strides - 1) * parts[0].size, 0.0)
    error = whole - product_of(layer, made)
    return replace(made, loss=moments.cost(error) / max(moments.cost(whole), 1e-30))


def _some(most: int) -> list[int]:
    """Ranks up to `most`, at most `RANKS` of them, in steps of a power of two."""
    step = 1
    while most / step > RANKS:
        step *= 2
    return list(range(step, most + 1, step))


def _directions(layer: Layer, moments: Moments) -> Array:
    """The principal directions of the outputs, [M, M], the strongest first."""
    whole = layer.matrix()[0]
    _, vectors = np.linalg.eigh(whole.T @ moments.matrix[0] @ whole)
    return vectors[:, ::-1]


def _ranks(layer: Layer, moments: Moments) -> Iterator[Factors]:
    whole, directions = layer.matrix()[0], _directions(layer, moments)
    size, outputs = whole.shape
    for rank in _some(min(size * outputs // (size + outputs), min(size, outputs) - 1)):
        kept = directions[:, :rank]
        first, second = whole @ kept, kept.T
        if layer.convolves:
            shape = layer.weight.shape
            body = first.T.reshape(rank, *shape[2:], shape[1])
            ones = [1] * (len(shape) - 2)
            parts = (np.moveaxis(body, -1, 1), second.T.reshape(outputs, rank, *ones))
        else:
            parts = (first, second)
        yield _loss(layer, moments, "rank", (rank,), tuple(np.ascontiguousarray(p) for p in parts))


def _tuckers(layer: Layer, moments: Moments) -> Iterator[Factors]:
    """Equal shares of both ranks; the input side by the strongest directions of what each channel contributes."""
    shape = tuple(layer.weight.shape)
    if not layer.convolves or np.prod(shape[2:]) == 1:
        return
    weight = layer.weight.values.astype(np.float64)
    outputs, channels = shape[:2]
    out = _directions(layer, moments)
    unfolded = np.moveaxis(weight, 1, 0).reshape(channels, -1)
    _, into = np.linalg.eigh(unfolded @ unfolded.T)
    into = into[:, ::-1]
    ones = [1] * (len(shape) - 2)
    for rank in _some(outputs - 1):
        inner = max(round(rank * channels / outputs), 1)
        left, right = out[:, :rank], into[:, :inner]
        core = np.einsum("mc...,ma,cb->ab...", weight, left, right)
        parts = (right.T.reshape(inner, channels, *ones), core, left.reshape(outputs, rank, *ones))
        yield _loss(layer, moments, "tucker", (inner, rank), parts)


def _separables(layer: Layer, moments: Moments) -> Iterator[Factors]:
    shape = tuple(layer.weight.shape)
    window = int(np.prod(shape[2:]))
    if not layer.convolves or window == 1 or shape[1] < 2:
        return
    weight = layer.weight.values.astype(np.float64)
    outputs, channels = shape[:2]
    by_channel = np.moveaxis(weight, 1, 0).reshape(channels, outputs, window).transpose(0, 2, 1)
    left, values, right = np.linalg.svd(by_channel, full_matrices=False)  # [C, window, k], [C, k], [C, k, M]
    for filters in range(1, min(values.shape[1], 4) + 1):
        deep = left[:, :, :filters].transpose(0, 2, 1).reshape(channels * filters, 1, *shape[2:])
        mix = (values[:, :filters, None] * right[:, :filters]).reshape(channels * filters, outputs).T
        point = mix.reshape(outputs, channels * filters, *[1] * (len(shape) - 2))
        yield _loss(layer, moments, "separable", (filters,), (deep, np.ascontiguousarray(point)))
