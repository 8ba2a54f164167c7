"""A gate on accuracy: a metric on given samples may drop by so much, and no more."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from zc.data.samples import Samples
from zc.errors import ZcError
from zc.ir.model import Model
from zc.measure.evaluate import Comparison, compare
from zc.track import Track


@dataclass(frozen=True)
class Verdict:
    """What a gate says of a model."""

    passed: bool
    line: str
    """The metric before and after, for a person."""
    drop: float
    """How much worse the model is, in the metric's unit; negative where it is better."""
    notes: tuple[str, ...] = ()


Gate = Callable[[Model], Verdict]
"""Says whether a model will do. It is asked as seldom as can be: each time it may run all of its samples."""


@dataclass(frozen=True, eq=False)
class AccuracyGate:
    """Compares models with the original on the same samples."""

    original: Model
    samples: Samples
    metric: str
    allowed: float | None
    """Largest drop, in the metric's unit; None lets everything pass."""
    label_offset: int = 0
    track: Track | None = None

    def __call__(self, model: Model) -> Verdict:
        """Run both on all samples. ZcError when the metric of the original says nothing that could drop."""
        found = compare(
            self.original,
            model,
            self.samples,
            self.metric,
            reference=self.original,
            label_offset=self.label_offset,
            track=self.track,
        )
        if self.allowed is not None and not math.isfinite(found.a.value):
            raise ZcError(
                f"--max-drop: {self.metric} of the original is {found.a.value}; gate on agree or a labelled metric"
            )
        notes = tuple(dict.fromkeys((*found.a.notes, *found.b.notes)))
        better = found.b.higher_is_better
        passed = self.allowed is None or not missed(found.difference.value, better, self.allowed)
        return Verdict(passed, self._line(found), found.drop, notes)

    def _line(self, found: Comparison) -> str:
        before, after, change = found.a, found.b, found.difference
        sure = "" if change.error is None else f" +- {change.error:.2g}"
        return f"{self.metric} {before.value:.4g} -> {after.value:.4g} {after.unit} ({change.value:+.2f}{sure})"


def missed(difference: float, higher_is_better: bool, allowed: float) -> bool:
    """Is a figure that moved by `difference` worse by more than `allowed`? NaN is always a miss."""
    drop = -difference if higher_is_better else difference
    return not drop <= allowed
