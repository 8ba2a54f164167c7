"""How far the values inside two models are apart, layer by layer: in isolation and accumulated.

    comparison = compare_values(load("model.onnx"), load("int8.onnx"), samples)
    comparison.first_bad(20.0)

Accumulated: both models run on the same samples. In isolation: each layer of the second model computes from the first
model's values, so that what is measured is the error that this layer alone adds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zc.data.samples import Samples
from zc.errors import ZcError
from zc.ir.graph import Array
from zc.ir.model import Model
from zc.kernels.distance import error_sums
from zc.measure.compare_alone import cut
from zc.measure.compare_probe import Reader, Size, probe
from zc.measure.compare_values import Layer, Pair, layer_of, match_values
from zc.measure.tensor_error import decibels
from zc.track import Track, untracked

MEMORY = 256 * 2**20
"""Bytes that the values of one batch may take outside the sessions."""

MOST_ROWS = 32

EXACT_DB = 110.0
"""Signal to noise from which on a difference is float noise."""


@dataclass(frozen=True)
class Distance:
    """How far an array is from another, over all samples."""

    sqnr_db: float
    cosine: float


@dataclass(frozen=True)
class ComparedValue:
    """A value that both models have."""

    name: str
    """In the first model."""
    other: str
    """In the second model."""
    op: str
    """The operators that make it in the first model, `Conv+Relu`; empty for an input."""
    node: str
    """The node that a message names: the one with a weight, else the last."""
    shape: tuple[int, ...]
    """Of the first sample."""
    total: Distance
    """With the errors of all layers before it."""
    alone: Distance | None
    """With the error of its own layer only; None where the layer cannot run alone."""
    scaled: bool
    """Is the second value the first one times a constant, for each channel or for all? Then that is divided out."""
    before_db: float
    """The lowest accumulated signal to noise among the values that its layer reads; infinite for the first layer."""

    @property
    def rise(self) -> float:
        """How much the noise-to-signal ratio rises in this layer."""
        return 10 ** (-self.total.sqnr_db / 10) - 10 ** (-self.before_db / 10)

    @property
    def exact(self) -> bool:
        """Does its layer add no more than float noise?"""
        return self.alone is not None and self.alone.sqnr_db >= EXACT_DB


@dataclass(frozen=True)
class ValueComparison:
    """Two models, value by value."""

    names: tuple[str, str]
    values: tuple[ComparedValue, ...]
    """In the order of the first model."""
    other_shape: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    """Values that both have in different sizes: name, size in the first and in the second model."""
    only_a: tuple[str, ...]
    """Values of the first model that no value of the second stands for: those inside of what was fused, or removed."""
    only_b: tuple[str, ...]
    rows: int
    notes: tuple[str, ...] = ()

    def first_bad(self, threshold: float) -> ComparedValue | None:
        """The first value whose own layer leaves it less signal to noise than `threshold` dB."""
        return next((v for v in self.values if v.alone is not None and v.alone.sqnr_db < threshold), None)

    def biggest_fall(self) -> ComparedValue | None:
        """The value at which the accumulated noise rises most against the signal."""
        rising = [v for v in self.values if v.rise > 0]
        return max(rising, key=lambda v: v.rise, default=None)


def compare_values(
    a: Model, b: Model, samples: Samples, *, threads: int | None = None, track: Track = untracked
) -> ValueComparison:
    """Compare the values of the main graphs of two models that take the same inputs.

    Q/DQ nodes are transparent: a value of a quantised model is what its codes stand for. Memory is bounded: one batch
    of values and sums; where one row alone takes too much, the values are compared in several passes.

    Raises:
        ZcError: the models take different inputs, no value of one stands for any of the other, or a run fails.
    """
    _require_same_inputs(a, b)
    found = match_values(a, b)
    sizes = probe(a, b, found.pairs, samples, threads)
    pairs = [p for p in found.pairs if id(p) in sizes and sizes[id(p)].equal]
    if not any(p.tensor.inputs for p in pairs):
        raise ZcError(f"{b.name}: no value in it stands for one of {a.name} with the same size; compare like models")
    meter = _Meter(a, b, [(p, sizes[id(p)]) for p in pairs], threads)
    meter.measure(samples, track)
    known = {id(p.tensor): p for p in pairs}
    values = []
    for pair in pairs:
        layer = layer_of(pair, known)
        if layer.op or pair.b.codes:
            values.append(meter.result(pair, layer))
    other = [(p.a.label, *sizes[id(p)].shapes) for p in found.pairs if id(p) in sizes and not sizes[id(p)].equal]
    return ValueComparison(
        (a.name, b.name), tuple(values), tuple(other), found.only_a, found.only_b, samples.rows, tuple(meter.notes)
    )


def _require_same_inputs(a: Model, b: Model) -> None:
    """ZcError unless both take arrays of the same names, types and sizes (open ones fit any)."""
    theirs = {s.name: s for s in b.inputs}
    for mine in a.inputs:
        other = theirs.pop(mine.name, None)
        if other is None:
            raise ZcError(f"{b.name}: has no input '{mine.name}' as {a.name} has; compare models with the same inputs")
        dims = zip(mine.shape or (), other.shape or (), strict=False)
        ranks = None if None in (mine.shape, other.shape) else [len(s.shape or ()) for s in (mine, other)]
        clash = any(isinstance(x, int) and isinstance(y, int) and x != y for x, y in dims)
        if mine.dtype != other.dtype or clash or (ranks and ranks[0] != ranks[1]):
            raise ZcError(f"{b.name}: takes {other}, but {a.name} takes {mine}; compare models with the same inputs")
    if theirs:
        raise ZcError(
            f"{b.name}: also takes '{next(iter(theirs))}', {a.name} does not; compare models with the same inputs"
        )


class _Sums:
    """Of one value: what signal to noise and cosine are made of. Elements that are finite in both arrays count."""

    def __init__(self) -> None:
        self.want = self.got = self.both = self.noise = 0.0
        self.ran = False

    def add(self, got: Array, want: Array) -> None:
        """Arrays of equal size."""
        self.ran = True
        flat = (np.ascontiguousarray(v, np.float32).reshape(-1) for v in (got, want))
        want_sum, got_sum, both, noise = error_sums(*flat)
        self.want, self.got = self.want + want_sum, self.got + got_sum
        self.both, self.noise = self.both + both, self.noise + noise

    def distance(self) -> Distance:
        """What they come to."""
        norms = float(np.sqrt(self.want) * np.sqrt(self.got))
        cosine = self.both / norms if norms else float(self.want == self.got)
        return Distance(decibels(self.want, self.noise), min(1.0, cosine))


class _Meter:
    """Runs both models, and the second one cut into its layers, batch by batch."""

    def __init__(self, a: Model, b: Model, pairs: Sequence[tuple[Pair, Size]], threads: int | None) -> None:
        self.a, self.b, self.threads = a, b, threads
        self.pairs = [pair for pair, _ in pairs]
        self.sizes = {id(pair): size for pair, size in pairs}
        self.total = {id(pair): _Sums() for pair in self.pairs}
        self.alone = {id(pair): _Sums() for pair in self.pairs}
        self.notes: list[str] = []
        self.cut = cut(b, [(pair.b, size.dtype, len(size.shapes[1])) for pair, size in pairs])

    def measure(self, samples: Samples, track: Track) -> None:
        """Fill the sums."""
        parts = list(self._parts())
        for number, part in enumerate(parts):
            row = sum(self.sizes[id(p)].bytes for p in part)
            size = max(1, min(MOST_ROWS, MEMORY // max(row, 1)))
            step = 1 if samples.reader.whole else samples.batch or size
            label = "compare" if len(parts) == 1 else f"compare, part {number + 1} of {len(parts)}"
            run = _Part(self, part)
            for feed in track(samples.batches(size), label, -(-samples.rows // step)):
                run.add(feed)

    def _parts(self) -> Iterator[list[Pair]]:
        """The pairs in groups of which one row is not too big."""
        part: list[Pair] = []
        held = 0
        for pair in self.pairs:
            count = self.sizes[id(pair)].bytes
            if part and held + count > MEMORY:
                yield part
                part, held = [], 0
            part.append(pair)
            held += count
        yield part

    def result(self, pair: Pair, layer: Layer) -> ComparedValue:
        """What was found of one value."""
        before = [self.total[id(p)].distance().sqnr_db for p in layer.reads]
        alone = self.alone[id(pair)]
        return ComparedValue(
            pair.a.label,
            pair.b.label,
            layer.op,
            layer.node,
            self.sizes[id(pair)].shapes[0],
            self.total[id(pair)].distance(),
            alone.distance() if alone.ran else None,
            self.sizes[id(pair)].factor is not None,
            min(before, default=float("inf")),
        )


class _Part:
    """The sessions for some of the values."""

    def __init__(self, meter: _Meter, pairs: Sequence[Pair]) -> None:
        self.meter, self.pairs = meter, pairs
        model, wanted = meter.cut.part([p.b for p in pairs])
        self.fed = [p for p in meter.pairs if id(p.b) in wanted]
        names = [p.a.seen for p in (*pairs, *self.fed)]
        self.mine = Reader(meter.a, names, meter.threads)
        self.theirs = Reader(meter.b, [p.b.seen for p in pairs], meter.threads)
        self.layers: Reader | None = None
        try:
            self.layers = Reader(model, [p.b.seen for p in pairs], meter.threads)
        except ZcError as err:
            self._no_layers(err)

    def add(self, feed: Mapping[str, Array]) -> None:
        """Run one batch."""
        meter = self.meter
        mine, theirs = self.mine.run(feed), self.theirs.run(feed)
        want = {id(p): p.a.real(mine[p.a.seen]) for p in (*self.pairs, *self.fed)}
        for pair in self.pairs:
            self._one(meter.total[id(pair)], pair, theirs, want)
        if self.layers is None:
            return
        inputs = {meter.cut.fed[id(p.b)]: meter.sizes[id(p)].given(want[id(p)]) for p in self.fed}
        try:
            apart = self.layers.run({**feed, **inputs})
        except ZcError as err:
            self._no_layers(err)
            return
        for pair in self.pairs:
            self._one(meter.alone[id(pair)], pair, apart, want)

    def _one(self, sums: _Sums, pair: Pair, values: Mapping[str, Array], want: Mapping[int, Array]) -> None:
        got, factor = pair.b.real(values[pair.b.seen]), self.meter.sizes[id(pair)].factor
        if factor is not None:
            got = got / factor
        if got.shape == want[id(pair)].shape:  # how much there is may hang on the values, as with boxes
            sums.add(got, want[id(pair)])

    def _no_layers(self, err: ZcError) -> None:
        self.layers = None
        for pair in self.pairs:
            self.meter.alone[id(pair)] = _Sums()
        self.meter.notes.append(f"its layers cannot be run one by one: {err}")
