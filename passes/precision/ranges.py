"""How far the values of a model reach on samples: what half precision would cut off or lose."""

import numpy as np

from zc.data import Samples
from zc.execute import Runner, held_bytes
from zc.ir.model import Model
from zc.pipeline.base import Context

MOST_ROWS = 64
MEMORY = 256 * 2**20
"""Bytes that the values of one batch may take outside the session."""


def largest_magnitudes(model: Model, samples: Samples, ctx: Context) -> dict[str, float]:
    """The largest finite magnitude of each float32 value of the main graph, over at most `MOST_ROWS` rows."""
    made = {t.name for n in model.graph.nodes for t in n.outputs if t.name and t.dtype == np.float32}
    inputs = {t.name for t in model.graph.inputs if t.dtype == np.float32}
    largest = dict.fromkeys(sorted(made | inputs), 0.0)
    runner = Runner(model, outputs=sorted(made), threads=ctx.threads)
    first = next(samples.batches(samples.batch or 1))
    step = max(samples.batch or 1, min(MOST_ROWS, MEMORY // max(held_bytes(runner.run(first)), 1)))
    some = samples.take(0, min(samples.rows, MOST_ROWS * (samples.batch or 1)))
    for feeds in ctx.track(some.batches(step), "ranges", -(-some.rows // step)):
        for name, value in {**{n: feeds[n] for n in inputs}, **runner.run(feeds)}.items():
            finite = np.abs(value[np.isfinite(value)], dtype=np.float64)
            largest[name] = max(largest[name], float(finite.max(initial=0.0)))
    return largest
