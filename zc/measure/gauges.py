"""What gathers a metric over the batches of one pass, for several models at once, so that pairs can be compared."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from zc.data.callable import named_function
from zc.errors import ZcError, nearest
from zc.execute import held_bytes
from zc.ir.graph import Array
from zc.measure.metrics import Metric, class_ids, find_metric, scores_of
from zc.measure.moments import Moments

Outputs = Mapping[str, Array]
_HELD_LIMIT = 1 << 30
_ONE_CLASS = 20


class Gauge(Protocol):
    """Takes the outputs of all models batch by batch; then knows each model's figure and the differences."""

    unit: str
    higher_is_better: bool

    def add(self, outputs: Sequence[Outputs], reference: Outputs | None, labels: Array | None, rows: int) -> None:
        """One batch: what each model returned for it, what the reference returned, its labels, its number of rows."""

    def value(self, model: int) -> tuple[float, float | None]:
        """The figure of a model and its standard error."""

    def difference(self, model: int) -> tuple[float, float | None]:
        """Figure of a model less that of the first, and the standard error of this paired difference."""

    def notes(self, model: int) -> tuple[str, ...]:
        """What the user should hear of a model's figure."""


def open_gauge(
    metric: str, models: Sequence[str], *, label_offset: int, output: str | None, has_reference: bool, has_labels: bool
) -> Gauge:
    """The gauge of a metric for models of these names.

    Raises:
        ZcError: no such metric or function; it needs labels or a reference that are not given.
    """
    if ":" in metric:
        return FunctionGauge(metric, models)
    found = find_metric(metric)
    if found.truth == "labels" and not has_labels:
        raise ZcError(
            f"{metric} needs labels and the samples have none (an array y, label or labels; labels.csv in a folder of "
            "images); without labels, compare with another model: metric agree with a reference"
        )
    if found.truth == "reference" and not has_reference:
        raise ZcError(f"{metric} compares with a reference model, and none is given (--reference MODEL.onnx)")
    if found.truth == "either" and not has_reference and not has_labels:
        raise ZcError(f"{metric} compares with a reference model or with labels, and neither is given")
    return RowGauge(found, models, label_offset, output, has_reference and found.truth != "labels")


class RowGauge:
    """A metric that is made of numbers for each row. Holds means and covariances only."""

    def __init__(
        self, metric: Metric, models: Sequence[str], offset: int, output: str | None, by_reference: bool
    ) -> None:
        self.metric, self.models, self.offset, self.output = metric, models, offset, output
        self.unit, self.higher_is_better = metric.unit, metric.higher_is_better
        self.by_reference = by_reference
        self.moments = Moments(metric.columns * len(models))
        self._shifted = {-1: np.zeros(len(models)), 1: np.zeros(len(models))}
        self._seen = 0
        self._classes: set[int] = set()

    def add(self, outputs: Sequence[Outputs], reference: Outputs | None, labels: Array | None, rows: int) -> None:
        """See `Gauge`."""
        blocks = []
        for i, each in enumerate(outputs):
            if self.metric.truth == "labels":
                assert labels is not None
                blocks.append(self._against_classes(i, each, labels))
            else:
                blocks.append(self._against_arrays(i, each, reference if self.by_reference else None, labels, rows))
        self._seen += rows
        self.moments.add(np.concatenate(blocks, axis=1))

    def value(self, model: int) -> tuple[float, float | None]:
        """See `Gauge`."""
        figure = self._figure(model)
        return figure(self.moments.mean), self.moments.error_of(figure)

    def difference(self, model: int) -> tuple[float, float | None]:
        """See `Gauge`."""
        first, other = self._figure(0), self._figure(model)
        a, b = first(self.moments.mean), other(self.moments.mean)
        if a == b:
            return 0.0, self.moments.error_of(lambda mean: other(mean) - first(mean)) if np.isfinite(a) else None
        return b - a, self.moments.error_of(lambda mean: other(mean) - first(mean)) if np.isfinite(b - a) else None

    def notes(self, model: int) -> tuple[str, ...]:
        """Labels that are all one class; a label offset that would give a far better figure (never applied)."""
        if self.metric.truth != "labels" or not self._seen:
            return ()
        if len(self._classes) == 1 and self._seen >= _ONE_CLASS and model == 0:
            return (f"all {self._seen} rows have the same label: {self.metric.name} says little",)
        own = self.value(model)[0]
        for shift, hits in self._shifted.items():
            other = 100 * float(hits[model]) / self._seen
            if other > max(3 * own, 10.0):
                offset = self.offset + shift
                return (
                    f"{self.models[model]}: {self.metric.name} is {own:.4g} %, but would be {other:.4g} % with label "
                    f"offset {offset}: do the model and the labels number the classes alike? (--label-offset)",
                )
        return ()

    def _figure(self, model: int) -> Callable[[Array], float]:
        start = model * self.metric.columns
        return lambda mean: self.metric.figure(mean[start : start + self.metric.columns])

    def _against_classes(self, model: int, outputs: Outputs, labels: Array) -> Array:
        name, array = _one_output(outputs, self.output, self.metric.name, self.models[model])
        where = f"{self.models[model]}: output '{name}'"
        scores = scores_of(array, where)
        if len(scores) != len(labels):
            raise ZcError(f"{where}: has {len(scores)} rows for {len(labels)} labels; there must be one label a row")
        classes = scores.shape[1]
        ids = class_ids(labels, self.offset, classes, where)
        if len(self._classes) < 2:
            self._classes.update(ids.tolist())
        for shift, hits in self._shifted.items():
            moved = ids + shift
            inside = (moved >= 0) & (moved < classes)
            if inside.any():
                hits[model] += self.metric.rows(scores[inside], moved[inside]).sum()
        return self.metric.rows(scores, ids)

    def _against_arrays(
        self, model: int, outputs: Outputs, reference: Outputs | None, labels: Array | None, rows: int
    ) -> Array:
        where = self.models[model]
        if reference is not None and self.metric.name != "agree" and self.output is None:
            pairs = _matched(outputs, reference, where)
        else:
            name, array = _one_output(outputs, self.output, self.metric.name, where)
            if reference is not None:
                pairs = [(name, array, _same_output(name, list(outputs).index(name), reference, where))]
            else:
                assert labels is not None
                pairs = [(name, array, labels)]
        checked = [self._comparable(f"{where}: output '{n}'", got, want, reference is None) for n, got, want in pairs]
        if self.metric.name == "agree":
            return self.metric.rows(*checked[0])
        count = rows if all(got.ndim and len(got) == rows for got, _ in checked) else 1
        got, want = (np.concatenate([pair[side].reshape(count, -1) for pair in checked], axis=1) for side in (0, 1))
        return self.metric.rows(got, want)

    def _comparable(self, where: str, got: Array, want: Array, by_label: bool) -> tuple[Array, Array]:
        if got.shape != want.shape and not (by_label and got.size == want.size and len(got) == len(want)):
            what = "labels" if by_label else "the reference's output"
            advice = "; for class numbers use top1, or give a reference model" if by_label else ""
            raise ZcError(f"{where}: is {list(got.shape)} and {what} {list(want.shape)}{advice}")
        if got.dtype.kind in "OUS" or want.dtype.kind in "OUS":
            raise ZcError(f"{where}: holds text; {self.metric.name} compares numbers")
        got = got.reshape(want.shape)
        if self.metric.name == "psnr":
            got, want = _unit_range(got), _unit_range(want)
            if (peak := float(np.abs(want).max(initial=0))) > 1.5:
                raise ZcError(f"{where}: psnr is for images in 0..1, and what to compare with reaches {peak:.4g}")
        if not np.isfinite(got.astype(np.float64)).all():
            raise ZcError(f"{where}: has NaN or infinite values; {self.metric.name} says nothing of it")
        return got, want


class FunctionGauge:
    """A metric of the user's own: called once a model with all outputs and labels, which are held until then.

    The function takes `(outputs: dict[str, array], labels: array or None)` and returns a number, or one number a row:
    then standard errors are known too. Its attributes `unit` and `higher_is_better` are read where it has them.
    """

    def __init__(self, place: str, models: Sequence[str]) -> None:
        self.place, self.models = place, models
        self.function = _import_function(place)
        self.unit = str(getattr(self.function, "unit", ""))
        self.higher_is_better = bool(getattr(self.function, "higher_is_better", True))
        self._held: list[dict[str, list[Array]]] = [{} for _ in models]
        self._labels: list[Array] = []
        self._bytes = 0
        self._results: dict[int, Array] = {}

    def add(self, outputs: Sequence[Outputs], reference: Outputs | None, labels: Array | None, rows: int) -> None:
        """See `Gauge`."""
        for held, each in zip(self._held, outputs, strict=True):
            for name, array in each.items():
                held.setdefault(name, []).append(array)
                self._bytes += held_bytes(array)
        if labels is not None:
            self._labels.append(labels)
        if self._bytes > _HELD_LIMIT:
            raise ZcError(f"metric {self.place}: its outputs take over {_HELD_LIMIT >> 30} GiB; give it fewer rows")

    def value(self, model: int) -> tuple[float, float | None]:
        """See `Gauge`."""
        result = self._result(model)
        return float(result.mean()), _error_of_mean(result)

    def difference(self, model: int) -> tuple[float, float | None]:
        """See `Gauge`."""
        first, other = self._result(0), self._result(model)
        paired = _error_of_mean(other - first) if first.shape == other.shape else None
        return float(other.mean() - first.mean()), paired

    def notes(self, model: int) -> tuple[str, ...]:
        """Nothing is known of it."""
        return ()

    def _result(self, model: int) -> Array:
        if model not in self._results:
            outputs = {name: _joined(parts) for name, parts in self._held[model].items()}
            labels = np.concatenate(self._labels) if self._labels else None
            try:
                result = np.asarray(self.function(outputs, labels), dtype=np.float64)
            except Exception as err:  # whatever the user's code raises
                raise ZcError(f"metric {self.place} on {self.models[model]}: {type(err).__name__}: {err}") from err
            if result.ndim > 1 or not result.size:
                raise ZcError(f"metric {self.place}: returns an array {list(result.shape)}; a number, or one a row")
            self._results[model] = np.atleast_1d(result)
        return self._results[model]


def _error_of_mean(values: Array) -> float | None:
    return float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else None


def _joined(parts: list[Array]) -> Array:
    return np.concatenate(parts) if all(p.ndim for p in parts) else np.stack(parts)


def _import_function(place: str) -> Callable[..., Any]:
    try:
        return named_function(place)
    except ZcError as err:
        raise ZcError(f"metric {err}") from err.__cause__


def _one_output(outputs: Outputs, wanted: str | None, metric: str, model: str) -> tuple[str, Array]:
    if wanted is not None:
        if wanted not in outputs:
            listed = ", ".join(outputs)
            raise ZcError(f"{model}: no output '{wanted}'{nearest(wanted, list(outputs))}; it has {listed}")
        return wanted, outputs[wanted]
    if len(outputs) != 1:
        raise ZcError(f"{model}: {metric} is of one output and it has {', '.join(outputs)}; name one (--output)")
    return next(iter(outputs.items()))


def _same_output(name: str, index: int, reference: Outputs, where: str) -> Array:
    """The reference's output of the same name, or at the same place where it has another."""
    if name in reference:
        return reference[name]
    if index < len(reference):
        return list(reference.values())[index]
    raise ZcError(f"{where}: the reference has no output like '{name}'; it has {', '.join(reference)}")


def _matched(outputs: Outputs, reference: Outputs, where: str) -> list[tuple[str, Array, Array]]:
    """All outputs that are numbers, each with the reference's."""
    pairs = [(n, a, _same_output(n, i, reference, where)) for i, (n, a) in enumerate(outputs.items())]
    numbers = [pair for pair in pairs if pair[1].dtype.kind not in "OUS"]
    if not numbers:
        raise ZcError(f"{where}: no output holds numbers")
    return numbers


def _unit_range(values: Array) -> Array:
    return values / np.iinfo(values.dtype).max if values.dtype.kind in "iu" else values
