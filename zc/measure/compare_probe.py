"""What must be known of two values before they can be compared: their sizes, and whether one is the other scaled.

A pass may move a scale from one layer into the next: all values between them are then other numbers that mean the same.

    a:  x -> Conv(w) -> Relu -> y -> Conv(v)          b:  x -> Conv(w * s) -> Relu -> y * s -> Conv(v / s)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zc.data.samples import Samples
from zc.execute import Runner
from zc.ir.graph import Array
from zc.ir.model import Model
from zc.measure.compare_values import Pair
from zc.measure.tensor_error import decibels, sqnr

_AT_ONCE = 256
"""Values that are read out in one session."""

_SUSPECT_DB = 20.0
"""Values that are closer are not looked at for a scale."""
_ROWS = 16
_GAIN_DB = 3.0
"""So much must one factor for all channels explain."""
_CHANNEL_GAIN_DB, _CHANNEL_LEAST_DB = 10.0, 10.0
"""So much must a factor for each channel explain, and so little noise must it leave."""
_OFF = 0.05
"""A channel is scaled if its factor is so far from 1; half of the channels must be."""
_CHANNELS = 4
"""Of fewer channels a factor may as well be what the layer does wrong."""
_WHOLE_OFF, _ALIKE = 0.25, 0.1
"""One factor for all channels is so far from 1, and the factor of half of the channels is so close to it."""


@dataclass(frozen=True)
class Size:
    """Of a pair of values, for one row."""

    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    dtype: np.dtype
    """Of the float form in the second model."""
    bytes: int
    """That they take in three sessions: both models, and the layers of the second."""
    factor: Array | None = None
    """The second value is the first times this, which broadcasts. None: they are meant to be equal."""

    @property
    def equal(self) -> bool:
        """Have both the same size?"""
        return self.shapes[0] == self.shapes[1]

    def given(self, value: Array) -> Array:
        """The first model's value as the second model has it."""
        return np.asarray(value if self.factor is None else value * self.factor).astype(self.dtype, copy=False)


class Reader:
    """Reads values of the main graph out of a model. An input cannot be asked for as an output; it is at hand."""

    def __init__(self, model: Model, names: Sequence[str], threads: int | None) -> None:
        given = {t.name for t in model.graph.inputs}
        self.given = [n for n in names if n in given]
        wanted = [n for n in dict.fromkeys(names) if n not in given]
        self.runner = Runner(model, outputs=wanted, threads=threads) if wanted else None

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """The values by name."""
        return {n: feed[n] for n in self.given} | (self.runner.run(feed) if self.runner else {})


def probe(a: Model, b: Model, pairs: Sequence[Pair], samples: Samples, threads: int | None) -> dict[int, Size]:
    """By id of a pair: sizes and scales of the values that are floats in both models, learnt from a few rows."""
    ends = {t.name for t in b.graph.outputs}  # what the model returns is not scaled
    feed = next(samples.batches(1))
    sizes: dict[int, Size] = {}
    suspects: list[Pair] = []
    for start in range(0, len(pairs), _AT_ONCE):
        some = pairs[start : start + _AT_ONCE]
        mine = Reader(a, [p.a.seen for p in some], threads).run(feed)
        theirs = Reader(b, [p.b.seen for p in some], threads).run(feed)
        for pair in some:
            x, y = mine[pair.a.seen], theirs[pair.b.seen]
            size = _size(pair, x, y)
            if size is None:
                continue
            sizes[id(pair)] = size
            inner = size.equal and pair.tensor.inputs and not ends & set(pair.b.floats)
            if inner and x.ndim > 1 and _closeness(pair.b.real(y), pair.a.real(x)) < _SUSPECT_DB:
                suspects.append(pair)
    if suspects:
        sizes |= _scaled(a, b, suspects, sizes, samples, threads)
    return sizes


def _size(pair: Pair, x: object, y: object) -> Size | None:
    if not isinstance(x, np.ndarray) or not isinstance(y, np.ndarray) or not x.size:
        return None
    if not (pair.a.codes or x.dtype.kind == "f") or not (pair.b.codes or y.dtype.kind == "f"):
        return None
    dtype = np.dtype(np.float32) if pair.b.codes else y.dtype
    return Size((x.shape, y.shape), dtype, x.nbytes + 2 * y.nbytes + 4 * x.size)


def _closeness(got: Array, want: Array) -> float:
    fine = np.isfinite(got) & np.isfinite(want)
    return sqnr(got[fine], want[fine])


class _Channels:
    """Sums by channel along one axis, of which the factor of each channel is the regression."""

    def __init__(self, axis: int) -> None:
        self.axis = axis
        self.both = self.want = self.got = np.zeros(1)

    def add(self, got: Array, want: Array) -> None:
        fine = np.isfinite(got) & np.isfinite(want)
        got, want = np.where(fine, got, 0), np.where(fine, want, 0)
        g, w = (np.moveaxis(v, self.axis, 0).reshape(v.shape[self.axis], -1).astype(np.float64) for v in (got, want))
        self.both, self.want, self.got = (
            self.both + (g * w).sum(1),
            self.want + (w * w).sum(1),
            self.got + (g * g).sum(1),
        )

    def factors(self) -> Array:
        """Of each channel; 1 for one that is zero throughout."""
        return np.where(self.want > 0, self.both / np.where(self.want > 0, self.want, 1), 1.0)

    def unscaled(self, factors: Array) -> float:
        """Signal to noise in dB once the factors are divided out; minus infinite where one is not positive."""
        if (factors <= 0).any() or not np.isfinite(factors).all():
            return float("-inf")
        noise = self.got / factors**2 - 2 * self.both / factors + self.want
        return decibels(float(self.want.sum()), float(np.maximum(noise, 0).sum()))


def _scaled(
    a: Model, b: Model, pairs: Sequence[Pair], sizes: Mapping[int, Size], samples: Samples, threads: int | None
) -> dict[int, Size]:
    """The pairs that are equal but for a factor for each channel or for all."""
    sums = {id(p): (_Channels(1), _Channels(-1)) for p in pairs}
    for start in range(0, len(pairs), _AT_ONCE):
        some = pairs[start : start + _AT_ONCE]
        mine, theirs = Reader(a, [p.a.seen for p in some], threads), Reader(b, [p.b.seen for p in some], threads)
        for number, feed in enumerate(samples.batches(1)):
            if number == _ROWS:
                break
            x, y = mine.run(feed), theirs.run(feed)
            for pair in some:
                got, want = pair.b.real(y[pair.b.seen]), pair.a.real(x[pair.a.seen])
                for one in sums[id(pair)]:
                    if got.shape == want.shape and one.want.size in (1, got.shape[one.axis]):
                        one.add(got, want)
    found = {}
    for pair in pairs:
        size = sizes[id(pair)]
        factor = _factor(sums[id(pair)], len(size.shapes[0]))
        if factor is not None:
            found[id(pair)] = Size(size.shapes, size.dtype, size.bytes, factor)
    return found


def _factor(channels: Sequence[_Channels], rank: int) -> Array | None:
    """What the second value must be divided by, or None where no scale explains the difference."""
    for one in channels:
        plain, factors = one.unscaled(np.ones(1)), one.factors()
        live = factors[one.want > 0]
        if live.size < _CHANNELS or np.mean(np.abs(live - 1) > _OFF) < 0.5:
            continue
        whole = float(np.median(live))
        alike = abs(whole - 1) > _WHOLE_OFF and np.mean(np.abs(live - whole) < _ALIKE * abs(whole)) > 0.5
        if alike and one.unscaled(np.full(1, whole)) >= plain + _GAIN_DB:
            return np.full([1] * rank, whole, np.float32)
        if one.unscaled(factors) >= max(plain + _CHANNEL_GAIN_DB, _CHANNEL_LEAST_DB):
            shape = [1] * rank
            shape[one.axis] = factors.size
            return np.asarray(factors.reshape(shape), np.float32)
    return None
