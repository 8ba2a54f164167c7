"""The decompose pass: layers of low rank become smaller layers in a row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from zc.errors import ZcError
from zc.ir.graph import describe
from zc.ir.model import Model
from zc.ir.shapes import static_shape
from zc.measure.bind import bind
from zc.measure.cost import count
from zc.passes.decompose.factors import candidates
from zc.passes.decompose.goals import Choice, loss_for_macs, loss_for_time, replaced
from zc.passes.decompose.write import microseconds
from zc.passes.layers.chosen import Moments, Outcome, choose_layers, moments_of, plain_moments
from zc.passes.layers.layers import Layer
from zc.passes.prune.speed.latency import read_latency
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register

FORMS = ("rank", "tucker", "separable")
ENERGY = 0.95


@register
@dataclass(frozen=True)
class Decompose(Pass):
    """Replace a layer of low rank by smaller ones in a row that say nearly the same.

    before:  x -> Conv 3x3 (64 -> 128) -> y
    after:   x -> Conv 3x3 (64 -> 24) -> Conv 1x1 (24 -> 128) -> y                                     (rank)
         or  x -> Conv 1x1 (64 -> 20) -> Conv 3x3 (20 -> 40) -> Conv 1x1 (40 -> 128) -> y              (tucker)
         or  x -> Conv 3x3, one filter a channel -> Conv 1x1 (64 -> 128) -> y                          (separable)

    Gemm and MatMul become two products. A layer takes the smallest form that keeps the stated part of what its outputs
    say, with samples measured with the covariance of its inputs, and only one that the target runs faster.
    """

    name: ClassVar[str] = "decompose"
    requires: ClassVar[tuple[str, ...]] = ("clean",)
    uses_samples: ClassVar[bool] = True

    energy: float | None = None
    """Part of the variance of each layer's outputs to keep, 0 < energy < 1; 0.95 where no goal is stated."""
    macs: float | None = None
    """Share of the multiply-accumulates of the model to leave, reached within 2 %; every layer keeps alike then."""
    latency: float | str | None = None
    """Share of the time of a run to leave (0.8), or milliseconds (5ms), measured here; every layer keeps alike then."""
    best_effort: bool = False
    """Where a goal cannot be reached, go as far as it gets."""
    forms: tuple[str, ...] = FORMS
    """The forms that a layer may take: rank, tucker and separable, separated by +."""
    if_faster: bool = True
    """Only where the parts are faster than the layer by the target's table of kernel times, where it has one."""
    skip: tuple[str, ...] = ()
    """Layers or weights that stay as they are: names or globs, separated by +."""
    only: tuple[str, ...] = ()
    """Layers or weights that may be replaced, all others stay: names or globs, separated by +."""

    def __post_init__(self) -> None:
        for name in ("energy", "macs"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise ZcError(f"{name} is {value:g}; it must be above 0 and below 1")
        if self.latency is not None:
            read_latency(self.latency)
        given = [name for name in ("energy", "macs", "latency") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ZcError(f"{given[0]} and {given[1]} are two goals; state one")
        unknown = [form for form in self.forms if form not in FORMS]
        if unknown or not self.forms:
            raise ZcError(f"forms has {unknown[0] if unknown else 'nothing'}; it must be of {', '.join(FORMS)}")

    def run(self, model: Model, ctx: Context) -> PassResult:
        """See `Pass.run`."""
        result = PassResult(changed=False)
        outcome = Outcome(model, ctx)
        layers = choose_layers(model, self.skip, self.only, result)
        seen = moments_of(model, [one for one in layers if one.groups == 1], outcome.fit, ctx)
        before = count(model)
        macs = {layer.name: layer.macs or 0 for layer in before.layers}
        shapes = _shapes(model)
        choices = [
            self._choice(one, seen.get(id(one.node)), macs.get(describe(one.node), 0), shapes, ctx, result)
            for one in ctx.track(layers, "decompose", len(layers))
        ]
        loss = self._loss(model, choices, before.macs, ctx, result)
        for choice in choices:
            if choice.forms and choice.best(loss) is None:
                least = min(choice.forms, key=lambda f: f.loss)
                result.declined(
                    describe(choice.layer.node), f"keeps at most {1 - least.loss:.3f} of its variance in fewer weights"
                )
        taken = replaced(model, choices, loss)
        if not taken:
            result.declined(model.name, "no layer was replaced: none is of low rank within the limits")
            return result
        after = count(model)
        result.changed = True
        result.stats.update(
            layers_replaced=sum(taken.values()),
            forms=", ".join(f"{form} {number}" for form, number in sorted(taken.items())),
            energy=round(1 - loss, 4),
            params_ratio=round(after.params / max(before.params, 1), 4),
            bytes_ratio=round(after.bytes / max(before.bytes, 1), 4),
        )
        if before.macs and after.macs:
            result.stats.update(macs_ratio=round(after.macs / before.macs, 4))
        outcome.tell(model, result)
        return result

    def _loss(
        self, model: Model, choices: Sequence[Choice], macs: int | None, ctx: Context, result: PassResult
    ) -> float:
        """The part of its variance that each layer may lose."""
        if self.macs is not None:
            found = loss_for_macs(self.macs, choices, macs)
        elif self.latency is not None:
            found = loss_for_time(read_latency(self.latency), model, choices, ctx)
        else:
            return 1 - (ENERGY if self.energy is None else self.energy)
        if found.short is not None:
            if not self.best_effort:
                raise ZcError(
                    f"{found.short}; state a goal within reach, or go as far as it gets with best_effort=true"
                )
            result.warn("latency" if self.macs is None else "macs", f"{found.short}, which is as far as it gets")
        result.stats.update(found.stats)
        return found.loss

    def _choice(
        self,
        layer: Layer,
        moments: Moments | None,
        macs: int,
        shapes: dict[str, tuple[int, ...]],
        ctx: Context,
        result: PassResult,
    ) -> Choice:
        """The forms of a layer that pay; says why where there are none."""
        moments = moments or plain_moments(layer)
        if layer.groups != 1:
            result.declined(describe(layer.node), "its channels are grouped: there is no rank to lower")
            return Choice(layer, moments, (), macs)
        us: dict[int, float] = {}
        forms = [one for one in candidates(layer, moments) if one.form in self.forms]
        costs = ctx.target.costs if self.if_faster else None
        now = None if costs is None else microseconds(layer, None, costs, shapes)
        if costs is not None and now is not None and forms:
            timed = [(one, microseconds(layer, one, costs, shapes)) for one in forms]
            forms = [one for one, its in timed if its is None or its < now]
            us = {id(one): its for one, its in timed if its is not None and its < now}
            if not forms:
                result.declined(
                    describe(layer.node), f"no form is faster than the {now:.0f} us it takes on {ctx.target.name}"
                )
        elif not forms:
            result.declined(describe(layer.node), "too small: no form has fewer weights")
        return Choice(layer, moments, forms, macs, us if len(us) == len(forms) and self.latency is not None else {})


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    bound = bind(model)
    tensors = [*bound.graph.inputs, *(t for n in bound.graph.nodes for t in n.outputs)]
    return {t.name: shape for t in tensors if (shape := static_shape(t)) is not None}
