"""Scales of values under a rule, from what calibration saw; `auto` is settled when it is first asked for."""

from collections.abc import Mapping

from zc.data import Samples
from zc.ir.model import Model
from zc.passes.quantize.autorange import Choice, choose_rule
from zc.passes.quantize.calibrate import Calibration, Key
from zc.passes.quantize.form import Form
from zc.passes.quantize.placement import Placement
from zc.passes.quantize.ranges import Codes, Range, Rule, find_range
from zc.passes.quantize.scheme import WIDE, Scale
from zc.passes.quantize.write import assign_scales
from zc.pipeline.base import Context


class Ranging:
    """Ranges and scales; each range is found once."""

    def __init__(self, calibration: Calibration, samples: Samples | None, ctx: Context) -> None:
        """samples: rows to choose a rule with; None if there are no real ones."""
        self.calibration, self.samples, self.ctx = calibration, samples, ctx
        self.choices: dict[str, Choice] = {}
        """What `auto` was settled to, for static and dynamic activations."""
        self._ranges: dict[tuple[Key, Rule, int], Range] = {}

    def rule(
        self, form: Form, model: Model, place: Placement, keys: Mapping[int, Key], own: Mapping[int, Rule]
    ) -> Rule:
        """How ranges are read under a form. `auto` is settled on the first model that asks, and then stands.

        place: of the main graph of a float model. keys: of each of its measured values, by id. own: rules of some of
        them, which the choice does not touch, by id.
        """
        if form.activation_bits > 8:
            return Rule()  # they resolve what a few outliers stretch: there is no need to cut them off
        if form.method != "auto":
            return Rule(form.method, form.percentile, form.clip_cost)
        if form.activations not in self.choices:
            self.choices[form.activations] = choose_rule(
                model, place, lambda rule: self.scales(rule, place, keys, own=own), self.samples, self.ctx
            )
        return self.choices[form.activations].rule

    def scales(
        self,
        rule: Rule,
        place: Placement,
        keys: Mapping[int, Key],
        bits: int = 8,
        own: Mapping[int, Rule] | None = None,
    ) -> dict[int, Scale]:
        """The scale of each value with codes of 8 or 16 bits, by id. ZcError where a value was never finite.

        own: rules of some of them, by id.
        """
        target, special = self.ctx.target, own or {}
        ranges = {id(t): self._range(keys[id(t)], special.get(id(t), rule), bits) for t in place.measured()}
        return assign_scales(place, ranges, target, target.activations if bits == 8 else WIDE[target.activations])

    def _range(self, key: Key, rule: Rule, bits: int) -> Range:
        if (key, rule, bits) not in self._ranges:
            sketch = self.calibration.sketches([key])[key]
            codes = Codes(2**bits, self.ctx.target.symmetric_activations)
            self._ranges[key, rule, bits] = find_range(sketch, rule, codes)
        return self._ranges[key, rule, bits]
