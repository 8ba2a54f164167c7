"""Which weights stay: as many as asked for, anywhere or N of each M neighbours.

Arrays are [groups, D, M] as in `zc.passes.layers`: D counts positions of the window first, then input channels. So
neighbours along D are input channels at one position of the window, in which sparse tensor cores count their two of
four (NVIDIA Ampere architecture; TensorRT: along the input channels, at each position of the kernel).
"""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zc.errors import ZcError
from zc.ir.graph import Array
from zc.passes.layers.layers import Layer

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Pattern:
    """At most `kept` of each `of` neighbours are not zero."""

    kept: int
    of: int

    def __str__(self) -> str:
        return f"{self.kept}:{self.of}"

    def why_not(self, layer: Layer) -> str | None:
        """The reason why a layer cannot follow the pattern, or None."""
        channels = channels_of(layer)
        if channels % self.of:
            return f"{channels} input channels are no multiple of {self.of}"
        return None

    def follows(self, matrix: Array) -> bool:
        """Does a weight follow it?"""
        groups, size, outputs = matrix.shape
        if size % self.of:
            return False
        counts = (matrix.reshape(groups, size // self.of, self.of, outputs) != 0).sum(axis=2)
        return bool((counts <= self.kept).all())


def read_pattern(text: str) -> Pattern:
    """A pattern N:M.

    Raises:
        ZcError: it is none.
    """
    found = re.fullmatch(r"(\d+)(?:of|:)(\d+)", text)
    if found is None or not 0 < int(found[1]) < int(found[2]):
        raise ZcError(f"pattern is {text!r}; it must be N of M with N below M, such as 2of4")
    return Pattern(int(found[1]), int(found[2]))


def channels_of(layer: Layer) -> int:
    """Input channels of an output."""
    return int(layer.weight.shape[1]) if layer.convolves else layer.inputs


def by_pattern(scores: Array, pattern: Pattern) -> Bools:
    """The `kept` highest of each `of` neighbours along D; of equal ones the first. scores: [groups, D, M]."""
    groups, size, outputs = scores.shape
    parts = scores.reshape(groups, size // pattern.of, pattern.of, outputs)
    rank = np.argsort(np.argsort(-parts, axis=2, kind="stable"), axis=2, kind="stable")
    return np.asarray(rank < pattern.kept).reshape(scores.shape)


def by_share(scores: Array, share: float) -> Bools:
    """All but the lowest share of an array; of equal ones the last are the lowest."""
    flat = scores.ravel()
    gone = min(round(flat.size * share), flat.size - 1)
    order = np.lexsort((-np.arange(flat.size), flat))
    keep = np.ones(flat.size, np.bool_)
    keep[order[:gone]] = False
    return keep.reshape(scores.shape)
