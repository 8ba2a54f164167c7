"""Whole feeds, one a row: what test sets and generators give. They may be ragged, so none is joined with another."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zc.data.batching import batching
from zc.data.plan import make_plans
from zc.data.prep import Prep
from zc.data.source import Array, Feed, array_bytes
from zc.errors import ZcError, nearest
from zc.ir.spec import TensorSpec


@dataclass(frozen=True)
class FeedRows:
    """Feeds that `get` reads by number; shapes and types are looked at anew for each."""

    inputs: tuple[TensorSpec, ...]
    prep: Prep | None
    count: int
    where: str
    get: Callable[[int], Feed]
    whole: bool = True

    def read(self, start: int, stop: int) -> Feed:
        """One feed, its arrays in the model's own layout."""
        if stop != start + 1:
            raise ValueError(f"whole feeds are read one by one, got {start}:{stop}")
        where = f"{self.where}: feed {start}"
        raws = _with_batch_axis(_named(self.get(start), self.inputs, where), self.inputs)
        plans = make_plans(self.inputs, self.prep, raws, where, whole=True)
        return {name: plan.ready(raws[name], where) for name, plan in plans.items()}

    def fingerprint(self, start: int, stop: int) -> Iterator[bytes]:
        """The arrays of each feed by name, those that are no inputs too."""
        for number in range(start, stop):
            for name, array in sorted(self.get(number).items()):
                yield from array_bytes(name, array)


def _named(feed: Mapping[str, Array], inputs: Sequence[TensorSpec], where: str) -> Feed:
    """The arrays of the model's inputs; others are left out."""
    for spec in inputs:
        if spec.name not in feed:
            close = nearest(spec.name, list(feed))
            raise ZcError(f"{where}: no array for input '{spec.name}'{close}; it has {', '.join(feed) or 'none'}")
    return {spec.name: feed[spec.name] for spec in inputs}


def _with_batch_axis(feed: Feed, inputs: Sequence[TensorSpec]) -> Feed:
    """A single sample, which lacks the batch axis, gets one of size 1."""
    axes = batching(inputs).axes
    out = {}
    for spec in inputs:
        array, axis = feed[spec.name], axes[spec.name]
        if axis is not None and spec.shape is not None and array.ndim == len(spec.shape) - 1:
            array = np.expand_dims(array, axis)
        out[spec.name] = array
    return out
