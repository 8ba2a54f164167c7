"""The decompose pass: layers of low rank become smaller layers in a row."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from zc.errors import ZcError
from zc.ir.edit import Editor, Names, sort_nodes, sweep
from zc.ir.graph import Array, describe
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes, static_shape
from zc.measure.bind import bind
from zc.measure.cost import count
from zc.passes.decompose.factors import Factors, candidates, product_of
from zc.passes.decompose.write import microseconds, write
from zc.passes.layers.chosen import Moments, Outcome, choose_layers, forget, moments_of, plain_moments
from zc.passes.layers.layers import Layer
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register

FORMS = ("rank", "tucker", "separable")
ENERGY = 0.95
TOLERANCE = 0.02


@dataclass(frozen=True, eq=False)
class _Choice:
    """A layer and its forms, the least loss first among those that pay."""

    layer: Layer
    moments: Moments
    forms: Sequence[Factors]
    macs: int
    """Multiply-accumulates of the layer as it is; 0 where they are not known."""

    def best(self, loss: float) -> Factors | None:
        """The smallest form that loses no more than that."""
        return min((f for f in self.forms if f.loss <= loss), key=lambda f: (f.work, f.loss), default=None)

    def left(self, form: Factors | None) -> float:
        """Multiply-accumulates in that form."""
        return self.macs * (1.0 if form is None else form.work / self.layer.weight.size)


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
        if self.energy is not None and self.macs is not None:
            raise ZcError("energy and macs are two goals; state one")
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
        loss = 1 - (ENERGY if self.energy is None else self.energy)
        if self.macs is not None:
            loss = self._loss_for(self.macs, choices, before.macs)
        editor, names = Editor(model.graph, Names(model.graph)), Names(model.graph)
        taken: Counter[str] = Counter()
        for choice in choices:
            form = choice.best(loss)
            if form is not None:
                write(choice.layer, form, _moved(choice, form), editor, names)
                taken[form.form] += 1
            elif choice.forms:
                least = min(choice.forms, key=lambda f: f.loss)
                result.declined(
                    describe(choice.layer.node), f"keeps at most {1 - least.loss:.3f} of its variance in fewer weights"
                )
        if not taken:
            result.declined(model.name, "no layer was replaced: none is of low rank within the limits")
            return result
        editor.finish()
        sort_nodes(model.graph)
        sweep(model.graph)
        forget(model, [choice.layer.weight for choice in choices])
        infer_shapes(model, stale=True)
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

    def _choice(
        self,
        layer: Layer,
        moments: Moments | None,
        macs: int,
        shapes: dict[str, tuple[int, ...]],
        ctx: Context,
        result: PassResult,
    ) -> _Choice:
        """The forms of a layer that pay; says why where there are none."""
        moments = moments or plain_moments(layer)
        if layer.groups != 1:
            result.declined(describe(layer.node), "its channels are grouped: there is no rank to lower")
            return _Choice(layer, moments, (), macs)
        forms = [one for one in candidates(layer, moments) if one.form in self.forms]
        costs = ctx.target.costs if self.if_faster else None
        now = None if costs is None else microseconds(layer, None, costs, shapes)
        if costs is not None and now is not None and forms:
            timed = [(one, microseconds(layer, one, costs, shapes)) for one in forms]
            forms = [one for one, us in timed if us is None or us < now]
            if not forms:
                result.declined(
                    describe(layer.node), f"no form is faster than the {now:.0f} us it takes on {ctx.target.name}"
                )
        elif not forms:
            result.declined(describe(layer.node), "too small: no form has fewer weights")
        return _Choice(layer, moments, forms, macs)

    def _loss_for(self, share: float, choices: Sequence[_Choice], total: int | None) -> float:
        """The loss that each layer may have so that this share of the model's multiply-accumulates is left.

        Raises:
            ZcError: they are not known; the goal is out of reach.
        """
        if not total:
            raise ZcError("macs: the multiply-accumulates of this model are not known; state energy instead")
        rest = total - sum(c.macs for c in choices)

        def left(loss: float) -> float:
            return (rest + sum(c.left(c.best(loss)) for c in choices)) / total

        losses = sorted({f.loss for c in choices for f in c.forms})
        reached = [loss for loss in losses if left(loss) <= share * (1 + TOLERANCE)]
        if not reached:
            least = left(losses[-1]) if losses else 1.0
            raise ZcError(
                f"macs={share:g}: it gets to {least:.3f}: no layer has a smaller form; state a goal within reach"
            )
        return reached[0]


def _moved(choice: _Choice, form: Factors) -> Array | None:
    """What the bias takes over of the means that the parts do not say, [M]."""
    error = choice.layer.matrix() - product_of(choice.layer, form)
    moved = (choice.moments.mean[:, None] @ error).reshape(-1)
    return moved if np.any(moved) else None


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    bound = bind(model)
    tensors = [*bound.graph.inputs, *(t for n in bound.graph.nodes for t in n.outputs)]
    return {t.name: shape for t in tensors if (shape := static_shape(t)) is not None}
