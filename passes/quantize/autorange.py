"""`auto`: the rule for ranges that least disturbs what the net puts out.

Every rule of a ladder gives each value a range of its own, from the sketches of all samples. The rules differ in what
cutting a value off costs: by its square (mse), by several times its square, without limit (minmax), or by how rare it
is (entropy). What it really costs is no matter of the value alone. Rounding errors are independent and average out on
the way to the outputs; what is cut off is the same sign everywhere, adds up, and a pooling behind may pick just that.
So the float net is run with its activations rounded by each rule in turn, weights left as they are, and the outputs
decide. (On eight nets the error at the consumers alone, which is cheaper to measure, chose up to 6 dB worse.)

The score of a rule is noise over signal of each row and output, at most 1, and the mean of that: a row that is lost
counts as lost, and a single odd one cannot outvote all others. Rows are picked by their content, so that the order of
the samples does not show.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zc.data import Feed, Samples
from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.graph import Array
from zc.ir.model import Model
from zc.measure.agreement import compared, ends
from zc.passes.quantize.placement import Placement
from zc.passes.quantize.ranges import Rule
from zc.passes.quantize.rounded import FLOAT_KERNELS, round_activations
from zc.passes.quantize.scheme import Scale
from zc.pipeline.base import Context

LADDER = (
    Rule("mse", clip_cost=4),
    Rule("mse", clip_cost=16),
    Rule("minmax"),
    Rule("mse", clip_cost=1),
    Rule("entropy"),
)
"""The rules that are tried; the first stands where nothing can be measured."""

MARGIN = 0.2
"""Decibels by which a rule must be better than those before it: less is luck of the rows."""

MOST_ROWS = 32
LOST = 1.0
"""The most noise over signal of a row: as wrong as nothing at all."""


@dataclass(frozen=True)
class Choice:
    """The rule that was found best, and what each of them cost."""

    rule: Rule
    noise: Mapping[Rule, float]
    """Mean noise over signal in dB; empty where nothing could be measured."""
    why: str = ""
    """Why nothing could be measured."""


def choose_rule(
    model: Model,
    place: Placement,
    scales_by: Callable[[Rule], Mapping[int, Scale]],
    samples: Samples | None,
    ctx: Context,
) -> Choice:
    """Try the rules on the main graph of a float model.

    place: of that graph. scales_by: the scale of each of its values with codes, by id, under a rule. samples: None if
    there are no real ones.
    """
    if samples is None:
        return Choice(LADDER[0], {}, "there are no samples to try rules on")
    if not place.groups:
        return Choice(LADDER[0], {}, "no value gets codes")
    names = _looked_at(model)
    try:
        feeds = _picked(samples)
        want = _run(model, {}, names, feeds, ctx)
        noise = {}
        for rule in ctx.track(LADDER, "choose ranges", len(LADDER)):
            rounded, renamed = round_activations(model, place, scales_by(rule))
            noise[rule] = _noise(_run(rounded, renamed, names, feeds, ctx), want)
    except ZcError as err:  # rounded, it may fail where it ran before: a branch, or no box left
        return Choice(LADDER[0], {}, str(err))
    if not all(np.isfinite(list(noise.values()))):
        return Choice(LADDER[0], {}, "no output can be compared")
    best = LADDER[0]
    for rule in LADDER:
        if noise[rule] < noise[best] - MARGIN:
            best = rule
    return Choice(best, noise)


def _looked_at(model: Model) -> list[str]:
    """The values to compare: what stands before a choice or a saturation, else the outputs."""
    made = {t.name for n in model.graph.nodes for t in n.outputs}
    before = ends(model)
    return list(dict.fromkeys(before.get(name, name) for name in compared(model) if name in made))


def _picked(samples: Samples) -> list[Feed]:
    """Feeds of one row each (or of the batch that the model fixes), the same for the same set in any order."""
    size = 1 if samples.reader.whole else samples.batch or 1
    most = max(1, MOST_ROWS // size)
    parts = [samples.take(i, i + size) for i in range(0, samples.rows - size + 1, size)]
    picked = sorted(parts, key=lambda part: part.digest())[:most] if len(parts) > 1 else parts
    return [feed for part in picked for feed in part.batches(size)]


def _run(
    model: Model, renamed: Mapping[str, str], names: Sequence[str], feeds: Sequence[Feed], ctx: Context
) -> list[list[Array]]:
    """By feed the named values; those that were rounded as their readers see them."""
    asked = [renamed.get(name, name) for name in names]
    runner = Runner(model, outputs=asked, threads=ctx.threads, config=FLOAT_KERNELS)
    found = []
    for feed in feeds:
        values = runner.run(feed)
        found.append([values[name] for name in asked])
    return found


def _noise(got: Sequence[Sequence[Array]], want: Sequence[Sequence[Array]]) -> float:
    """Mean over feeds and values of noise over signal, in dB; NaN where no value can be compared."""
    found = [_ratio(a, b) for ours, theirs in zip(got, want, strict=True) for a, b in zip(ours, theirs, strict=True)]
    seen = [one for one in found if one is not None]
    return 10 * float(np.log10(max(float(np.mean(seen)), 1e-18))) if seen else float("nan")


def _ratio(got: Array, want: Array) -> float | None:
    """Noise over signal, at most `LOST`; None for what is no array of numbers, or for silence."""
    if not isinstance(want, np.ndarray) or want.dtype.kind != "f":
        return None
    if got.shape != want.shape:
        return LOST
    exact = want.astype(np.float64)
    fine = np.isfinite(exact)
    signal = float(np.square(exact[fine]).sum())
    if not signal:
        return None
    noise = float(np.square(got[fine] - exact[fine]).sum())
    return min(noise / signal, LOST) if np.isfinite(noise) else LOST
