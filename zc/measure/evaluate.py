"""Accuracy: one streaming pass of samples through one or several models, and how sure the difference is."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zc.data.samples import Samples
from zc.execute import Runs, opened
from zc.ir.graph import Array
from zc.ir.model import Model
from zc.measure.gauges import Gauge, open_gauge
from zc.track import Track

Source = Model | str | Path | Runs


@dataclass(frozen=True)
class Score:
    """How well a model does."""

    model: str
    metric: str
    value: float
    unit: str
    higher_is_better: bool
    rows: int
    error: float | None
    """Standard error of the value: another sample of as many rows would move it so far. None where it is not known."""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.metric} {figure(self.value)}{' ' + self.unit if self.unit else ''}"


@dataclass(frozen=True)
class Difference:
    """Value of a model less that of the first, on the same rows."""

    value: float
    error: float | None
    """Standard error of the paired difference: far below that of each value, since both see the same rows."""


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows."""

    a: Score
    b: Score
    difference: Difference
    """b less a."""

    @property
    def drop(self) -> float:
        """How much worse b is than a, in the metric's unit; negative where it is better."""
        return -self.difference.value if self.a.higher_is_better else self.difference.value


def evaluate(
    model: Source,
    samples: Samples,
    metric: str = "top1",
    *,
    reference: Source | None = None,
    batch: int = 32,
    label_offset: int = 0,
    output: str | None = None,
    threads: int | None = None,
    track: Track | None = None,
) -> Score:
    """Measure one model in one pass over the samples; one batch and sums are in memory.

    metric: a name of `zc.measure.metrics.METRICS`, or `package.module:function`.
    reference: the model that agree, sqnr, mse, ... compare with.
    label_offset: added to each label to give its class. output: the output to look at, where there are several.

    Raises:
        ZcError: labels or a reference are missing, or do not fit the outputs.
    """
    scores, _ = evaluate_all(
        [model],
        samples,
        metric,
        reference=reference,
        batch=batch,
        label_offset=label_offset,
        output=output,
        threads=threads,
        track=track,
    )
    return scores[0]


def compare(
    a: Source,
    b: Source,
    samples: Samples,
    metric: str = "top1",
    *,
    reference: Source | None = None,
    batch: int = 32,
    label_offset: int = 0,
    output: str | None = None,
    threads: int | None = None,
    track: Track | None = None,
) -> Comparison:
    """Measure two models on the same rows; `a` is the reference where the metric needs one and none is given."""
    scores, differences = evaluate_all(
        [a, b],
        samples,
        metric,
        reference=reference,
        batch=batch,
        label_offset=label_offset,
        output=output,
        threads=threads,
        track=track,
    )
    return Comparison(scores[0], scores[1], differences[0])


def evaluate_all(
    models: Sequence[Source],
    samples: Samples,
    metric: str = "top1",
    *,
    reference: Source | None = None,
    batch: int = 32,
    label_offset: int = 0,
    output: str | None = None,
    threads: int | None = None,
    track: Track | None = None,
) -> tuple[tuple[Score, ...], tuple[Difference, ...]]:
    """Measure models side by side: a score each, and a difference from the first for each of the others.

    The first is the reference where the metric compares with one, none is given and there are several models.
    """
    runners = [opened(model, threads) for model in models]
    names = _names([runner.name for runner in runners])
    against = None if reference is None else opened(reference, threads)
    gauge = open_gauge(
        metric,
        names,
        label_offset=label_offset,
        output=output,
        has_reference=against is not None or (len(models) > 1 and _takes_reference(metric, samples)),
        has_labels=samples.labels is not None,
    )
    done = 0
    for feed, rows in _batches(samples, batch, track):
        outputs = [runner.run(feed) for runner in runners]
        wanted = outputs[0] if against is None else against.run(feed)
        labels = None if samples.labels is None else samples.labels[done : done + rows]
        gauge.add(outputs, wanted, labels, rows)
        done += rows
    scores = tuple(_score(gauge, i, name, metric, done) for i, name in enumerate(names))
    return scores, tuple(Difference(*gauge.difference(i)) for i in range(1, len(models)))


def figure(value: float) -> str:
    """A score as a person reads it."""
    return f"{value:.2f}" if 1 <= abs(value) < 1e6 else f"{value:.4g}"


def _takes_reference(metric: str, samples: Samples) -> bool:
    """With several models and no reference: does the first one stand for it? Labels, where they are, go first."""
    from zc.measure.metrics import METRICS

    found = METRICS.get(metric)
    return found is not None and (found.truth == "reference" or (found.truth == "either" and samples.labels is None))


def _score(gauge: Gauge, index: int, name: str, metric: str, rows: int) -> Score:
    value, error = gauge.value(index)
    return Score(name, metric, value, gauge.unit, gauge.higher_is_better, rows, error, gauge.notes(index))


def _batches(samples: Samples, batch: int, track: Track | None) -> Iterator[tuple[dict[str, Array], int]]:
    """Feeds with the number of rows in each."""
    step = 1 if samples.reader.whole else samples.batch or batch
    feeds: Iterable[dict[str, Array]] = samples.batches(batch)
    if track is not None:
        feeds = track(feeds, "evaluate", -(-samples.rows // step))
    for number, feed in enumerate(feeds):
        yield feed, min(step, samples.rows - number * step)


def _names(names: Sequence[str]) -> list[str]:
    """Names that tell the models apart: equal ones get a number."""
    return [f"{n} ({names[: i + 1].count(n)})" if names.count(n) > 1 else n for i, n in enumerate(names)]
