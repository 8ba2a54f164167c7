"""Accuracy of several files of one model on the same rows, and how sure the difference between two of them is.

What each file gives for all rows is held, since some figures (a rank correlation, a detector's finds) are no means of
figures of rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zc.data import Samples
from zc.execute import Runner
from zc.ir.graph import Array
from zc.ir.model import Model
from zc.measure.metrics import METRICS, class_ids, scores_of

Outputs = dict[str, Array]
CERTAIN = 0.7
"""How sure the face detector must be: the threshold of its authors' demo."""


@dataclass(frozen=True)
class Measure:
    """How well a model does: a figure of rows, and how far it agrees with the float model."""

    name: str
    unit: str
    rows: Callable[[Outputs, Outputs, Samples, int], Array]
    """(outputs, the float model's, samples, label offset) -> float64 [rows, columns], of which `figure` is made."""
    figure: Callable[[Array], float]
    agree: Callable[[Outputs, Outputs], float]
    """(outputs, the float model's) -> agreement in `agree_unit`."""
    agree_unit: str = "%"


def outputs(model: Model | Path, samples: Samples, batch: int = 32) -> Outputs:
    """What a model gives for all rows, rows first; as `stream` too, where it has a state: the state carried along.

    A file as this processor runs it; a model as its codes say (see `zc.ir.exact`).
    """
    runner = Runner(model, threads=1)
    parts = [runner.run(feed) for feed in samples.batches(batch)]
    found = {name: np.concatenate([part[name] for part in parts]) for name in runner.outputs if name != "stateN"}
    if "stateN" in runner.outputs:
        state, said = None, []
        for feed in samples.batches(1):
            got = runner.run(feed if state is None else {**feed, "state": state})
            state = got["stateN"]
            said.append(got["output"])
        found["stream"] = np.concatenate(said)
    return found


def standard_error(measure: Measure, rows: Array, other: Array, draws: int = 200) -> float:
    """Of the difference of two files' figures on the same rows, by drawing rows anew (Efron, 1979)."""
    rng = np.random.default_rng(0)
    picks = (rng.integers(0, len(rows), len(rows)) for _ in range(draws))
    return float(np.std([measure.figure(rows[pick]) - measure.figure(other[pick]) for pick in picks]))


def _first(found: Outputs) -> Array:
    return next(iter(found.values()))


def _top1(got: Outputs, want: Outputs, samples: Samples, offset: int) -> Array:
    scores = scores_of(_first(got), samples.name)
    assert samples.labels is not None
    ids = class_ids(samples.labels, offset, scores.shape[1], samples.name)
    return (scores.argmax(1) == ids)[:, None].astype(np.float64)


def _psnr(got: Outputs, want: Outputs, samples: Samples, offset: int) -> Array:
    assert samples.labels is not None
    truth = samples.labels.astype(np.float64) / np.iinfo(samples.labels.dtype).max
    return METRICS["psnr"].rows(_first(got), truth)


def _same_class(got: Outputs, want: Outputs, samples: Samples | None = None, offset: int = 0) -> Array:
    return (_first(got).argmax(1) == _first(want).argmax(1))[:, None].astype(np.float64)


def _sqnr(got: Outputs, want: Outputs) -> float:
    return METRICS["sqnr"].figure(METRICS["sqnr"].rows(_first(got), _first(want)).mean(0))


def _faces(got: Outputs, want: Outputs, samples: Samples, offset: int) -> Array:
    """Is a face found in both images or in none?"""
    found, wanted = (np.nanmax(one["scores"][..., 1], axis=1) > CERTAIN for one in (got, want))
    return (found == wanted)[:, None].astype(np.float64)


def _anchors(got: Outputs, want: Outputs) -> float:
    """Of the places where either finds a face, the share where both do."""
    found, wanted = got["scores"][..., 1] > CERTAIN, want["scores"][..., 1] > CERTAIN
    return 100 * float((found & wanted).sum() / max((found | wanted).sum(), 1))


def _speech(got: Outputs, want: Outputs, samples: Samples, offset: int) -> Array:
    return ((got["output"] > 0.5) == (want["output"] > 0.5)).reshape(-1, 1).astype(np.float64)


def _stream(got: Outputs, want: Outputs) -> float:
    return 100 * float(((got["stream"] > 0.5) == (want["stream"] > 0.5)).mean())


def _alike(got: Outputs, want: Outputs, samples: Samples, offset: int) -> Array:
    """The cosine of two sentences' embeddings, and how alike people find them."""
    assert samples.labels is not None
    left, right = np.split(_first(got).astype(np.float64), 2)
    cosine = (left * right).sum(1) / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1))
    return np.stack([cosine, samples.labels[: len(left)]], axis=1)


def _spearman(rows: Array) -> float:
    return 100 * float(np.corrcoef(ranks(rows[:, 0]), ranks(rows[:, 1]))[0, 1])


def _cosine(got: Outputs, want: Outputs) -> float:
    return 100 * float(METRICS["cosine"].rows(_first(got), _first(want)).mean())


def _percent(rows: Array) -> float:
    return 100 * float(rows.mean())


def _mean(rows: Array) -> float:
    return float(rows.mean())


def ranks(values: Array) -> Array:
    """The place of each value in ascending order; equal ones share the mean of theirs."""
    _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[at]


def _agree(got: Outputs, want: Outputs) -> float:
    return _percent(_same_class(got, want))


MEASURES = {
    m.name: m
    for m in (
        Measure("top1", "%", _top1, _percent, _agree),
        Measure("agree", "%", _same_class, _percent, _agree),
        Measure("psnr", "dB", _psnr, _mean, _sqnr, "dB"),
        Measure("faces", "%", _faces, _percent, _anchors, "% of finds"),
        Measure("speech", "%", _speech, _percent, _stream, "% streaming"),
        Measure("spearman", "", _alike, _spearman, _cosine, "cosine"),
    )
}
"""`faces` and `speech`, like `agree`, are agreement with the float model itself: there are no labels."""
