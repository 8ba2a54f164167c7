"""The pass `quantize`: static int8 quantisation with calibration."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, cast

from zc.errors import ZcError
from zc.ir.graph import Node, describe
from zc.ir.model import Model
from zc.passes.patterns import as_pattern
from zc.passes.quantize.autorange import Choice
from zc.passes.quantize.bodies import regions
from zc.passes.quantize.check import fusing
from zc.passes.quantize.choose import choose_activations
from zc.passes.quantize.economy import economise, tell_economy
from zc.passes.quantize.form import Activations, Form, Ranges, Rounding
from zc.passes.quantize.guard import Demand, Guard
from zc.passes.quantize.guard import Trial as Guarded
from zc.passes.quantize.opset import INT4_OPSET, WIDE_OPSET
from zc.passes.quantize.overrides import Overrides, parse_override
from zc.passes.quantize.recipe import choose
from zc.passes.quantize.refuse import refusal
from zc.passes.quantize.report import (
    figures,
    tell_cache,
    tell_error,
    tell_free,
    tell_placement,
    tell_raised,
    tell_ranges,
    tell_samples,
    tell_trials,
)
from zc.passes.quantize.select import float_filter
from zc.passes.quantize.workshop import Built, KeepFloat, Workshop
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register


@register
@dataclass(frozen=True)
class Quantize(Pass):
    """Let convolutions and matrix products run in 8-bit integers, with scales found by calibration.

    before:  x -> Conv(w, b) -> Relu -> y -> Conv ...
    after:   x -> Q -> DQ -> Conv(DQ(w int8), DQ(b int32)) -> Q -> DQ -> y -> Conv ...

    Weights become int8 with a scale for each output channel, biases int32, activations what the target wants (uint8 on
    ONNX Runtime). Whatever does not stand between two weighted operators stays float, and so do Softmax, normalisations
    and residual streams in float.
    """

    name: ClassVar[str] = "quantize"
    requires: ClassVar[tuple[str, ...]] = ("clean",)
    uses_samples: ClassVar[bool] = True

    method: Ranges = "auto"
    """How a range is read from what calibration saw: all of it (minmax); without the rarest values at both ends
    (percentile); the one whose codes tell most of the distribution (entropy); the one with the least squared error
    (mse); or as disturbs the outputs least (auto)."""
    percentile: float = 99.999
    """With method=percentile: per cent of the values that the range must hold."""
    clip_cost: float = 1.0
    """With method=mse: how many times the squared error of what is cut off counts. What is cut off adds up on the way
    to the outputs, where rounding errors average out."""
    per_channel: bool = True
    """One weight scale for each output channel; false: one for the whole weight."""
    bias_correct: bool = True
    """Shift biases so that the mean of each channel is the float model's, layer after layer."""
    weight_bits: int = 8
    """Bits of the codes of weights, 2 to 8. With 4 and fewer the file halves where the target takes them from int4;
    kernels are those of int8. Better with rounding=second-order."""
    activation_bits: Literal[8, 16] = 8
    """Bits of the codes of activations. 16 are for accelerators; their ranges cut nothing off."""
    activations: Activations | Literal["auto"] = "auto"
    """Where the ranges come from of what matrix products between float values read: calibration (static), the data at
    hand (dynamic), or whichever agrees better with the float model (auto)."""
    rounding: Rounding | Literal["auto"] = "auto"
    """How codes of weights are chosen: each by itself, or (second-order) for what the layer says with all of them.
    auto: what leaves less error at the outputs on rows held back."""
    equalize: bool | Literal["auto"] = "auto"
    """Move factors across layers first, so that no channel is lost in the range of another. auto: if it leaves less
    error at the outputs on rows held back."""
    smooth: bool | Literal["auto"] = False
    """Move outliers of what matrix products read into their weights first, with a Mul in front of a product where that
    halves its error. auto: as for equalize; it takes rows that show all that the model will ever read, as outliers
    that no row shows cost more then."""
    float_if_faster: bool = True
    """Leave in float what the target's cost table says takes longer in integers, conversions included."""
    guard: bool = True
    """Compare with the float model on samples held back: leave in float what costs much accuracy for little time, and
    whatever else has to be lest the outputs collapse."""
    max_drop: float | None = None
    """Agreement with the float model on samples held back that may be lost, as 0.01; the layers that cost most stay
    float until it holds, and if it cannot, that is an error."""
    cache: str = ""
    """A file to keep what calibration saw in; read again where model and samples are the same. It is no part of what is
    done, and not recorded."""
    overrides: tuple[str, ...] = ()
    """Other settings for some nodes, as 'Conv per_channel=false' or '/head/* float' or '/fc weight_bits=4 method=mse':
    a pattern as for skip; what is said of names is stronger than of operators, what is said later than before."""
    skip: tuple[str, ...] = ()
    """Nodes to leave in float: globs over node names, operators and output names."""
    only: tuple[str, ...] = ()
    """If given, the nodes to quantise; globs as for skip."""

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:
            raise ZcError(f"percentile is {self.percentile:g}; give more than 50 and at most 100")
        if not self.clip_cost > 0:
            raise ZcError(f"clip_cost is {self.clip_cost:g}; give a number above 0")
        if not 2 <= self.weight_bits <= 8:
            raise ZcError(f"weight_bits is {self.weight_bits}; give 2 to 8")
        if self.activation_bits == 16 and self.activations == "dynamic":
            raise ZcError("activations=dynamic takes 8 bits; leave out activation_bits=16")
        for text in self.overrides:
            parse_override(text)
        if self.max_drop is not None and not 0 <= self.max_drop < 1:
            raise ZcError(f"max_drop is {self.max_drop:g}; give a share of agreement that may be lost, as 0.01")

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Quantise the model in place. ZcError when samples, options or model make it impossible."""
        result = PassResult(changed=False)
        prepared = self.prepare(model, ctx, result)
        if prepared is None:
            return result
        workshop, keep_float, unfused = prepared
        form = self.form()
        if self.activations == "auto" and self.activation_bits == 8:
            form = replace(form, activations=choose_activations(workshop, form, keep_float))
        chosen, trials = choose(workshop, form, self._open(), keep_float)
        tell_trials(result, trials)
        tell_free(result, workshop.free)
        form = chosen.form
        choice = workshop.variant(form).ranging.choices.get(form.activations)
        tell_ranges(result, choice)
        tell_cache(result, workshop)
        told = self._settled(form, choice)
        result.chose = told if told != self else None
        trial = self._guard(workshop, form, keep_float, ctx, result).best(result)
        if trial.empty:
            return result
        built = trial.built
        result.notes += built.told.notes
        tell_placement(result, built.model, built.places, ctx.target)
        tell_raised(result, built, ctx.target)
        tell_error(result, trial.found)
        result.stats = {**figures(built, unfused), **self._agreement(workshop, built)}
        result.stats |= {"bytes_before": model.nbytes(), "bytes_after": built.model.nbytes()}
        if trial.left.nodes or built.form != form:
            result.chose = self._chosen(model, workshop, trial, told)
        model.take(built.model)
        ctx.float_model = workshop.variant(form).model
        result.changed = True
        return result

    def _guard(self, workshop: Workshop, form: Form, keep_float: KeepFloat, ctx: Context, result: PassResult) -> Guard:
        gate = ctx.gate
        if gate is not None and not (before := gate(workshop.model)).passed:
            result.warn("--max-drop", f"it is missed before anything is quantised ({before.line})")
            gate = None
        return Guard(workshop, form, keep_float, Demand(self.guard, self.float_if_faster, self.max_drop, gate))

    def _chosen(self, model: Model, workshop: Workshop, trial: Guarded, chosen: "Quantize") -> "Quantize":
        """The options that give the same without a search."""
        form = trial.built.form
        same = replace(chosen, weight_bits=form.weight_bits, guard=False, max_drop=None, float_if_faster=False)
        named = self._asked(model)
        known = {describe(n) for scope in model.scopes() for n in scope.nodes}
        nodes = [cast(Node, n) for one in regions(workshop.model) for n in one.graph.nodes if describe(n) in known]
        left = dict.fromkeys(as_pattern(describe(n)) for n in nodes if trial.keep_float(n) and not named(n))
        wide = sorted(f"{as_pattern(where)} weight_bits=8" for where in form.wide)
        return replace(same, skip=(*self.skip, *left), overrides=(*self.overrides, *wide))

    def prepare(self, model: Model, ctx: Context, result: PassResult) -> tuple[Workshop, KeepFloat, int] | None:
        """What is to be built from, what stays float, and how many layers do because the target would run them so.

        None where nothing can be quantised; the reason is in the result.
        """
        refused = refusal(model)
        if refused is not None:
            result.warn(*refused)
            return None
        if self.activation_bits == 16:
            ctx = replace(ctx, target=ctx.target.wide())
        overrides, keep_float = Overrides(self.overrides, model), self._asked(model)
        workshop = Workshop(model, ctx, overrides, Path(self.cache) if self.cache else None)
        workshop.recognise(result)
        places = workshop.places(keep_float)
        if not any(one.sites or one.lookups for one in places):
            tell_placement(result, model, places, ctx.target)
            result.warn(model.name, "nothing to quantise: no weighted operator that could run in integers")
            return None
        if workshop.raise_opset(ctx.target.min_opset):
            result.info(model.name, f"opset raised to {ctx.target.min_opset}, the first with per-channel Q/DQ")
        if min(self.weight_bits, overrides.fewest_bits) <= 4 and ctx.target.loads_int4:
            _make_room_for_int4(workshop, result)
        tell_samples(result, ctx.need_samples(model))
        if self.activation_bits == 16:
            _make_room_for_16(workshop, result)
            return workshop, keep_float, 0
        if self.float_if_faster:
            economy = economise(workshop, keep_float)
            keep_float = economy.keep_float(keep_float)
            tell_economy(result, economy)
            places = workshop.places(keep_float)
            if not any(one.sites or one.lookups for one in places):
                tell_placement(result, model, places, ctx.target)
                why = "integers pay nowhere in it; quantize:float_if_faster=false makes it smaller all the same"
                result.warn(model.name, f"nothing is quantised: {why}")
                return None
        keep_float, unfused = fusing(workshop, self.form(), keep_float)
        return workshop, keep_float, unfused

    def _asked(self, model: Model) -> KeepFloat:
        """What the user wants in float, by skip, only and overrides."""
        named, special = float_filter(model, self.skip, self.only), Overrides(self.overrides, model)
        return lambda node: named(node) or special.keep_float(node)

    def form(self) -> Form:
        """The settings of the options; of those that say auto, the plainest."""
        return Form(
            self.method,
            self.percentile,
            self.clip_cost,
            self.per_channel,
            self.bias_correct,
            self.weight_bits,
            self.activation_bits,
            "static" if self.activations == "auto" else self.activations,
            "nearest" if self.rounding == "auto" else self.rounding,
            self.equalize is True,
            self.smooth is True,
        )

    def _open(self) -> dict[str, tuple[object, ...]]:
        """The options that say auto, and what they may become."""
        values: dict[str, tuple[object, ...]] = {
            "rounding": ("nearest", "second-order"),
            "smooth": (False, True),
            "equalize": (False, True),
        }
        return {name: choices for name, choices in values.items() if getattr(self, name) == "auto"}

    def _settled(self, form: Form, choice: Choice | None) -> "Quantize":
        """These options, with what was chosen where they left it open. choice: of the rule for ranges."""
        settled = replace(
            self,
            cache="",
            activations=form.activations,
            rounding=form.rounding,
            equalize=form.equalize,
            smooth=form.smooth,
        )
        if choice is None:
            return settled
        rule = choice.rule
        return replace(settled, method=rule.method, percentile=rule.percentile, clip_cost=rule.clip_cost)

    def _agreement(self, workshop: Workshop, built: Built) -> dict[str, int | float | str]:
        """How well it went, on rows held back."""
        found = workshop.agreement(built)
        return {
            "calibration_rows": workshop.split.fit.rows,
            "agreement": round(found.share, 4),
            "sqnr_db": round(found.sqnr, 2),
        }


def _make_room_for_int4(workshop: Workshop, result: PassResult) -> None:
    """Raise the operator set to one with numbers of 4 bits; where that fails, weights are stored in 8."""
    where = workshop.model.name
    try:
        if workshop.raise_opset(INT4_OPSET, "numbers of 4 bits"):
            result.info(where, f"opset raised to {INT4_OPSET}, the first with numbers of 4 bits")
    except ZcError as err:
        result.info(where, f"each weight takes 8 bits in the file: {err}")


def _make_room_for_16(workshop: Workshop, result: PassResult) -> None:
    """Raise the operator set to one with Q/DQ of 16 bits, and say where they compute."""
    where, target = workshop.model.name, workshop.ctx.target
    try:
        if workshop.raise_opset(WIDE_OPSET, "Q/DQ of 16 bits"):
            result.info(where, f"opset raised to {WIDE_OPSET}, the first with Q/DQ of 16 bits")
    except ZcError as err:
        result.info(where, f"Q/DQ of 16 bits are onnxruntime's own operators: {err}")
    if 16 not in target.activation_bits:
        result.warn(
            where,
            f"{target.name} has no kernels for activations of 16 bits: there all is computed in float, and weights are "
            "turned into numbers at every run, which takes longer than the float model",
        )
