"""Proof at run time: what the model returns before and after a pass, on a few samples."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from zc.errors import CheckFailed, ZcError
from zc.execute import Runner, float_pairs, relative_error
from zc.ir.graph import Array
from zc.ir.model import Model
from zc.ir.spec import TensorSpec
from zc.measure.tensor_error import decibels
from zc.pipeline.branches import count_branches, forced
from zc.pipeline.synthetic import synthetic_samples

TOLERANCE = 1e-5
"""Largest relative movement of an output that an exact pass may cause, unless float noise itself moves it more."""

_ULPS = 2
_MANTISSA = {"float16": 10, "bfloat16": 7}

_NOISE_ROOM = 4.0

Feeds = list[dict[str, Array]]
Outputs = list[dict[str, Array]]


@dataclass(frozen=True)
class Movement:
    """How far outputs moved: per output the largest relative error, and over all the signal-to-noise ratio in dB."""

    relative: float
    sqnr_db: float
    """Over the float outputs of equal size; infinite when none of them moved."""
    worst: str
    """The output that moved most."""


@dataclass
class Way:
    """One way through the model: as its inputs choose, or with every If forced (see `zc.pipeline.branches`)."""

    taken: bool | None
    feeds: Feeds
    last: Outputs


@dataclass
class Prover:
    """Holds the samples and what the model returned on them last and first."""

    original: Outputs
    ways: list[Way]
    branches: int
    """If nodes of the model that was run last."""

    @staticmethod
    def start(model: Model, feeds: Feeds, runner: Runner | None = None) -> "Prover":
        """Run the model as it came, in `runner` if it is given. ZcError when onnxruntime does not run it."""
        runner = runner or Runner(model)
        outputs = [runner.run(feed) for feed in feeds]
        return Prover(outputs, [Way(None, feeds, outputs), *_forced_ways(model, feeds)], count_branches(model))

    def blind(self) -> list[str]:
        """The outputs of which no number is finite on any sample: they are equal whatever a pass does."""
        first = self.original[0].items()
        floats = [k for k, v in first if isinstance(v, np.ndarray) and v.dtype.kind == "f" and v.size]
        return [k for k in floats if not any(np.isfinite(one[k]).any() for one in self.original)]

    def exact(self, model: Model, name: str) -> Movement:
        """Check that the outputs are those of before. CheckFailed naming the output that moved too far."""
        return self._step(model, name)

    def lossy(self, model: Model) -> Movement:
        """How far the outputs moved from those of before the pass."""
        return self._step(model, None)

    def total(self) -> Movement:
        """How far they are from those of the model as it came."""
        return movement(self.ways[0].last, self.original)

    def _step(self, model: Model, exact: str | None) -> Movement:
        """The movement since the last step. exact: the pass that promised none."""
        if count_branches(model) != self.branches:
            # An If is gone, so that forced ways are no longer those of before.
            self.ways[1:] = _forced_ways(model, self.ways[0].feeds)
            self.branches = count_branches(model)
        steps = []
        for way in self.ways:
            now = run(forced(model, way.taken), way.feeds)
            steps.append(movement(now, way.last))
            if exact is not None and steps[-1].relative > TOLERANCE:
                _allow(forced(model, way.taken), way, now, exact)
            way.last = now
        return steps[0]


def _forced_ways(model: Model, feeds: Feeds) -> list[Way]:
    """Both ways of the Ifs of a model, on these feeds or, where another branch asks for other sizes, synthetic ones."""
    ways: list[Way] = []
    for taken in (True, False) if count_branches(model) else ():
        one = forced(model, taken)
        try:
            ways.append(Way(taken, feeds, run(one, feeds)))
        except ZcError:
            with suppress(ZcError):
                other = [dict(feed) for feed in synthetic_samples(one, rows=1).batches(1)]
                ways.append(Way(taken, other, run(one, other)))
    return ways


def _allow(model: Model, way: Way, now: Outputs, name: str) -> None:
    """More than the tolerance: right only where plain float noise moves the output as much."""
    other = run(model, way.feeds, plain=True)
    for key in now[0]:
        moved = max(relative_error(a[key], b[key]) for a, b in zip(now, way.last, strict=True))
        noise = max(relative_error(a[key], b[key]) for a, b in zip(now, other, strict=True))
        if moved > max(tolerance(now[0][key]), _NOISE_ROOM * noise):
            where = "" if way.taken is None else f" with every If taking its {'then' if way.taken else 'else'} branch"
            raise CheckFailed(
                f"{name}: output '{key}' moved by {moved:.2g} relative{where}, the pass promises {TOLERANCE:g}; "
                "this is a defect of the pass"
            )


def tolerance(output: Any) -> float:
    """Largest relative movement that an exact pass may cause in an output: two last places where its type is coarse."""
    bits = _MANTISSA.get(output.dtype.name) if isinstance(output, np.ndarray) else None
    return TOLERANCE if bits is None else _ULPS * 2.0**-bits


def run(model: Model, feeds: Feeds, *, plain: bool = False) -> Outputs:
    """Outputs for each feed; `plain` without onnxruntime's graph optimisations."""
    runner = Runner(model, level="off" if plain else "all")
    return [runner.run(feed) for feed in feeds]


def movement(now: Outputs, then: Outputs) -> Movement:
    """Compare outputs of two runs on the same feeds."""
    errors: dict[str, float] = {}
    signal = noise = 0.0
    for a, b in zip(now, then, strict=True):
        for key, want in b.items():
            got = a[key]
            errors[key] = max(errors.get(key, 0.0), relative_error(got, want))
            for got64, want64 in float_pairs(got, want):
                signal += float(want64 @ want64)
                noise += float((got64 - want64) @ (got64 - want64))
    worst = max(errors, key=lambda k: errors[k], default="")
    return Movement(errors.get(worst, 0.0), decibels(signal, noise), worst)


def require_same_signature(before: tuple[tuple[TensorSpec, ...], ...], model: Model, name: str) -> None:
    """CheckFailed when inputs or outputs changed in name, order, type, or in a dimension that was known.

    An input must also keep its open dimensions: a size that is baked in refuses what the model took before.
    """
    after = signature(model)
    for kind, old, new in zip(("input", "output"), before, after, strict=True):
        if [s.name for s in old] != [s.name for s in new]:
            raise CheckFailed(f"{name}: {kind}s were {[s.name for s in old]} and are {[s.name for s in new]}")
        for a, b in zip(old, new, strict=True):
            if a.dtype != b.dtype or not _same_dims(a, b, may_close=kind == "output"):
                raise CheckFailed(f"{name}: {kind} '{a.name}' was {a} and is {b}")


def signature(model: Model) -> tuple[tuple[TensorSpec, ...], ...]:
    """Inputs and outputs."""
    return model.inputs, model.outputs


def _same_dims(a: TensorSpec, b: TensorSpec, *, may_close: bool) -> bool:
    """Are sizes the same? may_close: an open dimension may have been found to have a size (never one of an input)."""
    if a.shape is None or b.shape is None:
        return True
    return len(a.shape) == len(b.shape) and all(
        x == y if isinstance(x, int) else may_close or not isinstance(y, int)
        for x, y in zip(a.shape, b.shape, strict=True)
    )


__all__ = ["TOLERANCE", "Movement", "Prover", "movement", "require_same_signature", "run", "signature"]
