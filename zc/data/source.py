"""What every kind of sample source gives: model-ready feeds, read by row number."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Feed = dict[str, Array]
"""Input name -> array, in the type, shape and layout that the model takes."""


class Reader(Protocol):
    """Rows that can be read in any order, any number of times, and are the same each time."""

    @property
    def count(self) -> int:
        """Number of rows; of feeds where `whole`."""

    @property
    def whole(self) -> bool:
        """A row is a complete feed with a batch axis of its own, which must not be joined with another."""

    def read(self, start: int, stop: int) -> Feed:
        """Rows `start` to `stop` as one feed (one row where `whole`); ZcError for rows that the model cannot take."""

    def fingerprint(self, start: int, stop: int) -> Iterator[bytes]:
        """The content of these rows before preprocessing; the same bytes however the rows are stored or batched."""


@runtime_checkable
class Cropped(Protocol):
    """A reader of pictures that may be larger than what the model takes of them."""

    def uncropped(self, start: int, stop: int) -> Reader | None:
        """One that gives rows `start` to `stop` with what the centre crop leaves out, as far as all of them have it.

        None where that is nothing. The rows have one size, with sides of at most `zc.data.pixels.MARGIN` of the crop's.
        """


@dataclass(frozen=True)
class Opened:
    """A source that was found and understood, before a range of rows is taken from it."""

    reader: Reader
    name: str
    labels: Array | None = None
    notes: tuple[str, ...] = ()


def array_bytes(name: str, array: Array) -> Iterator[bytes]:
    """Name, type, shape and little-endian content of an array, framed so that no two feeds read alike."""
    if array.dtype.kind in "OSU":
        texts = [text if isinstance(text, bytes) else str(text).encode() for text in array.ravel().tolist()]
        yield f"{name} string {array.shape} {[len(text) for text in texts]}\n".encode()
        yield from texts
        return
    yield f"{name} {array.dtype.name} {array.shape}\n".encode()
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and not np.little_endian):
        array = array.astype(array.dtype.newbyteorder("<"))
    yield np.ascontiguousarray(array).tobytes()
