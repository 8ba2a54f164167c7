"""The pass `clip`: rare values that spoil a range are cut off."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from zc.data import Samples
from zc.errors import ZcError
from zc.ir.edit import Editor, Names, sort_nodes
from zc.ir.graph import Array, Node, Tensor, describe
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes
from zc.passes.layers.layers import find_layers
from zc.passes.patterns import first_match, require_matches
from zc.passes.quantize.calibrate import Calibration, Key, stream
from zc.passes.quantize.equalize import where_to_look
from zc.passes.quantize.groups import Group
from zc.passes.quantize.operators import activation_bounds
from zc.passes.quantize.placement import Placement, place
from zc.passes.quantize.ranges import Codes, Method, Range, Rule, find_range
from zc.passes.quantize.scheme import activation_scale
from zc.passes.quantize.sketch import Sketch
from zc.passes.quantize.trial import ROWS, Source, Trial, Way, db, rounded_matrix, run_trials
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register
from zc.target import Target

Choice = Literal["auto", "percentile", "mse", "entropy"]

WORTH = 0.9
"""The error at the outputs behind must fall below this share of what it was: cutting values off is a change."""

SEEN = 0
"""Where the range of all that was seen stands among the candidates."""


@register
@dataclass(frozen=True)
class Clip(Pass):
    """Limit activations to the range that serves 8 bits best, where a few outliers make it much wider.

    before:  x -> Conv -> Relu -> y -> Conv          y: 0..3, and once in a million 40
    after:   x -> Conv -> Clip(0, 3.4) -> y -> Conv

    A range that holds every value that ever occurred gives the others few codes. Candidates are read from the samples;
    each is tried at the outputs of the layers that read the value, with everything rounded to 8 bits, and taken only
    where it is worth it: an outlier is what few samples have, so that every sample counts alike, and one that it ruins
    as no more than ruined. The Clip stands right behind the operator whose output has codes, where quantisation absorbs
    it into the range, so that it costs nothing; the float model changes for the values that it cuts off.
    (Migacz, 8-bit Inference with TensorRT, 2017; Banner et al., Post-training 4-bit Quantization, 2019.)
    """

    name: ClassVar[str] = "clip"
    requires: ClassVar[tuple[str, ...]] = ("clean",)
    keeps: ClassVar[tuple[str, ...]] = ("clean",)
    uses_samples: ClassVar[bool] = True

    method: Choice = "auto"
    """Where the candidates come from: percentiles, the least squared error (mse), the most information (entropy); auto:
    all of them."""
    percentile: float = 99.99
    """With method=percentile: per cent of the values that the range must hold."""
    skip: tuple[str, ...] = ()
    """Nodes whose outputs stay as they are: globs over node names, operators and output names."""

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:
            raise ZcError(f"percentile is {self.percentile:g}; give more than 50 and at most 100")

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Clip in place. ZcError when the samples do not run or a pattern matches nothing."""
        result = PassResult(changed=False)
        found = clip_ranges(model, where_to_look(model, ctx), ctx, self, result)
        gains = [db(one.after) - db(one.before) for one in found]
        result.stats = {"values_clipped": len(found), "gain_db": round(float(np.mean(gains)), 2) if gains else 0.0}
        for one in found:
            where, (low, high) = ", ".join(f"'{name}'" for name in one.values), one.range
            what = f"clipped to {low:.4g}..{high:.4g} of {one.seen[0]:.4g}..{one.seen[1]:.4g}"
            result.info(where, f"{what}: {db(one.before):.1f} -> {db(one.after):.1f} dB behind it")
        result.changed = bool(found)
        return result


@dataclass(frozen=True)
class Clipped:
    """Values that were limited, and what it gained."""

    values: tuple[str, ...]
    seen: Range
    range: Range
    before: float
    """Squared error at the outputs of the layers behind as a share of their squares, on average over samples, with 8
    bits for all that was seen."""
    after: float


def clip(model: Model, samples: Samples, ctx: Context, method: Choice = "auto") -> list[Clipped]:
    """Limit activations in place; which, and what it gained. See `Clip`."""
    return clip_ranges(model, Source(model, samples), ctx, Clip(method=method), PassResult(False))


def clip_ranges(model: Model, source: Source, ctx: Context, how: Clip, result: PassResult) -> list[Clipped]:
    """Limit activations in place; what was left alone is told in the result."""
    infer_shapes(model)
    sort_nodes(model.graph)
    words = {id(t): [describe(n), n.op, t.name] for n in model.graph.nodes for t in n.outputs if t.name}
    require_matches("skip", how.skip, [w for some in words.values() for w in some], "node")
    placement = place(model.graph, ctx.target, lambda node: None)
    groups = []
    for group in {id(g): g for g in placement.groups.values()}.values():
        why = _refusal(group, placement, how, words)
        if why is None:
            groups.append(group)
        elif group.measured:
            result.declined(f"'{group.measured[0].name}'", why)
    looked = _sketches(source, groups, ctx)
    ranges = [_candidates(sketch, how, ctx.target) if sketch.count else [] for sketch in looked]
    trials = _trials(model, groups, ranges, ctx.target)
    run_trials([trial for some in trials for trial in some], source, ctx, "compare ranges")
    lost = _cut_off(source, groups, ranges, ctx)
    editor = Editor(model.graph, Names(model.graph))
    done = []
    for group, candidates, some, cut in zip(groups, ranges, trials, lost, strict=True):
        one = _choose(group, candidates, some, cut, result)
        if one is not None:
            for tensor in group.measured:
                _limit(tensor, one.range, editor, model)
            done.append(one)
    editor.finish()
    return done


def _refusal(group: Group, placement: Placement, how: Clip, words: dict[int, list[str]]) -> str | None:
    """Why the values of a group stay as they are, or None."""
    if group.fixed is not None:
        return "stays as it is: the target demands its scale"
    for tensor in group.measured:
        if id(tensor) not in placement.native:
            return "stays as it is: it is computed in float, where its rounding cuts it off anyway (quantize:method)"
        if any(id(t) in placement.kept_values for t in group.members):
            return "stays as it is: it is an output of the model, or read inside a body"
        if first_match(words.get(id(tensor), []), how.skip) is not None:
            return "was left out with the option skip"
    return None


def _sketches(source: Source, groups: Sequence[Group], ctx: Context) -> list[Sketch]:
    """What was seen of the values of each group together."""
    keys = [[Key(0, t.name) for t in group.measured] for group in groups]
    found = Calibration(source.model, source.samples, ctx).sketches([key for some in keys for key in some])
    merged = []
    for some in keys:
        whole = Sketch()
        for key in some:
            whole.merge(found[key])
        merged.append(whole)
    return merged


def _candidates(sketch: Sketch, how: Clip, target: Target) -> list[Range]:
    """All that was seen, then ranges that may serve better."""
    codes = Codes(256, target.symmetric_activations)
    shares = (99.9, 99.99, 99.999) if how.method == "auto" else (how.percentile,)
    found = [find_range(sketch, Rule("percentile", share), codes) for share in shares]
    methods: tuple[Method, ...] = ("mse", "entropy")
    others = [find_range(sketch, one, codes) for one in methods if how.method in ("auto", one)]
    chosen = {"auto": found + others, "percentile": found}.get(how.method, others)
    return [(sketch.low, sketch.high), *chosen]


def _trials(
    model: Model, groups: Sequence[Group], ranges: Sequence[Sequence[Range]], target: Target
) -> list[list[Trial]]:
    """For each group the layers that read its values, to be tried with each candidate."""
    layers = find_layers(model)[0]
    found = []
    for group, candidates in zip(groups, ranges, strict=True):
        members = {id(t) for t in group.members}
        scales = [activation_scale(*one, target.activations, target.symmetric_activations) for one in candidates]
        some = []
        for layer in layers if scales else ():
            if id(layer.source) in members:
                weight = rounded_matrix(layer.matrix(), by_row=target.per_channel)
                some.append(Trial(layer, [Way(scale, weight) for scale in scales]))
        found.append(some)
    return found


def _cut_off(source: Source, groups: Sequence[Group], ranges: Sequence[Sequence[Range]], ctx: Context) -> list[Array]:
    """For each group what each candidate cuts off of a sample, as a share of its squares, on average over samples.

    A trial looks at some positions only: it may miss the one position of each sample that carries what it says.
    """
    samples = source.samples.take(0, min(source.samples.rows, ROWS)) if source.samples.batch is None else source.samples
    names = [t.name for group in groups for t in group.measured]
    sums = [np.zeros(len(candidates)) for candidates in ranges]
    counts = [0] * len(groups)
    for batch in stream(source.model, names, samples, ctx, "what ranges cut off") if names else ():
        for at, (group, candidates) in enumerate(zip(groups, ranges, strict=True)):
            for tensor in group.measured:
                rows = batch[tensor.name].reshape(len(batch[tensor.name]), -1)
                whole = np.maximum(np.square(rows, dtype=np.float64).sum(axis=1), 1e-30)
                for i, (low, high) in enumerate(candidates):
                    gone = np.square(rows - np.clip(rows, low, high), dtype=np.float64).sum(axis=1)
                    sums[at][i] += float((gone / whole).sum())
                counts[at] += len(rows)
    return [total / max(count, 1) for total, count in zip(sums, counts, strict=True)]


def _choose(
    group: Group, ranges: Sequence[Range], trials: Sequence[Trial], lost: Array, result: PassResult
) -> Clipped | None:
    """The best range of a group, or None where what was seen serves as well."""
    where = f"'{group.measured[0].name}'"
    if not trials:
        result.declined(where, "stays as it is: no layer whose error can be measured reads it")
        return None
    total = np.mean([trial.typical for trial in trials], axis=0) + lost
    best = int(total.argmin())
    if not total[best] < WORTH * total[SEEN]:  # so also where NaN was seen
        was, would = db(float(total[SEEN])), db(float(total[best]))
        result.declined(where, f"stays as it is: rounding leaves {was:.1f} dB behind it, at best {would:.1f}")
        return None
    names = tuple(t.name for t in group.measured)
    return Clipped(names, ranges[SEEN], ranges[best], float(total[SEEN]), float(total[best]))


def _limit(tensor: Tensor, bounds: Range, editor: Editor, model: Model) -> None:
    """Let a value stay within bounds: the activation in front of it becomes a tighter Clip, or it gets one."""
    maker = tensor.inputs[0]
    assert isinstance(maker, Node)
    limits = activation_bounds(maker, model.graph)
    if limits is None:
        raw = editor.names.variable(f"{tensor.name}_unclipped", like=tensor)
        maker.outputs[next(i for i, t in enumerate(maker.outputs) if t is tensor)] = raw
        maker = editor.add(Node("Clip", editor.names.take(f"{tensor.name}_Clip"), {}, [raw], [tensor]))
        limits = (-np.inf, np.inf)
    data, low, high = maker.inputs[0], max(bounds[0], limits[0]), min(bounds[1], limits[1])
    maker.op, maker.attrs = "Clip", {}
    if model.opset < 11:
        maker.attrs = {"min": float(low), "max": float(high)}
        return
    kind = np.dtype(tensor.dtype or np.float32)
    stems = [f"{tensor.name}_{side}" for side in ("low", "high")]
    maker.inputs = [
        data,
        *(editor.names.constant(s, np.array(v, kind)) for s, v in zip(stems, (low, high), strict=True)),
    ]
