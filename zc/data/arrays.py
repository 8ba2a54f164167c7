"""Rows in arrays, one array an input: from .npz and .npy files, and from dicts that a function returns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from zc.data.batching import batching
from zc.data.pixels import resized, with_margins
from zc.data.plan import InputPlan, layout_notes, make_plans, value_notes
from zc.data.prep import Prep
from zc.data.source import Array, Feed, Opened, array_bytes
from zc.errors import ZcError, nearest
from zc.ir.spec import TensorSpec

LABEL_KEYS = ("y", "label", "labels")
_CHUNK = 64


@dataclass(frozen=True)
class ArrayRows:
    """Rows of arrays that lie in memory or in a mapped file."""

    arrays: Mapping[str, Array]
    plans: Mapping[str, InputPlan]
    count: int
    where: str
    whole: bool = False

    def read(self, start: int, stop: int) -> Feed:
        """Slices, made ready for each input; an input without a batch axis is given whole."""
        feed = {}
        for name, plan in self.plans.items():
            array = self.arrays[name]
            raw = array if plan.axis is None else array[start:stop]
            feed[name] = plan.ready(raw, self.where, None if plan.axis is None else start)
        return feed

    def uncropped(self, start: int, stop: int) -> "ArrayRows | None":
        """See `zc.data.source.Cropped`."""
        wider = {name: plan for name in self.plans if (plan := self._wider(name)) is not None}
        return replace(self, plans={**self.plans, **wider}) if wider else None

    def _wider(self, name: str) -> InputPlan | None:
        plan, shape = self.plans[name], self.arrays[name].shape
        prep = plan.prep
        if prep is None or prep.crop is None or plan.source is None or len(shape) != 4:
            return None
        size = (shape[1], shape[2]) if plan.source == "nhwc" else (shape[2], shape[3])
        wider = with_margins([size if prep.resize is None else resized(size, prep.resize)], prep.crop)
        return None if wider is None else replace(plan.of_any_size(), prep=replace(prep, crop=wider))

    def fingerprint(self, start: int, stop: int) -> Iterator[bytes]:
        """The content of the slices, input by input."""
        for name in sorted(self.plans):
            array = self.arrays[name]
            if self.plans[name].axis is None:
                yield from array_bytes(name, array)
                continue
            for row in range(start, stop, _CHUNK):  # chunks counted from `start`: no part of the answer
                yield from array_bytes(name, array[row : min(row + _CHUNK, stop)])


@dataclass(frozen=True)
class Match:
    """Which array of a source feeds which input."""

    inputs: Mapping[str, str]
    label: str | None
    ignored: tuple[str, ...]


def match_keys(keys: Sequence[str], inputs: Sequence[TensorSpec], label_key: str | None, where: str) -> Match:
    """Arrays by the names of inputs; the only array that is no label will do for a model with one input.

    Raises:
        ZcError: an input without an array, several candidates, a label key that is not there.
    """
    if not keys:
        raise ZcError(f"{where}: holds no arrays")
    names = [spec.name for spec in inputs]
    if label_key is not None and label_key not in keys:
        listed = ", ".join(keys)
        raise ZcError(
            f"{where}: no array '{label_key}' for the labels{nearest(label_key, list(keys))}; it has {listed}"
        )
    label = label_key or next((key for key in LABEL_KEYS if key in keys and key not in names), None)
    rest = [key for key in keys if key != label]
    if len(names) == 1 and names[0] not in rest and len(rest) == 1:
        return Match({names[0]: rest[0]}, label, ())
    missing = [name for name in names if name not in rest]
    if missing:
        spec = next(spec for spec in inputs if spec.name == missing[0])
        close = nearest(missing[0], [key for key in rest if key not in names])
        raise ZcError(
            f"{where}: no array for input '{missing[0]}'{close}; the model takes {spec}, "
            f"the data has {', '.join(rest) or 'labels only'}; name the arrays as the inputs: {', '.join(names)}"
        )
    return Match({name: name for name in names}, label, tuple(key for key in rest if key not in names))


def open_arrays(
    arrays: Mapping[str, Array],
    labels: Array | None,
    inputs: Sequence[TensorSpec],
    prep: Prep | None,
    where: str,
    notes: Sequence[str] = (),
) -> Opened:
    """Arrays named as the inputs, rows first in each (also where the model has its batch on another axis).

    Raises:
        ZcError: no rows, or numbers of rows that differ.
    """
    axes = batching(inputs).axes
    counts = {spec.name: _rows(arrays[spec.name], where, spec) for spec in inputs if axes[spec.name] is not None}
    count = next(iter(counts.values()), 1)
    for name, rows in counts.items():
        if rows != count:
            first = next(iter(counts))
            raise ZcError(
                f"{where}: input '{name}' has {rows} rows and '{first}' has {count}; they must be the same rows"
            )
    if not count:
        raise ZcError(f"{where}: has no rows")
    if labels is not None:
        check_labels(labels, count, where)
    frozen = {name: _frozen(array) for name, array in arrays.items()}
    plans = make_plans(inputs, prep, frozen, where)
    notes = (*notes, *layout_notes(plans, where), *value_notes(plans, frozen, where))
    return Opened(ArrayRows(frozen, plans, count, where), where, labels, notes)


def check_labels(labels: Array, count: int, where: str) -> None:
    """ZcError unless there is one label a row."""
    rows = len(labels) if labels.ndim else 0
    if rows != count:
        raise ZcError(f"{where}: {rows} labels for {count} rows; there must be one a row (another array: --label-key)")


def as_array(value: object, where: str) -> Array:
    """Anything array-like as an array of numbers or text; ZcError for ragged rows and Python objects."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ZcError(f"{where}: is not an array with rows of one shape ({error})") from None
    if array.dtype == object and not all(isinstance(item, str | bytes) for item in array.ravel().tolist()):
        raise ZcError(f"{where}: holds Python objects, not numbers or text; all rows must have one shape and type")
    return array


def ignored_note(ignored: Sequence[str], where: str) -> list[str]:
    """The note that arrays which are no inputs were left out, if there are any."""
    return [f"{where}: not inputs of the model, ignored: {', '.join(ignored)}"] if ignored else []


def _rows(array: Array, where: str, spec: TensorSpec) -> int:
    if not array.ndim:
        raise ZcError(f"{where}: input '{spec.name}': got a single number, the model takes {spec} with rows first")
    return len(array)


def _frozen(array: Array) -> Array:
    """The same data, read-only: a batch may be a view of it, and must not be a way to change the next pass."""
    view = array.view()
    view.flags.writeable = False
    return view
