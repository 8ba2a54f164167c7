"""Trials: what ways of rounding a layer cost at its output, each layer by itself, on the values that it reads."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zc.data import Samples
from zc.ir.graph import Array
from zc.ir.model import Model
from zc.passes.layers.layers import Layer
from zc.passes.layers.rows import choose_positions, rows_of
from zc.passes.quantize.calibrate import stream
from zc.passes.quantize.scheme import WEIGHT_LIMIT, Scale
from zc.pipeline.base import Context

ROWS = 64
"""Most samples on which ways are compared."""

POSITIONS = 512
"""Output positions of a layer at which they are compared; eight images have as many."""


@dataclass(frozen=True, eq=False)
class Source:
    """Where values are looked at: a model with values of these names, and samples for it."""

    model: Model
    samples: Samples


@dataclass(frozen=True, eq=False)
class Way:
    """How a layer is rounded."""

    scale: Scale
    """Of what it reads."""
    weight: Array
    """Rounded, float [groups, D, M]; see `zc.passes.layers`."""
    columns: Array | None = None
    """Factors of what it reads, float [groups, D]; the weight undoes them."""
    variance: float = 0.0
    """Of the rounding that what it reads has seen before."""


class Trial:
    """One layer, and what each way of rounding it has cost so far."""

    def __init__(self, layer: Layer, ways: Sequence[Way]) -> None:
        self.layer, self.ways = layer, ways
        self.rows = 0
        self._noise: list[Array] = []
        """For each batch: squared error, [ways, samples]."""
        self._signal: list[Array] = []
        self._plain = layer.matrix().astype(np.float32)
        self._weights = [way.weight.astype(np.float32) for way in ways]
        self._columns = [None if way.columns is None else way.columns.astype(np.float32)[:, None] for way in ways]
        self._before = [way.variance * float(np.square(way.weight).sum()) for way in ways]

    @property
    def errors(self) -> Array:
        """Squared error at the output as a share of its square, for each way."""
        noise = np.concatenate(self._noise, axis=1).sum(axis=1)
        return np.asarray(noise / max(float(np.concatenate(self._signal).sum()), 1e-30))

    @property
    def typical(self) -> Array:
        """The same of each sample by itself, at most 1, on average: a sample that is ruined counts as no more."""
        shares = np.concatenate(self._noise, axis=1) / np.maximum(np.concatenate(self._signal), 1e-30)
        return np.asarray(np.minimum(shares, 1.0).mean(axis=1))

    def add(self, source: Array, seed: int) -> None:
        """Compare on some positions of a batch of what the layer reads."""
        positions = choose_positions(self.layer, source, seed)
        positions = positions[:, :: -(-positions.size // POSITIONS)]
        samples = len(positions)
        rows = rows_of(self.layer, source, positions).astype(np.float32)
        want = rows @ self._plain
        self.rows += rows.shape[1]
        self._signal.append(_by_sample(want, samples))
        noise = []
        for i, way in enumerate(self.ways):
            columns = self._columns[i]
            codes = way.scale.quantize(rows if columns is None else rows * columns).astype(np.float32)
            real = (codes - np.float32(way.scale.zero_point)) * way.scale.scale
            noise.append(_by_sample(real @ self._weights[i] - want, samples))
            noise[-1] += self._before[i] * positions.shape[1]
        self._noise.append(np.stack(noise))


def _by_sample(output: Array, samples: int) -> Array:
    """Sum of squares of each sample, of [groups, samples x positions, M]."""
    squares = np.square(output, dtype=np.float64).sum(axis=(0, 2))
    return np.asarray(squares.reshape(samples, -1).sum(axis=1))


def run_trials(trials: Sequence[Trial], source: Source, ctx: Context, label: str) -> None:
    """Compare on as many samples as it takes."""
    samples = source.samples
    few = samples.take(0, min(samples.rows, ROWS)) if samples.batch is None else samples
    names = list(dict.fromkeys(trial.layer.source.name for trial in trials))
    for number, batch in enumerate(stream(source.model, names, few, ctx, label) if trials else ()):
        for place, trial in enumerate(trials):
            trial.add(batch[trial.layer.source.name], 1000 * place + number)
        if all(trial.rows >= POSITIONS for trial in trials):
            break


def rounded_matrix(matrix: Array, *, by_row: bool) -> Array:
    """Nearest of 255 levels of a matrix [groups, D, M]; by_row: each output channel has a scale of its own."""
    largest = np.abs(matrix).max(axis=1, keepdims=True) if by_row else np.abs(matrix).max()
    step = np.where(largest > 0, largest, 1.0) / WEIGHT_LIMIT
    return np.asarray(np.rint(matrix / step) * step)


def db(error: float) -> float:
    """A share of squared error in decibels."""
    return float(-10 * np.log10(max(error, 1e-30)))
