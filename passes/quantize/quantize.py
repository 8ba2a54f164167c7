"""The pass `quantize`: static int8 quantisation with calibration."""

from dataclasses import dataclass
from typing import ClassVar

from zc.errors import ZcError
from zc.ir.edit import Names, sort_nodes
from zc.ir.graph import describe
from zc.ir.model import Model
from zc.passes.quantize.calibrate import calibrate
from zc.passes.quantize.check import output_sqnr, still_float
from zc.passes.quantize.correct import correct_biases
from zc.passes.quantize.opset import raise_opset
from zc.passes.quantize.placement import place
from zc.passes.quantize.select import float_filter
from zc.passes.quantize.sketch import Method, Sketch
from zc.passes.quantize.write import Coded, assign_scales, write
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register

QUANTISED_OPS = frozenset(
    {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"),
        *("QLinearConv", "QLinearMatMul"),
    }
)

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

    method: Method = "minmax"
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
        present = next((n for s in model.scopes() for n in s.nodes if n.op in QUANTISED_OPS), None)
        if present is not None:
            result.declined(describe(present), f"the model is already quantised ({present.op}); give the float model")
            return result
        keep_float = float_filter(model, self.skip, self.only)
        sort_nodes(model.graph)
        if not place(model.graph, ctx.target, keep_float).sites:
            for where, why in place(model.graph, ctx.target, keep_float).declined:
                result.declined(where, why)
            result.declined(model.name, "nothing to quantise: no weighted operator with a constant float32 weight")
            return result
        raise_opset(model, ctx.target.min_opset)
        sort_nodes(model.graph)
        placement = place(model.graph, ctx.target, keep_float)
        samples = ctx.need_samples(model)
        original = model.copy()
        size = model.nbytes()
        sketches = calibrate(original, placement.measured(), samples, ctx)
        _warn_of_odd_values(result, sketches, samples.rows)
        ranges = {name: sketch.range(self.method, self.percentile) for name, sketch in sketches.items()}
        coded = write(
            placement,
            assign_scales(placement, ranges, ctx.target),
            Names(model.graph),
            zero_biases=self.bias_correct,
            per_channel=self.per_channel and ctx.target.per_channel,
        )
        corrected = correct_biases(model, original, coded, samples, ctx) if self.bias_correct else 0
        for where, why in placement.declined:
            result.declined(where, why)
        unfused = still_float(model, coded, ctx.target)
        for one, found in unfused:
            result.declined(describe(one.node), f"onnxruntime does not fuse it into an int8 kernel (it runs {found})")
        _warn_of_overflow(result, coded)
        sqnr = output_sqnr(model, original, samples)
        for name, value in sqnr.items():
            if value < POOR_SQNR:
                result.warn(name, f"the output has only {value:.1f} dB signal to noise; compare with the float model")
        result.changed = True
        result.stats = {
            "values_quantised": len(placement.groups),
            "weighted_in_integers": len(coded) - len(unfused),
            "other_nodes_in_integers": len(placement.integer),
            "biases_corrected": corrected,
            "bytes_before": size,
            "bytes_after": model.nbytes(),
            "calibration_rows": samples.rows,
            "sqnr_db": round(min(sqnr.values(), default=float("inf")), 2),
        }
        return result


def _warn_of_odd_values(result: PassResult, sketches: dict[str, Sketch], rows: int) -> None:
    for name, sketch in sketches.items():
        if sketch.nan or sketch.inf:
            result.warn(
                name, f"{sketch.nan} NaN and {sketch.inf} infinite elements in {rows} calibration rows were left out"
            )


def _warn_of_overflow(result: PassResult, coded: list[Coded]) -> None:
    for one in coded:
        if one.raised:
            result.info(describe(one.node), f"{one.raised} weight scales were raised so that int32 cannot overflow")
