"""What samples say of the channels that may be scaled: their extremes, and what rounding costs behind them."""

from collections.abc import Mapping, Sequence

import numpy as np

from zc.ir.graph import Array, Tensor
from zc.passes.layers.layers import Layer, find_layers
from zc.passes.prune.labels import Ints
from zc.passes.quantize.calibrate import stream
from zc.passes.quantize.scaling.flow import Flow, Reader
from zc.passes.quantize.scaling.rescale import Factors
from zc.passes.quantize.scaling.upstream import Rounding
from zc.passes.quantize.scheme import Scale, activation_scale
from zc.passes.quantize.trial import Source, Trial, Way, rounded_matrix, run_trials
from zc.pipeline.base import Context
from zc.target import Target

Extremes = Mapping[str, tuple[Array, Array]]
"""By name of a value: lowest and highest of each channel, as arrays that broadcast against its layout."""


def channel_extremes(source: Source, layouts: Mapping[str, Ints], ctx: Context) -> Extremes:
    """Extremes of the finite elements of values, by channel. layouts: by name, with labels where channels differ."""
    found: dict[str, tuple[Array, Array]] = {}
    for batch in stream(source.model, list(layouts), source.samples, ctx, "ranges of channels"):
        for name, layout in layouts.items():
            low, high = _extremes(batch[name], layout)
            if name in found:
                low, high = np.minimum(low, found[name][0]), np.maximum(high, found[name][1])
            found[name] = low, high
    return found


def _extremes(values: Array, layout: Ints) -> tuple[Array, Array]:
    """Zero counts as seen: it is part of every range."""
    axes = tuple(a for a, size in enumerate(layout.shape) if size == 1)
    finite = np.isfinite(values)
    low = values.min(axis=axes, keepdims=True, initial=0.0, where=finite)
    high = values.max(axis=axes, keepdims=True, initial=0.0, where=finite)
    return low, high


def rounding_errors(
    flow: Flow, candidates: Sequence[Factors], extremes: Extremes, source: Source, ctx: Context, *, by_row: bool
) -> dict[int, Array]:
    """What rounding activations and weights to 8 bits costs at the output of each reader, with each candidate.

    By id of the reader's node: squared error as a share of the squared output, [candidates]. Readers that are no plain
    matrix products are left out. by_row: weights have a scale for each output channel.
    """
    layers = {id(layer.node): layer for layer in find_layers(flow.model)[0]}
    rounding = Rounding(flow, ctx.target)
    trials = []
    for reader in flow.readers:
        layer = layers.get(id(reader.edit.node))
        if layer is not None and not flow.pinned(reader.layout):
            before = [t for t in rounding.before(reader.value) if t.name in extremes]
            ways = [_way(flow, layer, reader, before, one, extremes, ctx.target, by_row) for one in candidates]
            trials.append(Trial(layer, ways))
    run_trials(trials, source, ctx, "compare factors")
    return {id(trial.layer.node): trial.errors for trial in trials}


def _way(
    flow: Flow,
    layer: Layer,
    reader: Reader,
    before: Sequence[Tensor],
    factors: Factors,
    extremes: Extremes,
    target: Target,
    by_row: bool,
) -> Way:
    """A layer as it is rounded with some factors. before: values whose rounding adds to that of what it reads."""

    def scale(tensor: Tensor) -> Scale:
        low, high = (factors[flow.of(tensor)] * side for side in extremes[tensor.name])
        return activation_scale(float(low.min()), float(high.max()), target.activations, target.symmetric_activations)

    matrix = layer.matrix()
    window = int(np.prod(layer.weight.shape[2:])) if layer.convolves else 1
    inputs = layer.groups * matrix.shape[1] // window
    columns = layer.columns(np.broadcast_to(factors[reader.layout].reshape(-1), inputs))
    made = np.broadcast_to(factors[reader.made].reshape(-1), layer.channels).reshape(layer.groups, 1, -1)
    weight = rounded_matrix(matrix * made / columns[:, :, None], by_row=by_row) / made
    return Way(scale(reader.value), weight, columns, sum(float(scale(t).scale) ** 2 / 12 for t in before))
