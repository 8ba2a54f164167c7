"""The pass `quantize`: static int8 quantisation with calibration."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

from zc.data import Samples
from zc.errors import ZcError
from zc.ir.edit import Names, sort_nodes
from zc.ir.graph import Node, describe
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes
from zc.passes.quantize.bodies import read_out, regions
from zc.passes.quantize.calibrate import calibrate
from zc.passes.quantize.check import output_sqnr, still_float
from zc.passes.quantize.correct import correct_biases
from zc.passes.quantize.opset import raise_opset
from zc.passes.quantize.placement import Placement, place
from zc.passes.quantize.scheme import Scale
from zc.passes.quantize.select import float_filter
from zc.passes.quantize.sketch import Method, Sketch
from zc.passes.quantize.weights import Coded, WeightForm
from zc.passes.quantize.write import assign_scales, write
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register
from zc.target import Target

QUANTISED_OPS = frozenset(
    {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"),
        *("QGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulNBits"),
    }
)
"""Operators of quantised models, beside those whose name begins with QLinear."""

POOR_SQNR = 10.0
"""Decibels below which the outputs have little to do with the float model's."""


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

    method: Method = "percentile"
    """How a range is read from what calibration saw: all of it, or without the rarest values at both ends."""
    percentile: float = 99.999
    """With method=percentile: per cent of the values that the range must hold."""
    per_channel: bool = True
    """One weight scale for each output channel; false: one for the whole weight."""
    bias_correct: bool = True
    """Shift biases so that the mean of each channel is the float model's, layer after layer."""
    skip: tuple[str, ...] = ()
    """Nodes to leave in float: globs over node names, operators and output names."""
    only: tuple[str, ...] = ()
    """If given, the nodes to quantise; globs as for skip."""

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:
            raise ZcError(f"percentile is {self.percentile:g}; give more than 50 and at most 100")

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Quantise the model in place. ZcError when samples, options or model make it impossible."""
        result = PassResult(changed=False)
        present = next((n for s in model.scopes() for n in s.nodes if is_quantised(n.op)), None)
        if present is not None:
            result.declined(describe(present), f"the model is already quantised ({present.op}); give the float model")
            return result
        keep_float = float_filter(model, self.skip, self.only)
        result.changed = _sums_to_adds(model)
        places = _place(model, ctx, keep_float)
        if not any(one.sites or one.lookups for one in places):
            _tell_placement(result, model, places, ctx.target)
            result.declined(model.name, "nothing to quantise: no weighted operator that could run in integers")
            return result
        if raise_opset(model, ctx.target.min_opset):
            result.info(model.name, f"opset raised to {ctx.target.min_opset}, the first with per-channel Q/DQ")
            places = _place(model, ctx, keep_float)
        samples, original = ctx.need_samples(model), model.copy()
        scales = self._scales(model, places, samples, ctx, result)
        places = [one for one in places if id(one.graph) in scales]
        coded = self._write(model, places, scales, ctx)
        corrected = self._correct(model, original, coded, samples, ctx, result)
        _tell_placement(result, model, places, ctx.target)
        unfused = _tell_runtime(result, model, coded, ctx.target)
        result.changed = True
        result.stats = {
            "values_quantised": sum(len(one.groups) for one in places),
            "weighted_in_integers": len(coded) - unfused,
            "others_in_integers": sum(len(one.integer) for one in places),
            "tables_in_integers": sum(len(one.lookups) for one in places),
            "biases_corrected": corrected,
            "bytes_before": original.nbytes(),
            "bytes_after": model.nbytes(),
            "calibration_rows": samples.rows,
            "sqnr_db": _tell_error(result, model, original, samples),
        }
        return result

    def _scales(
        self, model: Model, places: list[Placement], samples: Samples, ctx: Context, result: PassResult
    ) -> dict[int, dict[int, Scale]]:
        """By id of a graph: the scale of each value with codes, by id. A branch that never ran has no entry.

        ZcError when a value of the main graph is never finite.
        """
        readable, names = read_out(model, {id(one.graph): one.measured() for one in places})
        sketches = calibrate(readable, list(names.values()), samples, ctx)
        scales: dict[int, dict[int, Scale]] = {}
        for one in places:
            seen = {id(t): sketches[names[id(one.graph), id(t)]] for t in one.measured()}
            for tensor in one.measured():
                _tell_odd_values(result, tensor.name, seen[id(tensor)], samples.rows)
            missing = next((t for t in one.measured() if not seen[id(t)].count), None)
            if missing is None:
                ranges = {key: sketch.range(self.method, self.percentile) for key, sketch in seen.items()}
                scales[id(one.graph)] = assign_scales(one, ranges, ctx.target)
            elif one.graph is model.graph:
                raise ZcError(
                    f"{model.name}: value '{missing.name}' has no finite element in {samples.rows} calibration rows; "
                    "check the samples and their preprocessing, or leave its readers out with quantize:skip"
                )
            else:
                for site in one.sites:
                    why = f"no calibration row runs the branch that reads '{missing.name}'"
                    result.declined(describe(site.node), f"{site.node.op} stays float: {why}")
        return scales

    def _write(
        self, model: Model, places: list[Placement], scales: dict[int, dict[int, Scale]], ctx: Context
    ) -> list[Coded]:
        names = Names(model.graph)
        coded: list[Coded] = []
        for one in places:
            # Branches are not corrected: they need no biases to correct.
            zero_biases = self.bias_correct and one.graph is model.graph
            form = WeightForm(self.per_channel and ctx.target.per_channel, ctx.target.integer_bias, zero_biases)
            coded += write(one, scales[id(one.graph)], names, form)
        return coded

    def _correct(
        self, model: Model, original: Model, coded: list[Coded], samples: Samples, ctx: Context, result: PassResult
    ) -> int:
        if not self.bias_correct:
            return 0
        main = {id(n) for n in model.graph.nodes}
        try:
            return correct_biases(model, original, [c for c in coded if id(c.node) in main], samples, ctx)
        except ZcError as err:
            result.warn("bias_correct", f"biases are not corrected: {err}")
            return 0


def is_quantised(op: str) -> bool:
    """Is it an operator of a quantised model?"""
    return op in QUANTISED_OPS or op.startswith("QLinear")


def _place(model: Model, ctx: Context, keep_float: Callable[[Node], str | None]) -> list[Placement]:
    infer_shapes(model)
    for scope in model.scopes():
        sort_nodes(scope)
    return [place(one.graph, ctx.target, keep_float, one.around) for one in regions(model)]


def _sums_to_adds(model: Model) -> bool:
    """A Sum of two terms is an Add, and that is the one of the two which has int8 kernels. True if there was one."""
    nodes = [cast(Node, n) for one in regions(model) for n in one.graph.nodes]
    found = [n for n in nodes if n.op == "Sum" and n.standard and len(n.inputs) == 2]
    for node in found:
        node.op = "Add"
    return bool(found)


def _tell_placement(result: PassResult, model: Model, places: list[Placement], target: Target) -> None:
    """What was decided to stay float, and the weighted operators in scopes that cannot be calibrated."""
    for one in places:
        for where, why in one.declined:
            result.declined(where, why)
    known = {id(one.graph) for one in regions(model)}
    for scope in model.scopes():
        for node in scope.nodes:
            if id(scope) not in known and node.op in target.weighted_ops:
                result.declined(describe(node), f"{node.op} stays float: it is in a loop or a function")


def _tell_odd_values(result: PassResult, name: str, sketch: Sketch, rows: int) -> None:
    if sketch.nan or sketch.inf:
        what = f"{sketch.nan} NaN and {sketch.inf} infinite elements"
        result.warn(name, f"{what} in {rows} calibration rows were left out")


def _tell_runtime(result: PassResult, model: Model, coded: list[Coded], target: Target) -> int:
    """What the written model really runs in float; the number of such operators. ZcError when it does not load."""
    unfused = still_float(model, coded, target)
    for one, runs in unfused:
        result.declined(describe(one.node), f"onnxruntime does not fuse it into an int8 kernel (it runs {runs})")
    for one in coded:
        if one.raised:
            result.info(describe(one.node), f"{one.raised} weight scales were raised so that int32 cannot overflow")
    return len(unfused)


def _tell_error(result: PassResult, model: Model, original: Model, samples: Samples) -> float:
    """Signal to noise of the worst output in dB."""
    sqnr = output_sqnr(model, original, samples)
    for name, value in sqnr.items():
        if value < POOR_SQNR:
            result.warn(name, f"the output has only {value:.1f} dB signal to noise; compare with the float model")
    return round(min(sqnr.values(), default=float("inf")), 2)
