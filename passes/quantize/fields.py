"""Fields: random values of a known mean and deviation in each channel, that look like those of trained nets."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from zc.data.source import Feed, Reader
from zc.ir.graph import Array

PATCH = 4
"""Neighbouring positions of an image are alike: part of a field is the same over patches of this size,"""
PATCH_SHARE, WHOLE_SHARE = 0.3, 0.3
"""so much of its variance, and so much the same over the whole image."""

UNEVEN = 0.36
"""Some positions are stronger than others: deviation of the logarithm of a factor that all channels share. It gives the
fields the heavy tails (kurtosis 5) that values of trained nets have in front of their activations."""

INPUT_REACH = 2.5
"""Inputs are images, which end somewhere: their fields do at so many deviations."""


@dataclass(frozen=True, eq=False)
class Known:
    """A value that is drawn: moments of its channels and the shape of one row."""

    name: str
    mean: Array
    deviation: Array
    shape: tuple[int, ...]
    """[C] or [C, H, W]."""
    is_input: bool = False
    """Is it an input of the model itself?"""
    guessed: bool = False
    """Are the moments not of BatchNormalization, but what a layer makes of such values?"""

    def draw(self, rng: np.random.Generator) -> Array:
        """One row, float32."""
        channels, sides = self.shape[0], self.shape[1:]
        noise = rng.standard_normal(self.shape, np.float32)
        if sides:
            coarse = rng.standard_normal((channels, *(-(-n // PATCH) for n in sides)), np.float32)
            coarse = coarse.repeat(PATCH, axis=1).repeat(PATCH, axis=2)[:, : sides[0], : sides[1]]
            whole = rng.standard_normal((channels, 1, 1), np.float32)
            noise *= np.float32(np.sqrt(1 - PATCH_SHARE - WHOLE_SHARE))
            noise += np.float32(np.sqrt(PATCH_SHARE)) * coarse + np.float32(np.sqrt(WHOLE_SHARE)) * whole
        if self.is_input:
            noise = np.clip(noise, -INPUT_REACH, INPUT_REACH)
        elif sides:
            noise *= np.exp(UNEVEN * rng.standard_normal((1, *sides), np.float32) - np.float32(UNEVEN**2))
        along = (-1, *(1 for _ in sides))
        return np.asarray(self.mean.reshape(along) + self.deviation.reshape(along) * noise, np.float32)


@dataclass(frozen=True, eq=False)
class FieldRows:
    """Rows of a reader, and with each a row of every known value. The same for the same seed, in any batch."""

    inputs: Reader
    known: tuple[Known, ...]
    seed: int
    count: int
    behind: str = ""
    """What stands behind the names of known values in a feed, but for inputs of the model."""
    whole: bool = False

    def read(self, start: int, stop: int) -> Feed:
        """Reads and draws these rows."""
        feed = dict(self.inputs.read(start, stop))
        for number, one in enumerate(self.known):
            rows = [one.draw(np.random.default_rng([self.seed, number, row])) for row in range(start, stop)]
            feed[one.name if one.is_input else one.name + self.behind] = np.stack(rows)
        return feed

    def fingerprint(self, start: int, stop: int) -> Iterator[bytes]:
        """What the rows are drawn from."""
        yield from self.inputs.fingerprint(start, stop)
        for one in self.known:
            yield f"{one.name} {one.shape} {self.seed}\n".encode() + one.mean.tobytes() + one.deviation.tobytes()
