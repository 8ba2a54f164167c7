"""What samples say of the channels that may be scaled: their extremes, and what rounding costs behind them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zc.data import Samples
from zc.ir.graph import Array, Tensor
from zc.ir.model import Model
from zc.passes.layers.layers import Layer, find_layers
from zc.passes.layers.rows import choose_positions, rows_of
from zc.passes.prune.labels import Ints
from zc.passes.quantize.calibrate import stream
from zc.passes.quantize.scaling.flow import Flow, Reader
from zc.passes.quantize.scaling.rescale import Factors
from zc.passes.quantize.scaling.upstream import Rounding
from zc.passes.quantize.scheme import WEIGHT_LIMIT, Scale, activation_scale
from zc.pipeline.base import Context
from zc.target import Target

Extremes = Mapping[str, tuple[Array, Array]]
"""By name of a value: lowest and highest of each channel, as arrays that broadcast against its layout."""

TRIAL_ROWS = 64
"""Most samples on which candidates are compared."""

TRIAL_POSITIONS = 512
"""Output positions of a layer at which they are compared; eight images have as many."""


@dataclass(frozen=True, eq=False)
class Source:
    """Where values are looked at: a model with values of these names, and samples for it."""

    model: Model
    samples: Samples


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
    readers = [r for r in flow.readers if id(r.edit.node) in layers and not flow.pinned(r.layout)]
    if not readers:
        return {}
    trials, rounding = [], Rounding(flow, ctx.target)
    for reader in readers:
        before = [t for t in rounding.before(reader.value) if t.name in extremes]
        steps = _steps(flow, reader, before, candidates, extremes, ctx.target)
        trials.append(_Trial(layers[id(reader.edit.node)], reader, candidates, steps, by_row))
    samples = source.samples
    few = samples.take(0, min(samples.rows, TRIAL_ROWS)) if samples.batch is None else samples
    names = list(dict.fromkeys(r.value.name for r in readers))
    for number, batch in enumerate(stream(source.model, names, few, ctx, "compare factors")):
        for place, trial in enumerate(trials):
            trial.add(batch[trial.layer.source.name], 1000 * place + number)
        if all(trial.rows >= TRIAL_POSITIONS for trial in trials):
            break
    return {id(trial.layer.node): trial.noise / max(trial.signal, 1e-30) for trial in trials}


@dataclass(frozen=True)
class _Steps:
    """How a layer's input is rounded with one candidate."""

    scale: Scale
    extra: float
    """Variance of the rounding of what was summed to make it."""


def _steps(
    flow: Flow,
    reader: Reader,
    before: Sequence[Tensor],
    candidates: Sequence[Factors],
    extremes: Extremes,
    target: Target,
) -> list[_Steps]:
    def scale(tensor: Tensor, factors: Factors) -> Scale:
        low, high = (factors[flow.of(tensor)] * side for side in extremes[tensor.name])
        return activation_scale(float(low.min()), float(high.max()), target.activations, target.symmetric_activations)

    return [
        _Steps(scale(reader.value, one), sum(float(scale(t, one).scale) ** 2 / 12 for t in before))
        for one in candidates
    ]


class _Trial:
    """One layer with each candidate: its rounded weights, and the errors so far."""

    def __init__(
        self, layer: Layer, reader: Reader, candidates: Sequence[Factors], steps: Sequence[_Steps], by_row: bool
    ) -> None:
        self.layer = layer
        self.rows = 0
        matrix = layer.matrix()
        self.noise = np.zeros(len(candidates))
        self.signal = 0.0
        self._plain = matrix.astype(np.float32)
        self._ways = []
        window = int(np.prod(layer.weight.shape[2:])) if layer.convolves else 1
        inputs = layer.groups * matrix.shape[1] // window
        for factors, step in zip(candidates, steps, strict=True):
            columns = layer.columns(np.broadcast_to(factors[reader.layout].reshape(-1), inputs))
            rows = np.broadcast_to(factors[reader.made].reshape(-1), layer.channels)
            made = 1.0 if by_row else rows.reshape(layer.groups, 1, -1)
            weight = _rounded(matrix * made / columns[:, :, None], by_row) / made
            extra = step.extra * float(np.square(weight).sum()) / layer.groups
            self._ways.append((columns.astype(np.float32), step.scale, weight.astype(np.float32), extra))

    def add(self, source: Array, seed: int) -> None:
        """Compare on some positions of a batch."""
        rows = rows_of(self.layer, source, choose_positions(self.layer, source, seed)).astype(np.float32)
        rows = rows[:, :: -(-rows.shape[1] // TRIAL_POSITIONS)]
        want = rows @ self._plain
        self.rows += rows.shape[1]
        self.signal += float(np.square(want, dtype=np.float64).sum())
        for i, (columns, scale, weight, extra) in enumerate(self._ways):
            codes = scale.quantize(rows * columns[:, None]).astype(np.float32) - np.float32(scale.zero_point)
            error = (codes * scale.scale) @ weight - want
            self.noise[i] += float(np.square(error, dtype=np.float64).sum()) + extra * rows.shape[0] * rows.shape[1]


def _rounded(weight: Array, by_row: bool) -> Array:
    """Nearest of 255 levels, of [groups, D, M]."""
    largest = np.abs(weight).max(axis=1, keepdims=True) if by_row else np.abs(weight).max()
    step = np.where(largest > 0, largest, 1.0) / WEIGHT_LIMIT
    return np.asarray(np.rint(weight / step) * step)
