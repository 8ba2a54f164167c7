"""What passes that rewrite weights layer by layer share: which layers, what their inputs look like, how it went."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zc.data import Samples
from zc.data.split import Split, hold_back
from zc.ir.graph import Array, Constant, describe
from zc.ir.model import Model
from zc.measure.agreement import Reference
from zc.passes.layers.layers import Layer, find_layers
from zc.passes.patterns import first_match, require_matches
from zc.passes.prune.observations import observe
from zc.pipeline.base import Context, PassResult

LOOKED_AT = 512
"""Rows that layers' inputs are looked at on."""
DAMPING = 1e-2
"""Added to the diagonal of moments, in units of its mean."""


@dataclass(frozen=True, eq=False)
class Moments:
    """What errors of a layer's weights cost at its outputs, on average over positions."""

    matrix: Array
    """[groups, D, D], positive definite: an error e of the weights of an output costs e^T matrix e."""
    mean: Array
    """Of the inputs, [groups, D]; zeros where the layer has no place for a bias."""

    def cost(self, error: Array) -> float:
        """Of an error of the weights, [groups, D, M]."""
        return float((error * (self.matrix @ error)).sum())


def choose_layers(model: Model, skip: Sequence[str], only: Sequence[str], result: PassResult) -> list[Layer]:
    """The layers that the options leave, in the order of the graph; what cannot be rewritten is declined.

    Raises:
        ZcError: a pattern matches no node and no weight.
    """
    layers, refused = find_layers(model)
    names = [*(w for layer in layers for w in _words(layer)), *(describe(node) for node, _ in refused)]
    for option, patterns in (("skip", skip), ("only", only)):
        require_matches(option, patterns, names, "layer and no weight")
    for node, why in refused:
        if first_match([describe(node)], skip) is None and (not only or first_match([describe(node)], only)):
            result.declined(describe(node), why)
    return [
        one
        for one in layers
        if first_match(_words(one), skip) is None and (not only or first_match(_words(one), only) is not None)
    ]


def moments_of(model: Model, layers: Sequence[Layer], samples: Samples | None, ctx: Context) -> dict[int, Moments]:
    """By id of a layer's node; none without samples, and none of layers with too many inputs to hold them."""
    if samples is None or not layers:
        return {}
    rows = min(samples.rows, LOOKED_AT)
    batch = samples.batch or 1
    seen = observe(model, layers, samples.take(0, max(rows // batch, 1) * batch), ctx)
    found = {}
    for layer in layers:
        normal = seen[id(layer.node)].normal
        if normal is None:
            continue
        mean = normal.mean()
        matrix = normal.shrunk()
        if not layer.may_shift:
            matrix = matrix + mean[:, :, None] * mean[:, None, :]
            mean = np.zeros_like(mean)
        size = matrix.shape[1]
        level = np.trace(matrix, axis1=1, axis2=2)[:, None, None] / size
        least = DAMPING * (level + 1e-3 * level.mean() + 1e-12)
        found[id(layer.node)] = Moments(matrix + least * np.eye(size), mean)
    return found


def plain_moments(layer: Layer) -> Moments:
    """Where nothing is known of a layer's inputs: all alike, independent, of mean 0."""
    size = layer.inputs
    eye = np.broadcast_to(np.eye(size), (layer.groups, size, size))
    return Moments(eye, np.zeros((layer.groups, size)))


def forget(model: Model, weights: Sequence[Constant]) -> None:
    """Drop those of these weights that nothing reads any more from what the main graph declares."""
    gone = {id(c) for c in weights if not c.outputs}
    model.graph.declared = [c for c in model.graph.declared if id(c) not in gone]


class Outcome:
    """How a pass that rewrites weights went: agreement with the model as it was, on rows held back."""

    def __init__(self, model: Model, ctx: Context) -> None:
        """Remember what the model says. Without samples of the user's nothing is measured."""
        given = ctx.samples if ctx.samples is not None and not ctx.samples.synthetic else None
        self.split: Split | None = None if given is None else hold_back(given)
        self._reference = None if self.split is None else Reference(model, self.split.held, ctx.threads)

    @property
    def fit(self) -> Samples | None:
        """The rows to look at."""
        return None if self.split is None else self.split.fit

    def tell(self, model: Model, result: PassResult) -> None:
        """Put the agreement into the statistics."""
        if self._reference is not None:
            found = self._reference.agreement(model)
            result.stats.update(agreement=round(found.share, 4), sqnr_db=round(found.sqnr, 2))


def _words(layer: Layer) -> tuple[str, str]:
    return describe(layer.node), layer.weight.name
