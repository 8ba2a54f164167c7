"""The pass `quantize-weights`: weights stored as codes, arithmetic in float."""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, Literal

from zc.data.split import hold_back
from zc.errors import ZcError
from zc.ir.edit import sort_nodes
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes
from zc.measure.agreement import Reference
from zc.passes.cleanup.operands import computing_scopes
from zc.passes.quantize.opset import INT4_IR, INT4_OPSET, raise_opset
from zc.passes.quantize.refuse import refusal
from zc.passes.quantize.report import tell_error
from zc.passes.quantize.select import float_filter
from zc.passes.quantize.weight_sites import find_weights
from zc.passes.quantize.weight_store import StoredForm
from zc.passes.quantize.weight_writing import Writing
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register

Auto = Literal["auto"]
BLOCKS = (0, 16, 32, 64, 128, 256)


@register
@dataclass(frozen=True)
class QuantizeWeights(Pass):
    """Store weights as integers of 8 or 4 bits; arithmetic stays in float.

    before:  x -> Conv(w float) -> y                         x -> MatMul(v float) -> y
    after:   x -> Conv(Mul(Cast(w int8), scale)) -> y        x -> MatMulNBits(v 4 bits, scales) -> y

    For models whose weights are what takes space, or time to read: the file becomes a quarter, or an eighth. Weights of
    Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU and RNN, and tables of Gather, have one scale for each output (each row
    of a table), or for each block of its inputs. Activations are not touched, so that no sample is needed; with samples
    the codes are chosen for what each layer says, and biases corrected, as in `round`.

    form=auto takes what the target runs best. On ONNX Runtime: MatMulNBits for products of few rows (it rounds what it
    reads to 8 bits, by block); else Cast and Mul, which are computed once when the file is loaded: then memory and
    speed are those of float. (A DequantizeLinear of a constant is computed there at every run.)
    """

    name: ClassVar[str] = "quantize-weights"
    requires: ClassVar[tuple[str, ...]] = ("clean",)
    uses_samples: ClassVar[bool] = True

    bits: Literal[8, 4] = 8
    """Bits of a weight."""
    block: int = 0
    """Weights of an output that share a scale: 16, 32, 64, 128 or 256; 0: all of them."""
    symmetric: bool = True
    """Is 0 the middle of the codes? False: each scale has a zero point."""
    form: StoredForm | Auto = "auto"
    """How it is written: multiply (Cast and Mul), dequantize (DequantizeLinear), nbits (onnxruntime's MatMulNBits, for
    matrix products), or what the target runs best."""
    rounding: Literal["auto", "nearest", "second-order"] = "auto"
    """How codes are chosen: each by itself, or (second-order) for what the layer says; auto: the latter if there are
    samples."""
    bias_correct: bool = True
    """With samples: shift biases so that the mean of each channel is the float model's."""
    min_size: int = 1024
    """Elements below which a weight stays float."""
    skip: tuple[str, ...] = ()
    """Nodes to leave in float: globs over node names, operators and output names."""
    only: tuple[str, ...] = ()
    """If given, the nodes whose weights to store as codes; globs as for skip."""

    def __post_init__(self) -> None:
        if self.block not in BLOCKS:
            raise ZcError(f"block is {self.block}; give one of {', '.join(map(str, BLOCKS))}")
        if self.min_size < 1:
            raise ZcError(f"min_size is {self.min_size}; give 1 or more")

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Store the weights as codes, in place. ZcError when the target has no kernel for the form asked for."""
        result = PassResult(changed=False)
        refused = refusal(model)
        if refused is not None:
            result.warn(*refused)
            return result
        if self.form == "nbits" and self.bits not in ctx.target.nbits:
            raise ZcError(f"{ctx.target.name} has no MatMulNBits of {self.bits} bits; leave form=auto")
        before, size = model.copy(), model.nbytes()
        packed = self._prepare(model, ctx, result)
        original = model.copy()
        scopes = computing_scopes(model)
        found = find_weights(model, scopes, float_filter(model, self.skip, self.only, self.name), self.min_size)
        for where, why in found.declined:
            result.declined(where, why)
        if not found.sites:
            model.take(before)
            result.warn(model.name, f"nothing to store as codes: no weight of {self.min_size} elements or more")
            return result
        writing = Writing(model, ctx, found.sites, self.bits, self.block, self.symmetric)
        if ctx.samples is not None or self.rounding == "second-order":
            rounding = "second-order" if self.rounding == "auto" else self.rounding
            split = hold_back(ctx.need_samples(original))
            done = writing.refine(original, split.fit, rounding, self.bias_correct)
            for where, why in done.declined:
                result.declined(where, why)
            result.stats |= {"weights_rounded": done.rounded, "biases_corrected": done.shifted}
        counts = writing.finish(self.form, packed)
        if ctx.samples is not None:
            reference = Reference(original, split.held, ctx.threads)
            agreement = reference.agreement(model)
            tell_error(result, reference.by_output(model))
            result.stats |= {"agreement": round(agreement.share, 4), "sqnr_db": round(agreement.sqnr, 2)}
        self._tell(result, counts, ctx)
        result.stats |= {"weights_stored": sum(counts.values()), **{f"as_{k}": n for k, n in sorted(counts.items())}}
        result.stats |= {"bytes_before": size, "bytes_after": model.nbytes()}
        ctx.float_model = original
        result.changed = True
        return result

    def _prepare(self, model: Model, ctx: Context, result: PassResult) -> bool:
        """Raise the operator set as the form needs it; are there numbers of 4 bits?"""
        folds = self.form == "multiply" or (self.form != "dequantize" and not ctx.target.folds_dequantize)
        lowest, lacks = (13, "DequantizeLinear by channel") if not folds else (11, "Slice with computed bounds")
        if self.block and not folds:
            lowest, lacks = INT4_OPSET, "DequantizeLinear by block"
        packed = self.bits == 4 and self._four_bits(model, result)
        if raise_opset(model, lowest, lacks):
            result.info(model.name, f"opset raised to {lowest}, the first with {lacks}")
        infer_shapes(model)
        for scope in model.scopes():
            sort_nodes(scope)
        return packed

    def _four_bits(self, model: Model, result: PassResult) -> bool:
        """Raise the operator set to one with numbers of 4 bits; where that fails, codes take 8 bits each."""
        try:
            if raise_opset(model, INT4_OPSET, "numbers of 4 bits"):
                result.info(model.name, f"opset raised to {INT4_OPSET}, the first with numbers of 4 bits")
        except ZcError as err:
            result.warn(model.name, f"codes of 4 bits take 8 each in the file, but in MatMulNBits: {err}")
            return False
        model.ir_version = max(model.ir_version, INT4_IR)
        return True

    def _tell(self, result: PassResult, counts: Counter[StoredForm], ctx: Context) -> None:
        folds = ctx.target.folds_dequantize
        for form, count in sorted(counts.items()):
            if form == "dequantize" and not folds:
                what = f"{ctx.target.name} turns {_some(count)} into floats at every run, which is slower than float"
                result.warn("form=dequantize", f"{what}; form=multiply does so once, when the file is loaded")
            elif form == "nbits":
                what = "run on packed codes and round what they read to 8 bits by block (MatMulNBits)"
                result.info("form=nbits", f"{_some(count, 'product')} {what}")
            else:
                what = "into floats once, when the file is loaded: memory and speed are those of float"
                result.info(f"form={form}", f"{_some(count)} turn{'s'[: count == 1]} {what}")


def _some(count: int, what: str = "weight") -> str:
    return f"{count} {what}{'s'[: count != 1]}"
