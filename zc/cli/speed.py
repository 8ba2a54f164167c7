"""Is what `zc opt` made faster than what it was made from? Measured in a second or two, on the samples at hand."""

from collections.abc import Sequence
from dataclasses import dataclass

from zc.backends.base import Engine, NamedEngine
from zc.data import Samples
from zc.errors import ZcError
from zc.execute import Feeds
from zc.ir.model import Model
from zc.ir.quantised import is_quantised
from zc.measure.latency import bench
from zc.measure.slowness import slow_causes
from zc.pipeline.synthetic import synthetic_samples

BUDGET = 1.5
"""Seconds."""

_SLOWER = 1.02
"""Beyond its error, the ratio from which the result counts as slower."""


@dataclass(frozen=True)
class Speed:
    """The ratio of two times, and what to say of it."""

    ratio: float
    line: str
    warning: str | None


def measure_speed(original: Model, model: Model, samples: Samples | None) -> Speed | None:
    """Time both models turn by turn, batch 1, one thread; None when onnxruntime does not run one of them so."""
    try:
        chosen = synthetic_samples(original, rows=1) if samples is None else samples
        feeds = list(chosen.take(0, min(chosen.rows, chosen.batch or 1)).batches(1))
        before, after = bench([original, model], feeds, budget=BUDGET)
    except ZcError:
        return None
    ratio = after.ratio
    line = f"time {before.ms:.3g} -> {after.ms:.3g} ms (x{ratio:.2f})"
    slower = ratio - after.ratio_error > _SLOWER
    return Speed(ratio, line, _cause(model, ratio, feeds) if slower else None)


def artifact_speed(original: Model, name: str, engine: Engine, samples: Samples | None) -> str | None:
    """The time of a row in a written artifact beside the model in onnxruntime, as a line; None where one does not run.

    For models whose inputs leave more open than the batch, samples say of which size.
    """
    try:
        chosen = synthetic_samples(original, rows=1) if samples is None else samples
        feeds = list(chosen.take(0, min(chosen.rows, chosen.batch or 1)).batches(1))
        before, after = bench([original, NamedEngine(name, engine)], feeds, budget=BUDGET)
    except ZcError:
        return None
    return f"time {before.ms:.3g} -> {after.ms:.3g} ms (x{after.ratio:.2f})"


def _cause(model: Model, ratio: float, feeds: Sequence[Feeds]) -> str:
    if is_quantised(model):
        return f"the result runs {ratio:.2f}x as long as the original: {'; '.join(slow_causes(model, feeds))}"
    return (
        f"the result runs {ratio:.2f}x as long as the original: its widths may not fit the blocks of the kernels; "
        "prune:latency=0.9 chooses widths by what is measured"
    )
