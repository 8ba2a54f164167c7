"""Runs a file that is about to be written in LiteRT, beside the model in onnxruntime."""

import numpy as np

from zc.backends.tflite.litert import LiteRtRunner
from zc.data import Samples
from zc.errors import CheckFailed, ZcError
from zc.execute import Feeds, Runner, relative_error
from zc.ir.model import Model
from zc.ir.quantised import is_quantised
from zc.measure.tensor_error import sqnr
from zc.pipeline.base import Context, Note
from zc.pipeline.synthetic import synthetic_samples

FLOAT_LIMIT = 1e-3
"""Largest relative difference of outputs that sums in another order explain."""

POOR = 20.0
"""Decibels below which a file that rounds is worth a warning."""

ROWS = 4


def prove(model: Model, data: bytes, signature: str, ctx: Context, *, exact: bool) -> tuple[dict[str, str], list[Note]]:
    """How far the outputs of a signature of a file are from the model's, on a few samples.

    exact: it computes what the model does; then a difference beyond float noise is an error.

    Raises:
        CheckFailed: LiteRT computes something else. ZcError: LiteRT does not run the file.
    """
    runner = LiteRtRunner(data, signature=signature)
    try:
        samples = ctx.samples if ctx.samples is not None else synthetic_samples(model, rows=ROWS, seed=ctx.seed)
        feeds = list(_some(samples))
        session = Runner(model, threads=1)
        wanted = [session.run(one) for one in feeds]
    except ZcError as err:
        return {}, [Note("warning", model.name, f"the file was not compared with the model: {err}")]
    got = [runner.run(one) for one in feeds]
    rounds = is_quantised(model) or not exact
    worst, least = 0.0, np.inf
    for ours, theirs in zip(got, wanted, strict=True):
        for name, value in theirs.items():
            if value.dtype.kind not in "fiub":
                continue
            worst = max(worst, relative_error(ours[name].astype(value.dtype), value))
            if value.dtype.kind == "f":
                least = min(least, sqnr(ours[name], value))
    if rounds:
        notes = []
        if least < POOR:
            notes = [
                Note("warning", model.name, f"its outputs in LiteRT are {least:.0f} dB from the model's in onnxruntime")
            ]
        return {"sqnr": f"{least:.1f} dB"}, notes
    if worst > FLOAT_LIMIT:
        raise CheckFailed(
            f"{model.name}: LiteRT computes something else than the model: outputs differ by {worst:.2g} of the "
            "largest number; nothing is written"
        )
    return {"difference": f"{worst:.1g}"}, []


def _some(samples: Samples) -> list[Feeds]:
    found: list[Feeds] = []
    for batch in samples.batches(1):
        found.append(batch)
        if len(found) == ROWS:
            break
    return found
