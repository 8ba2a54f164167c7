"""Samples by their use: a part to fit to, and a part that is held back to see how well it went."""

from dataclasses import dataclass

from zc.data.samples import Samples

MOST_HELD = 128
FEWEST_HELD = 16


@dataclass(frozen=True, eq=False)
class Split:
    """Two parts of some samples."""

    fit: Samples
    """What is calibrated with and fitted to."""
    held: Samples
    """What is measured on; the same rows as `fit` where there are too few for two parts."""


def hold_back(samples: Samples) -> Split:
    """The last fifth, at most `MOST_HELD` rows, is held back; with few rows all serve for both."""
    rows, batch = samples.rows, samples.batch or 1
    held = min(rows // 5, MOST_HELD) // batch * batch
    if held < FEWEST_HELD:
        return Split(samples, samples)
    return Split(samples.take(0, rows - held), samples.take(rows - held, rows))
