"""What samples are like: enough to say that they are too alike to calibrate with, or unlike others.

seen = summarise(calibration)
seen.complaints()                               # "all 64 rows are the same ..."
drift(seen, summarise(evaluation, within=seen)) # "input 'x': 97 % of its values lie outside ..."
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from zc.data.samples import Samples
from zc.data.source import Array, Feed, array_bytes

MOST_ROWS = 512
"""Rows that are looked at; of more, as many at even distances."""
FEW_ROWS = 8
FAR_ROW = 30.0
"""A row that reaches so many times further than the median one is called an outlier."""
OUTSIDE = 0.01
"""Share of values outside of what calibration saw that is worth a warning: they are clipped."""
SHIFT, SPREAD, CERTAIN = 0.5, 2.0, 5.0
"""Means that are apart by so many standard deviations, and by so many standard errors; deviations by such a factor."""


@dataclass
class InputSummary:
    """The values of a float input."""

    name: str
    means: list[float] = field(default_factory=list)
    """Of each row."""
    squares: list[float] = field(default_factory=list)
    """Mean square of each row."""
    lows: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)
    outside: int = 0
    """Values that lie outside of the range of the samples compared with."""
    count: int = 0

    def add(self, values: Array, within: tuple[float, float] | None) -> None:
        """One more row, any shape."""
        values = values.astype(np.float64, copy=False)
        self.means.append(float(values.mean()))
        self.squares.append(float((values * values).mean()))
        self.lows.append(float(values.min()))
        self.highs.append(float(values.max()))
        self.count += values.size
        if within is not None:
            self.outside += int(np.count_nonzero((values < within[0]) | (values > within[1])))

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest value."""
        return min(self.lows), max(self.highs)

    @property
    def mean(self) -> float:
        """Of all rows."""
        return float(np.mean(self.means))

    @property
    def deviation(self) -> float:
        """Standard deviation of all values."""
        return float(np.sqrt(max(float(np.mean(self.squares)) - self.mean**2, 0.0)))


@dataclass(frozen=True)
class Summary:
    """What samples are like."""

    name: str
    rows: int
    """Rows that were looked at."""
    distinct: int
    """Different ones among them."""
    inputs: Mapping[str, InputSummary]
    """The float inputs that have values in rows."""

    def complaints(self) -> list[str]:
        """Why these are poor samples to calibrate with, a line each; empty if nothing speaks against them."""
        more = "ranges found on them do not hold for others; give 100 or more different ones"
        found = []
        if self.distinct == 1 and self.rows > 1:
            found.append(f"all {self.rows} rows are the same; {more}")
        elif self.distinct < FEW_ROWS:
            found.append(f"only {self.distinct} different row{'s' if self.distinct > 1 else ''}; {more}")
        for one in self.inputs.values():
            low, high = one.range
            if low == high:
                found.append(f"input '{one.name}' is {low:g} everywhere in {self.rows} rows; {more}")
            found += self._outlier(one)
        return found

    def _outlier(self, one: InputSummary) -> list[str]:
        """A row that stretches the range of all."""
        reach = np.maximum(np.abs(one.lows), np.abs(one.highs))
        usual, most = float(np.median(reach)), float(reach.max())
        if not usual or most <= FAR_ROW * usual:
            return []
        far = int(np.count_nonzero(reach > FAR_ROW * usual))
        return [
            f"input '{one.name}' reaches {most:.3g} in {far} of {self.rows} rows, and {usual:.3g} in the median row; "
            "if they are damaged, leave them out: the range of all follows the largest"
        ]


def summarise(samples: Samples, within: Summary | None = None) -> Summary:
    """Read the rows (of many, `MOST_ROWS` at even distances) once; one at a time is in memory.

    within: count the values outside of the ranges of these.
    """
    inputs: dict[str, InputSummary] = {}
    digests, rows = set(), 0
    for feed in _rows(samples):
        rows += 1
        digest = hashlib.blake2b(digest_size=16)
        for name in sorted(feed):
            for part in array_bytes(name, feed[name]):
                digest.update(part)
            if feed[name].dtype.kind == "f" and feed[name].ndim and feed[name].size > 1:
                known = None if within is None else within.inputs.get(name)
                one = inputs.setdefault(name, InputSummary(name))
                one.add(feed[name], None if known is None else known.range)
        digests.add(digest.digest())
    return Summary(samples.name, rows, len(digests), inputs)


def drift(calibration: Summary, other: Summary) -> list[str]:
    """How samples differ from those that a model was calibrated with, a line for each input that does.

    other: summarised `within` the calibration's.
    """
    found = []
    for name in sorted(set(calibration.inputs) & set(other.inputs)):
        a, b = calibration.inputs[name], other.inputs[name]
        (low, high), share = a.range, b.outside / max(b.count, 1)
        if share > OUTSIDE:
            ends = " to ".join(f"{end:.3g}" for end in b.range)
            what = f"{100 * share:.3g} % of its values lie outside of what calibration saw ({low:.3g} to {high:.3g})"
            found.append(f"input '{name}': {what}; here they go from {ends}. Is the preprocessing the same?")
        elif shifted := _shifted(a, b):
            found.append(f"input '{name}': {shifted}. Do both come from the same source?")
    return found


def drift_between(calibration: Samples, other: Samples) -> list[str]:
    """`drift` of samples that are read for it; empty if either is synthetic."""
    if calibration.synthetic or other.synthetic:
        return []
    seen = summarise(calibration)
    return [f"{other.name}: {line}" for line in drift(seen, summarise(other, within=seen))]


def _shifted(a: InputSummary, b: InputSummary) -> str:
    """How far mean and spread moved, or an empty text where chance may have moved them."""
    if min(len(a.means), len(b.means)) < FEW_ROWS or not a.deviation:
        return ""
    gap = abs(b.mean - a.mean)
    chance = float(np.sqrt(np.var(a.means) / len(a.means) + np.var(b.means) / len(b.means)))
    ratio = b.deviation / a.deviation
    if not (gap > SHIFT * a.deviation and gap > CERTAIN * chance) and 1 / SPREAD <= ratio <= SPREAD:
        return ""
    return (
        f"its values are {b.mean:.3g} +- {b.deviation:.3g} here, and were {a.mean:.3g} +- {a.deviation:.3g} "
        "in calibration"
    )


def _rows(samples: Samples) -> Iterator[Feed]:
    """Feeds of one row, or of the batch that the model fixes."""
    size = samples.batch or 1
    count = samples.rows // size
    picked = np.unique(np.linspace(0, count - 1, min(count, MOST_ROWS)).astype(int))
    for number in picked:
        yield from samples.take(int(number) * size, (int(number) + 1) * size).batches(size)
