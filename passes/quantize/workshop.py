"""Workshop: a float model that is prepared and calibrated once, and quantised as often as one likes.

    workshop = Workshop(model, ctx)
    whole = workshop.build(Form())
    better = workshop.build(Form(method="mse"), keep_float)

The float model is never edited; every build is a copy. Calibration runs over the samples once and remembers what it
saw of each value, so that a further build costs the writing of the graph and its bias correction.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import cast

from zc.data.split import Split, hold_back
from zc.errors import ZcError
from zc.ir.edit import Names, sort_nodes
from zc.ir.graph import Node, Tensor, Variable, describe
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes
from zc.measure.agreement import Agreement, Reference
from zc.passes.quantize.activations import make_dynamic
from zc.passes.quantize.bodies import regions
from zc.passes.quantize.calibrate import Calibration, Key
from zc.passes.quantize.datafree import DRAWN, DataFree, cut_pair, free_of_data, join
from zc.passes.quantize.equalize import equalise
from zc.passes.quantize.form import Form
from zc.passes.quantize.opset import INT4_IR, INT4_OPSET, raise_opset
from zc.passes.quantize.overrides import Overrides
from zc.passes.quantize.placement import Placement, place
from zc.passes.quantize.ranges import Rule
from zc.passes.quantize.ranging import Ranging
from zc.passes.quantize.refine import Refined, refine
from zc.passes.quantize.scheme import Scale
from zc.passes.quantize.shield import shield
from zc.passes.quantize.sketch import Sketch
from zc.passes.quantize.smooth import smooth
from zc.passes.quantize.weights import Coded, WeightForm
from zc.passes.quantize.write import write
from zc.passes.tailor.idioms import recognise
from zc.passes.tailor.tailor import masked, sample_feeds, suit
from zc.pipeline.base import Context, PassResult

MOVES_ANYTHING = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Slice", "Split"})
"""Operators that have kernels for whatever they move, codes of 16 bits too."""

KeepFloat = Callable[[Node], str | None]
"""The reason why a node stays float, or None. It is asked of nodes of copies: go by their names."""


def all_allowed(node: Node) -> str | None:
    """No node must stay float."""
    return None


@dataclass(eq=False)
class Built:
    """A quantised copy of a workshop's model."""

    model: Model
    form: Form
    places: list[Placement]
    """What was decided for the main graph and each branch that was calibrated."""
    coded: list[Coded]
    """The weighted operators in integers, in graph order."""
    refined: Refined
    """What was done about rounding errors."""
    told: PassResult = field(default_factory=lambda: PassResult(True))
    """Notes from building: values that were never finite, branches that never ran."""


class Workshop:
    """A float model, its samples, and what calibration saw."""

    def __init__(
        self, model: Model, ctx: Context, overrides: Overrides | None = None, cache: Path | None = None
    ) -> None:
        """Prepare a copy of the model; nothing is run yet.

        overrides: what holds for some nodes in every build. cache: a file for what calibration sees.
        """
        self.model, self.ctx, self.cache = model.copy(), ctx, cache
        self.overrides = overrides or Overrides((), model)
        _sums_to_adds(self.model)
        self._settle()

    def _settle(self) -> None:
        infer_shapes(self.model)
        for scope in self.model.scopes():
            sort_nodes(scope)

    @cached_property
    def free(self) -> DataFree | None:
        """Without samples: the model cut where statistics tell of its values; None where they tell nothing."""
        return free_of_data(self.model, self.ctx)

    @cached_property
    def split(self) -> Split:
        """The samples: to calibrate with, and held back."""
        return hold_back(self.ctx.need_samples(self.model) if self.free is None else self.free.images)

    @cached_property
    def calibration(self) -> Calibration:
        """What the values of the model look like on the samples."""
        if self.free is not None:
            return Calibration(self.free.model, self.free.samples, self.ctx, self.cache)
        return Calibration(self.model, self.split.fit, self.ctx, self.cache)

    @cached_property
    def ranging(self) -> Ranging:
        """Ranges of the values, from what calibration saw."""
        real = self.free is None and not self.split.fit.synthetic
        return Ranging(self.calibration, self.split.fit if real else None, self.ctx)

    @cached_property
    def reference(self) -> Reference:
        """What the float model says on the rows held back."""
        return Reference(self.model, self.split.held, self.ctx.threads)

    def agreement(self, built: Built) -> Agreement:
        """How well a quantised copy agrees with the float model on the rows held back."""
        return self.reference.agreement(built.model)

    @cached_property
    def masked(self) -> frozenset[str]:
        """Scores in front of a Softmax that the samples mask (see `tailor`)."""
        return masked(self.model, self.ctx.target, sample_feeds(self.ctx))

    def recognise(self, result: PassResult) -> None:
        """Write GELUs and normalisations as one node where the target has it, and say so if the operator set rises."""
        feeds = sample_feeds(self.ctx)
        result.notes += recognise(self.model, self.ctx, bold=True, feed=feeds[0] if feeds else None).notes
        self._settle()

    def packs(self, form: Form) -> bool:
        """Will weights be stored as int4, for the runtime to make int8 of?"""
        return form.weight_bits <= 4 and self.ctx.target.loads_int4 and self.model.opset >= INT4_OPSET

    def raise_opset(self, lowest: int, lacks: str = "per-channel Q/DQ") -> bool:
        """Convert the model to a later operator set if it has an earlier one. True if it was converted."""
        if not raise_opset(self.model, lowest, lacks):
            return False
        self._settle()
        return True

    def places(self, keep_float: KeepFloat = all_allowed, model: Model | None = None, bits: int = 8) -> list[Placement]:
        """What would run in integers in the main graph and in each branch; of a copy, if one is given.

        bits: of activations.
        """
        scopes, target = regions(self.model if model is None else model), self.ctx.target
        if bits > 8:
            target = replace(target, transparent_ops=target.transparent_ops & MOVES_ANYTHING)
        return [place(one.graph, target, keep_float, one.around) for one in scopes]

    @cached_property
    def equalised(self) -> "Workshop":
        """The workshop of the same model with factors moved across layers. ZcError where none would help."""
        if self.free is not None:
            raise ZcError("without samples nothing shows what it would change")
        other = Workshop(self.model, self.ctx, self.overrides, self.cache)
        plan = equalise(other.model, self.split.fit, self.ctx, per_channel=self.ctx.target.per_channel)
        if all(one.alpha is None for one in plan.choices):
            raise ZcError("no value would gain from it")
        return other

    @cached_property
    def smoothed(self) -> "Workshop":
        """The workshop of the same model with outliers moved into weights. ZcError where none can, or would help."""
        if self.free is not None:
            raise ZcError("without samples nothing shows what it would change")
        other = Workshop(self.model, self.ctx, self.overrides, self.cache)
        plan = smooth(other.model, self.split.fit, self.ctx, insert=True, per_channel=self.ctx.target.per_channel)
        if all(one.alpha is None for one in plan.choices):
            raise ZcError("no value would gain from it")
        other._settle()
        return other

    def variant(self, form: Form) -> "Workshop":
        """The workshop whose float model a form is made of."""
        one = self.smoothed if form.smooth else self
        return one.equalised if form.equalize else one

    def build(self, form: Form, keep_float: KeepFloat = all_allowed) -> Built:
        """A quantised copy. ZcError when a value of the main graph is never finite."""
        if form.equalize or form.smooth:
            plain = replace(form, equalize=False, smooth=False)
            return replace(self.variant(form).build(plain, keep_float), form=form)
        model, told = self.model.copy(), PassResult(True)
        places = self.places(keep_float, model, form.activation_bits)
        if form.activations == "dynamic":
            for one in places:
                make_dynamic(one, self.ctx.target)
        scales = self._scales(model, places, form, told)
        places = [one for one in places if id(one.graph) in scales]
        names = Names(model.graph)
        forms = self._forms(places, form)
        if any(self.packs(one) for one in (form, *forms.values())):
            model.ir_version = max(model.ir_version, INT4_IR)
        coded: list[Coded] = []
        for one in places:
            # Branches are not corrected: they need no biases to correct.
            main = one.graph is model.graph
            special = {where: self._weight_form(own, main) for where, own in forms.items()}
            weights = replace(self._weight_form(form, main), special=special)
            coded += write(one, scales[id(one.graph)], names, weights)
            for node in shield(one.graph, {id(c.node) for c in coded}, self.ctx.target, names):
                told.warn(describe(node), f"{self.ctx.target.name} will run this {node.op} in int8, unasked")
        refined = self._refine(model, form, forms, coded, told)
        suit(model, self.ctx.target, self.masked, told)
        return Built(model, form, places, coded, refined, told)

    def _forms(self, places: list[Placement], form: Form) -> dict[str, Form]:
        """The forms of the nodes that have one of their own, by their name."""
        nodes = [n for one in places for n in (*(s.node for s in (*one.sites, *one.dynamic)), *one.lookups)]
        own = {describe(node): self.overrides.form(node, form) for node in nodes}
        own |= {where: replace(one, weight_bits=8) for where, one in own.items() if where in form.wide}
        return {where: one for where, one in own.items() if one != form}

    def _weight_form(self, form: Form, corrected: bool) -> WeightForm:
        """corrected: may biases be corrected?"""
        target = self.ctx.target
        return WeightForm(
            per_channel=form.per_channel and target.per_channel,
            per_tensor_ops=target.per_tensor_ops,
            integer_bias=target.integer_bias,
            zero_biases=form.bias_correct and corrected,
            exact_pairs=target.saturating_pairs,
            limit=2 ** (form.weight_bits - 1) - 1,
            packed=self.packs(form),
        )

    def _scales(
        self, model: Model, places: list[Placement], form: Form, told: PassResult
    ) -> dict[int, dict[int, Scale]]:
        """By id of a graph: the scale of each value with codes, by id. A branch that never ran has no entry."""
        number = {id(scope): i for i, scope in enumerate(model.scopes())}
        keys = {id(one.graph): {id(t): Key(number[id(one.graph)], t.name) for t in one.measured()} for one in places}
        sketches = self.calibration.sketches([key for wanted in keys.values() for key in wanted.values()])
        scales: dict[int, dict[int, Scale]] = {}
        own = self._rules(places, form)
        rule = self.ranging.rule(form, model, places[0], keys[id(model.graph)], own)
        for one in places:
            seen = {id(t): sketches[keys[id(one.graph)][id(t)]] for t in one.measured()}
            for tensor in one.measured():
                self._tell_odd_values(told, tensor.name, seen[id(tensor)])
            missing = next((t for t in one.measured() if not seen[id(t)].count), None)
            if missing is None:
                scales[id(one.graph)] = self.ranging.scales(rule, one, keys[id(one.graph)], form.activation_bits, own)
            elif one.graph is model.graph:
                raise self._never_finite(missing)
            else:
                for site in [*one.sites, *one.dynamic]:
                    why = f"no calibration row runs the branch that reads '{missing.name}'"
                    told.declined(describe(site.node), f"{site.node.op} stays float: {why}")
        return scales

    def _rules(self, places: list[Placement], form: Form) -> dict[int, Rule]:
        """The rules of values that have one of their own, by id."""
        if form.activation_bits > 8:
            return {}
        forms = {id(t): self.overrides.form(node, form) for one in places for t, node in one.deciders()}
        return {
            key: Rule(one.method, one.percentile, one.clip_cost)
            for key, one in forms.items()
            if one.method != "auto" and _read_by(one) != _read_by(form)
        }

    def _never_finite(self, tensor: Tensor) -> ZcError:
        return ZcError(
            f"{self.model.name}: value '{tensor.name}' has no finite element in {self.split.fit.rows} calibration "
            "rows; check the samples and their preprocessing, or leave its readers out with quantize:skip"
        )

    def _tell_odd_values(self, told: PassResult, name: str, sketch: Sketch) -> None:
        if sketch.nan or sketch.inf:
            what = f"{sketch.nan} NaN and {sketch.inf} infinite elements"
            told.warn(name, f"{what} in {self.split.fit.rows} calibration rows were left out")

    def _refine(
        self, model: Model, form: Form, forms: dict[str, Form], coded: list[Coded], told: PassResult
    ) -> Refined:
        if all(not one.bias_correct and one.rounding == "nearest" for one in (form, *forms.values())):
            return Refined()
        special = {where: (one.rounding, one.bias_correct) for where, one in forms.items()}
        main = {id(n) for n in model.graph.nodes}
        layers, samples = [c for c in coded if id(c.node) in main], self.split.fit
        original: Model = self.model
        cuts: list[tuple[Tensor, Variable]] = []
        if self.free is not None:
            original, cuts = cut_pair(self.free, self.model, model, layers)
            samples = self.free.again(DRAWN)
        try:
            done = refine(
                model,
                original,
                layers,
                samples,
                self.ctx,
                rounding=form.rounding,
                bias=form.bias_correct,
                special=special,
            )
        except ZcError as err:
            told.warn("bias_correct", f"biases are not corrected: {err}")
            return Refined()
        finally:
            join(model, cuts)
        for where, why in done.declined:
            told.declined(where, why)
        return done


def _read_by(form: Form) -> tuple[object, ...]:
    return form.method, form.percentile, form.clip_cost


def _sums_to_adds(model: Model) -> None:
    """A Sum of two terms is an Add, and that is the one of the two which has int8 kernels."""
    for node in [cast(Node, n) for one in regions(model) for n in one.graph.nodes]:
        if node.op == "Sum" and node.standard and len(node.inputs) == 2:
            node.op = "Add"
