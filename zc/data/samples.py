"""Samples: a view of rows of some source, given out as feeds."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from zc.data.source import Array, Cropped, Feed, Reader
from zc.errors import ZcError
from zc.ir.spec import TensorSpec


@dataclass(frozen=True, eq=False)
class Samples:
    """Rows that a model can be fed with. Immutable; holds no more than what the source holds and one batch."""

    inputs: tuple[TensorSpec, ...]
    reader: Reader = field(repr=False)
    name: str
    """The source: a file, a folder, a function."""
    start: int
    stop: int
    labels: Array | None = field(default=None, repr=False)
    """One a row (any shape after the first axis), or None."""
    prep: str = ""
    batch: int | None = None
    """Rows in a batch, where the model fixes it."""
    synthetic: bool = False
    notes: tuple[str, ...] = ()
    """What the user should hear, a line each."""

    @property
    def rows(self) -> int:
        """Number of rows; of whole feeds for a source that gives those."""
        return self.stop - self.start

    @property
    def origin(self) -> str:
        """One line for the user: `cifar10.npz rows 0:256, prep imagenet`."""
        line = f"{self.name} {'feeds' if self.reader.whole else 'rows'} {self.start}:{self.stop}"
        return f"{line}, prep {self.prep}" if self.prep else line

    def batches(self, size: int = 32) -> Iterator[Feed]:
        """All rows in order, as feeds of at most `size` rows; the last may have fewer.

        A batch that the model fixes takes the place of `size`. Whole feeds come one by one, as they are. One batch
        is in memory at a time.

        Raises:
            ZcError: a row that the model cannot take, with NaN or infinite values, or that cannot be read.
        """
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        step = 1 if self.reader.whole else self.batch or size
        for row in range(self.start, self.stop, step):
            yield self.reader.read(row, min(row + step, self.stop))

    def take(self, start: int, stop: int) -> "Samples":
        """Rows `start` to `stop` of these, 0 <= start < stop <= rows; with their labels.

        Raises:
            ZcError: outside the rows, or fewer than the batch that the model fixes.
        """
        if not 0 <= start < stop <= self.rows:
            raise ZcError(f"{self.origin}: cannot take rows {start}:{stop} of {self.rows}")
        labels = None if self.labels is None else self.labels[start:stop]
        return full_batches(replace(self, start=self.start + start, stop=self.start + stop, labels=labels))

    def uncropped(self) -> "Samples | None":
        """The same rows larger than the model takes them: see `Cropped`. None where nothing is cut off."""
        wider = self.reader.uncropped(self.start, self.stop) if isinstance(self.reader, Cropped) else None
        return None if wider is None else replace(self, reader=wider)

    def digest(self) -> str:
        """sha256, in hex, of the rows before preprocessing and of the preprocessing; reads all rows.

        The same for the same content in another file, at another place, or in other batches. Labels do not count.
        """
        state = hashlib.sha256(f"prep {self.prep}\n".encode())
        for part in self.reader.fingerprint(self.start, self.stop):
            state.update(part)
        return state.hexdigest()


def full_batches(samples: Samples) -> Samples:
    """The same without the last rows that do not fill a batch of the fixed size, and a note that says so.

    Raises:
        ZcError: not even one batch is full.
    """
    batch = samples.batch
    if batch is None or samples.reader.whole or samples.rows % batch == 0:
        return samples
    if samples.rows < batch:
        raise ZcError(
            f"{samples.origin}: {samples.rows} rows, but the model takes batches of exactly {batch}; give more rows"
        )
    dropped = samples.rows % batch
    keep = samples.rows - dropped
    note = f"{samples.origin}: last {dropped} rows dropped, the model takes batches of exactly {batch}"
    labels = None if samples.labels is None else samples.labels[:keep]
    return replace(samples, stop=samples.start + keep, labels=labels, notes=(*samples.notes, note))
