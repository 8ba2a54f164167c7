"""The pass `equalize`: channels of one value get like ranges, so that one scale serves them all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from zc.data import Samples
from zc.errors import ZcError
from zc.ir.edit import sort_nodes
from zc.ir.graph import describe
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes
from zc.passes.patterns import first_match, require_matches
from zc.passes.quantize.absorb import absorb_biases
from zc.passes.quantize.analytic import scale_moments
from zc.passes.quantize.datafree import free_of_data, statistics
from zc.passes.quantize.scaling.balance import Classes, balanced, weight_ranges
from zc.passes.quantize.scaling.flow import Flow
from zc.passes.quantize.scaling.interpret import interpret
from zc.passes.quantize.scaling.observe import channel_extremes
from zc.passes.quantize.scaling.plan import ALPHAS, Choice, Plan, make_plan, wanted_values
from zc.passes.quantize.scaling.rescale import Factors, rescale
from zc.passes.quantize.trial import Source, db
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register

Aim = Literal["activations", "weights"]

ROUNDS = 50
"""Most rounds of balancing weights; each layer's weight changes with those on both sides."""

SETTLED = 1e-3
"""Weights are balanced when no factor changes by more than this share."""


@register
@dataclass(frozen=True)
class Equalize(Pass):
    """Move factors from channel to channel across layers, so that no channel is lost in the range of another.

    before:  x -> Conv(w1[o, i], b1[o])               -> Relu -> y -> Conv(w2[m, o])        -> z
    after:   x -> Conv(s[o] * w1[o, i], s[o] * b1[o]) -> Relu -> y -> Conv(w2[m, o] / s[o]) -> z

    Relu(s y) = s Relu(y) for s > 0, and so for whatever else stands between: pools, Concat, residual sums (their terms
    share the factors), reshaping. The numbers stay what they are.

    Weights have a scale for each channel, activations one for all: aim=activations gives each value the factors
    below**(1 - alpha) / above**alpha, from the range of the channel (above) and of the weights that read it (below),
    with the alpha that measures best at the outputs behind it, or none. For weights that share one scale there is
    aim=weights, which needs no samples: alpha 1/2 on the ranges of the weights on both sides, until they agree.
    (Nagel et al., Data-Free Quantization through Weight Equalization and Bias Correction, 2019, section 4.1.)
    """

    name: ClassVar[str] = "equalize"
    exact: ClassVar[bool] = True
    requires: ClassVar[tuple[str, ...]] = ("clean",)
    keeps: ClassVar[tuple[str, ...]] = ("clean",)
    uses_samples: ClassVar[bool] = True

    aim: Aim = "activations"
    """What gets like ranges: the channels of activations, or those of weights that share one scale."""
    alpha: float | Literal["auto"] = "auto"
    """With aim=activations: 1 makes the channels of a value alike, 0 the weights that read it; auto: what measures best
    for each value, which may be none."""
    residual: bool = True
    """Let values that meet in a sum share factors; false: leave them alone."""
    clips: Literal["keep", "samples"] = "keep"
    """A Clip (ReLU6) has one bound for all channels. keep: its channels stay as they are. samples: those that do not
    reach the bound on the samples grow until they do; beyond what the samples showed they are cut off (not exact)."""
    absorb: bool = False
    """Move what a channel says at least (three deviations below its mean) into the biases behind it. It is not exact:
    what lies below is cut off."""
    per_channel: bool = True
    """Will weights get a scale for each output channel? It tells what rounding costs."""
    skip: tuple[str, ...] = ()
    """Nodes whose inputs and outputs keep their scale: globs over node names, operators and output names."""

    def __post_init__(self) -> None:
        if self.alpha != "auto" and not 0 <= self.alpha <= 1:
            raise ZcError(f"alpha is {self.alpha:g}; give 0 to 1, or auto")

    @property
    def proven(self) -> bool:
        """Exact, unless samples say how far channels reach."""
        return self.clips == "keep" and not self.absorb

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Equalise the model in place. ZcError when the samples do not run or a pattern matches nothing."""
        result = PassResult(changed=False)
        flow = open_flow(model, residual=self.residual, limits=self.clips == "samples", skip=self.skip)
        tell_pinned(result, flow)
        if all(flow.pinned(reader.layout) for reader in flow.readers) and not self.absorb:
            result.declined(model.name, "no channel can be scaled: no layer reads what another one may scale")
            return result
        if self.aim == "weights":
            factors = balanced_weights(flow)
            result.stats["spread_before"], result.stats["spread_after"] = _spread(flow, factors)
        else:
            source = where_to_look(model, ctx)
            plan = plan_activations(flow, source, ctx, alpha=self.alpha, per_channel=self.per_channel)
            factors = plan.factors
            tell_choices(result, plan.choices)
        result.stats["constants_scaled"] = put_in(flow, factors, ctx)
        result.changed = result.stats["constants_scaled"] != 0
        if self.absorb:
            result.changed |= self._absorb(model, ctx, result)
        return result

    def _absorb(self, model: Model, ctx: Context, result: PassResult) -> bool:
        source = where_to_look(model, ctx)
        known = statistics(ctx, model) if ctx.samples is None or ctx.samples.synthetic else {}
        done = absorb_biases(model, source, known, ctx)
        for where, why in done.declined:
            result.declined(where, why)
        result.stats["biases_absorbed"] = done.channels
        return done.channels > 0


def equalise(
    model: Model,
    samples: Samples,
    ctx: Context,
    *,
    alpha: float | Literal["auto"] = "auto",
    residual: bool = True,
    clips: bool = False,
    per_channel: bool = True,
) -> Plan:
    """Give the channels of activations like ranges, in place; what was chosen for each value. See `Equalize`.

    clips: also of channels that a Clip bounds, as far as the samples show; that is not exact.
    """
    flow = open_flow(model, residual=residual, limits=clips)
    plan = plan_activations(flow, Source(model, samples), ctx, alpha=alpha, per_channel=per_channel)
    put_in(flow, plan.factors, ctx)
    return plan


def where_to_look(model: Model, ctx: Context) -> Source:
    """The samples that were given; without them, values drawn from statistics where the model has some."""
    free = free_of_data(model, ctx)
    return Source(model, ctx.need_samples(model)) if free is None else Source(free.model, free.samples)


def put_in(flow: Flow, factors: Factors, ctx: Context) -> int:
    """Scale constants by the factors, and what is known of the values that they scale; how many constants changed."""
    if ctx.moments is not None or ctx.samples is None or ctx.samples.synthetic:
        values = {t.name: t for n in flow.model.graph.nodes for t in n.outputs if t.name}
        found = statistics(ctx, flow.model)
        scale_moments(found, {name: factors[flow.of(values[name])] for name in found if name in values})
    return rescale(flow, factors)


def open_flow(model: Model, *, residual: bool = True, limits: bool = False, skip: Sequence[str] = ()) -> Flow:
    """The labels of a model, whose shapes are inferred and whose nodes are sorted first."""
    infer_shapes(model)
    sort_nodes(model.graph)
    words = [[describe(n), n.op, *(t.name for t in n.outputs if t.name)] for n in model.graph.nodes]
    require_matches("skip", skip, [word for some in words for word in some], "node")
    flow = interpret(model, residual=residual, limits=limits)
    for node, some in zip(model.nodes(), words, strict=True):
        if skip and first_match(some, skip) is not None:
            for tensor in (*node.inputs, *node.outputs):
                flow.pin(tensor, f"belongs to '{describe(node)}', which was left out with the option skip")
    return flow


def plan_activations(
    flow: Flow,
    source: Source,
    ctx: Context,
    *,
    alpha: float | Literal["auto"] = "auto",
    per_channel: bool = True,
) -> Plan:
    """Factors that balance activations."""
    values = wanted_values(flow, ctx)
    if not values:
        return Plan(np.ones(flow.labels.count), [])
    extremes = channel_extremes(source, {name: flow.of(tensor) for name, tensor in values.items()}, ctx)
    by_row = per_channel and ctx.target.per_channel
    alphas = ALPHAS if alpha == "auto" else (alpha,)
    return make_plan(flow, extremes, alphas, source if alpha == "auto" else None, ctx, by_row=by_row)


def balanced_weights(flow: Flow) -> Factors:
    """Factors with which the weights on both sides of each channel have like ranges."""
    classes = Classes.of(flow)
    factors = np.ones(flow.labels.count)
    for _ in range(ROUNDS):
        above, below = weight_ranges(classes, factors, by_row=False)
        step = classes.by_label(balanced(classes, above, below, 0.5))
        factors = factors * step
        if np.abs(np.log(step)).max(initial=0.0) < SETTLED:
            break
    return factors


def _spread(flow: Flow, factors: Factors) -> tuple[float, float]:
    """Mean over layers of largest range of a channel / median one, of output channels, before and after."""
    classes = Classes.of(flow)
    found = []
    for one in (np.ones(len(factors)), factors):
        ratios = []
        for reader in flow.readers:
            ranges = np.sort(classes.made_by(reader, one))
            middle = ranges[len(ranges) // 2]
            if middle > 0:
                ratios.append(ranges[-1] / middle)
        found.append(round(float(np.mean(ratios)), 3) if ratios else 1.0)
    return found[0], found[1]


def tell_pinned(result: PassResult, flow: Flow, ops: frozenset[str] | None = None) -> None:
    """The values that layers (of some operators) read and whose channels cannot be scaled, with the reason."""
    for reader in flow.readers:
        if (ops is None or reader.edit.node.op in ops) and flow.pinned(reader.layout):
            reason = flow.labels.reasons[int(flow.labels.reason(reader.layout).min())]
            result.declined(describe(reader.edit.node), f"its input keeps its scale: it {reason}")
    for node, why in flow.refused:
        if ops is None or node.op in ops:
            result.declined(describe(node), f"its input keeps its scale: {why}")


def tell_choices(result: PassResult, choices: Sequence[Choice]) -> None:
    """What was gained, and where nothing was."""
    gains = []
    for one in choices:
        if one.before is None or one.after is None:
            continue
        if one.alpha is None:
            name = f"'{one.values[0]}'" + (f" and {len(one.values) - 1} more" if len(one.values) > 1 else "")
            was, would = db(one.before), db(one.after)
            result.declined(name, f"keeps its scale: rounding leaves {was:.1f} dB behind it, at best {would:.1f}")
        else:
            gains.append(db(one.after) - db(one.before))
    result.stats["values_scaled"] = sum(len(one.values) for one in choices if one.alpha is not None)
    result.stats["gain_db"] = round(float(np.mean(gains)), 2) if gains else 0.0
