"""Calibration: one streaming forward over the samples; only values whose range is needed leave the session."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from zc.data import Samples
from zc.execute import Runner, held_bytes
from zc.ir.graph import Array
from zc.ir.model import Model
from zc.passes.quantize.sketch import Sketch
from zc.pipeline.base import Context

MEMORY = 256 * 2**20
"""Bytes that the values of one batch may take outside the session."""

MOST_ROWS = 32


def calibrate(model: Model, names: Sequence[str], samples: Samples, ctx: Context) -> dict[str, Sketch]:
    """A sketch of each named value of the main graph, over all samples."""
    sketches = {name: Sketch() for name in names}
    if not sketches:
        return sketches
    with ThreadPoolExecutor(ctx.threads or os.cpu_count() or 1) as pool:
        for batch in stream(model, list(sketches), samples, ctx, "calibrate"):
            # Each sketch is updated by one thread; the kernels run without Python's lock.
            list(pool.map(lambda name: sketches[name].update(batch[name]), sketches))  # noqa: B023 (drained here)
    return sketches


def stream(
    model: Model, names: Sequence[str], samples: Samples, ctx: Context, label: str
) -> Iterator[dict[str, Array]]:
    """The named values of a model for all samples, batch by batch, within `MEMORY`."""
    inputs = {t.name for t in model.graph.inputs}
    runner = Runner(model, outputs=[n for n in names if n not in inputs] or None, threads=ctx.threads)
    size = _batch_size(runner, samples)
    step = samples.batch or size
    for feeds in ctx.track(samples.batches(size), label, -(-samples.rows // step)):
        # A graph input cannot be asked for as an output; it is at hand anyway.
        yield {**{n: feeds[n] for n in names if n in inputs}, **runner.run(feeds)}


def _batch_size(runner: Runner, samples: Samples) -> int:
    """Rows in a batch such that the values of one fit into `MEMORY`, found by running one row."""
    feeds = next(samples.batches(1))
    held = held_bytes(runner.run(feeds)) + held_bytes(dict(feeds))
    return max(1, min(MOST_ROWS, MEMORY // max(held, 1)))
