"""One model at several places of deployment, side by side: what it says there, and what it costs."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zc.backends.base import Artifact, Backend, NamedEngine, NotHere, deliver
from zc.backends.qdq import dequantised, maker, scale_of
from zc.data import Samples
from zc.errors import ZcError
from zc.execute import Runner, Runs
from zc.ir.model import Model
from zc.measure.evaluate import Difference, Score, evaluate_all
from zc.measure.latency import Latency, bench
from zc.pipeline.base import Context
from zc.pipeline.manager import run_pipeline
from zc.track import Track, untracked

BATCH = 32
LEVELS = 255
"""Steps that the range of an output which is not in codes is divided into."""


@dataclass(frozen=True)
class Steps:
    """By how many steps of an output's codes two runs of one quantised model differ: shares of all elements."""

    equal: float
    one: float
    two: float
    more: float

    def __str__(self) -> str:
        return " / ".join(f"{100 * share:.4g}" for share in (self.equal, self.one, self.two, self.more))


@dataclass(frozen=True)
class Place:
    """A model at one place."""

    target: str
    pipeline: str
    where: str = ""
    """What computed the figures."""
    score: Score | None = None
    difference: Difference | None = None
    """From the float model."""
    agreement: float | None = None
    """Percent: rows whose largest output is the float model's; None where no output is a choice."""
    sqnr: float | None = None
    """Of the outputs against the float model's, in dB."""
    steps: Steps | None = None
    """From the model that was handed over, every Q/DQ of it as it stands."""
    bytes: int = 0
    latency: Latency | None = None
    """Beside the float model in onnxruntime, one thread; None where the place is not this machine."""
    warnings: tuple[str, ...] = ()
    """What the emitter warned of."""
    failed: str = ""
    """Why there is nothing to show."""


@dataclass(frozen=True)
class _Deployed:
    backend: Backend
    pipeline: str
    model: Model
    """As the pipeline left it."""
    artifact: Artifact
    engine: NamedEngine
    here: bool
    """Is this machine the place?"""


def parity(
    model: Model,
    backends: Sequence[Backend],
    samples: Samples,
    calib: Samples,
    *,
    pipeline: str | None = None,
    metric: str = "top1",
    label_offset: int = 0,
    keep: Path | None = None,
    seed: int = 0,
    budget: float = 3.0,
    track: Track = untracked,
) -> list[Place]:
    """Make a model's artifact for each place, run it on the samples where that is possible, and compare.

    The first row is the float model in onnxruntime. A place for which nothing can be made has a row with the reason.

    pipeline: for all of them; by default each place's own. keep: a folder for the artifacts. budget: seconds of timing.
    """
    with tempfile.TemporaryDirectory(prefix="zc-") as temporary:
        folder = keep or Path(temporary)
        rows, done = dict[str, Place](), list[_Deployed]()
        for backend in backends:
            text = pipeline or backend.usual
            try:
                done.append(_deploy(model, backend, text, calib, folder, seed, track))
            except ZcError as err:
                rows[backend.name] = Place(backend.target.name, text, failed=str(err))
        first = Runner(model, threads=1)
        scores, differences = evaluate_all(
            [first, *(one.engine for one in done)],
            samples,
            metric,
            reference=first,
            label_offset=label_offset,
            batch=BATCH,
            track=track,
        )
        feeds = list(samples.take(0, min(samples.rows, 8 * (samples.batch or 1))).batches(1))
        timed = [one for one in done if one.here]
        times = bench([first, *(one.engine for one in timed)], feeds, budget=budget)
        latency = {one.backend.name: time for one, time in zip(timed, times[1:], strict=True)}
        for one, score, difference in zip(done, scores[1:], differences, strict=True):
            agreement, sqnr = _against(first, one.engine, samples)
            rows[one.backend.name] = Place(
                target=one.backend.target.name,
                pipeline=one.pipeline,
                where=one.engine.name,
                score=score,
                difference=difference,
                agreement=agreement,
                sqnr=sqnr,
                steps=_steps(one.model, one.engine, samples),
                bytes=one.artifact.bytes,
                warnings=tuple(note.what for note in one.artifact.notes if note.kind == "warning"),
                latency=latency.get(one.backend.name),
            )
    float_row = Place("float", "", "onnxruntime", scores[0], bytes=model.nbytes(), latency=times[0])
    return [float_row, *(rows[backend.name] for backend in backends)]


def _deploy(
    model: Model, backend: Backend, pipeline: str, calib: Samples, folder: Path, seed: int, track: Track
) -> _Deployed:
    made = model.copy()
    ctx = Context(backend.target, calib, seed, track)
    run_pipeline(made, pipeline, ctx, verify="structure")
    handed = made.copy()
    suffix = (*backend.suffixes, ".onnx")[0]
    artifact, _ = deliver(backend, made, folder / f"{Path(model.name).stem}-{backend.name}{suffix}", ctx)
    try:
        return _Deployed(
            backend, pipeline, handed, artifact, NamedEngine("here", backend.engine(artifact.path, 1)), True
        )
    except NotHere:
        engine = NamedEngine("predicted", backend.stand_in(artifact.path, 1))
        return _Deployed(backend, pipeline, handed, artifact, engine, False)


def _against(first: Runs, engine: Runs, samples: Samples) -> tuple[float | None, float | None]:
    """Percent of rows with the same choice (of the first output that is a row of scores), and dB of all outputs."""
    same = rows = 0
    signal = noise = 0.0
    for feed in samples.batches(BATCH):
        want, got = first.run(feed), engine.run(feed)
        for i, (name, value) in enumerate(want.items()):
            if value.dtype.kind != "f":
                continue
            signal += float(np.square(value, dtype=np.float64).sum())
            noise += float(np.square(np.subtract(got[name], value, dtype=np.float64)).sum())
            if i == 0 and value.ndim == 2 and value.shape[1] > 1:
                same += int((got[name].argmax(axis=1) == value.argmax(axis=1)).sum())
                rows += len(value)
    sqnr = 10 * float(np.log10(signal / noise)) if signal > 0 and noise > 0 else None
    return (100 * same / rows if rows else None), sqnr


def _steps(model: Model, engine: Runs, samples: Samples) -> Steps | None:
    """A histogram of differences to the model as handed over, in steps of each output's codes.

    The model runs in onnxruntime without its fusions, so that every Q/DQ stands. None where that has no kernels for it.
    """
    try:
        plain = Runner(model, threads=1, level="basic")
    except ZcError:
        return None
    step = {t.name: _step(model, t.name) for t in model.graph.outputs}
    counts = np.zeros(4, np.int64)
    for feed in samples.batches(BATCH):
        got, want = engine.run(feed), plain.run(feed)
        for name, value in want.items():
            if value.dtype.kind != "f" or not value.size:
                continue
            size = step[name] or float(np.ptp(value)) / LEVELS or 1.0
            off = np.rint(np.abs(got[name].astype(np.float64) - value) / size)
            counts += [int((off == n).sum()) for n in (0, 1, 2)] + [int((off > 2).sum())]
    total = max(int(counts.sum()), 1)
    return Steps(*(int(n) / total for n in counts))


def _step(model: Model, name: str) -> float | None:
    """The scale of an output that comes out of codes; None where it does not."""
    output = next(t for t in model.graph.outputs if t.name == name)
    made = maker(output)
    scale = scale_of(made) if made is not None and dequantised(output) else None
    return None if scale is None else float(scale.reshape(-1)[0])
