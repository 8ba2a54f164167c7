"""Samples as rows in any order: what shuffling needs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zc.data import Samples
from zc.data.batching import batching
from zc.errors import ZcError
from zc.ir.graph import Array

HELD_ROWS = 512
"""Most rows that are held back."""
FEWEST_HELD = 16
IN_MEMORY = 2 * 2**30
"""Bytes up to which all rows are kept in memory; beyond that each is read when its turn comes."""
_READ = 256

Feeds = dict[str, Array]


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows by number. Labels go with them."""

    samples: Samples
    axes: dict[str, int | None]
    """Where each input has the batch; None: the same for every row."""
    arrays: Feeds | None
    """All rows of each input, where they fit into memory."""
    labels: Array | None

    @property
    def count(self) -> int:
        """Number of rows (of whole feeds, for a source that gives those)."""
        return self.samples.rows

    def take(self, index: Sequence[int]) -> tuple[Feeds, Array | None]:
        """The feeds and labels of these rows, in this order."""
        labels = None if self.labels is None else self.labels[list(index)]
        if self.arrays is None:
            parts = [next(iter(self.samples.take(i, i + 1).batches(1))) for i in index]
            return {name: _joined([p[name] for p in parts], axis, name) for name, axis in self.axes.items()}, labels
        return {
            name: self.arrays[name] if axis is None else np.take(self.arrays[name], index, axis)
            for name, axis in self.axes.items()
        }, labels

    def batches(self, size: int) -> Iterator[tuple[Feeds, Array | None]]:
        """All rows in order."""
        size = self.samples.batch or size
        for start in range(0, self.count, size):
            yield self.take(range(start, min(start + size, self.count)))


def open_rows(samples: Samples) -> Rows:
    """All rows of samples, in memory where they fit.

    Raises:
        ZcError: the source gives whole feeds, or rows of several shapes.
    """
    if samples.reader.whole:
        raise ZcError(f"{samples.origin}: holds whole feeds, which cannot be shuffled; give rows (.npz, images)")
    axes = dict(batching(samples.inputs).axes)
    first = next(iter(samples.batches(1)))
    each = sum(np.asarray(a).nbytes for a in first.values()) // (samples.batch or 1)
    arrays = None
    if each * samples.rows <= IN_MEMORY:
        feeds = list(samples.batches(_READ))
        arrays = {name: _joined([f[name] for f in feeds], axis, name) for name, axis in axes.items()}
    return Rows(samples, axes, arrays, samples.labels)


def _joined(parts: Sequence[Array], axis: int | None, name: str) -> Array:
    if axis is None or len(parts) == 1:
        return np.asarray(parts[0])
    if len({p.shape[:axis] + p.shape[axis + 1 :] for p in parts}) > 1:
        raise ZcError(f"input '{name}': rows have several shapes; training takes rows of one shape")
    return np.concatenate(parts, axis)


@dataclass(frozen=True, eq=False)
class Parts:
    """Rows to train on, and rows to judge by."""

    train: Rows
    judge: Rows
    held: bool
    """Are those held back, or are there too few, so that they are among those trained on?"""


def held_back(samples: Samples, share: float) -> Samples | None:
    """The last rows: that share of them, at most `HELD_ROWS`; None if they would be fewer than `FEWEST_HELD`."""
    batch = samples.batch or 1
    held = min(int(samples.rows * share), HELD_ROWS) // batch * batch
    if held < FEWEST_HELD or samples.rows - held < batch:
        return None
    return samples.take(samples.rows - held, samples.rows)


def split_rows(samples: Samples, share: float, wide: bool = False) -> Parts:
    """Those of `held_back`, and the rows before them to train on.

    wide: train on pictures as they are before a centre crop, where they are larger; see `Samples.uncropped`.
    """
    held = held_back(samples, share)
    train = samples if held is None else samples.take(0, samples.rows - held.rows)
    judge = train.take(0, min(train.rows, max(HELD_ROWS, samples.batch or 1))) if held is None else held
    if wide:
        train = train.uncropped() or train
    return Parts(open_rows(train), open_rows(judge), held is not None)
