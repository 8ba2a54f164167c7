"""The pass `qat`: weights and scales of a quantised model learn what rounding did to them."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from zc.errors import ZcError
from zc.ir.model import Model
from zc.passes.recover.distill import Distill, distil, teacher_of
from zc.pipeline.base import Context, PassResult
from zc.pipeline.registry import register


@register
@dataclass(frozen=True)
class Qat(Distill):
    """Train a quantised model so that it says what its teacher says; labels are not needed.

    before:  x -> Q -> DQ -> Conv(DQ(w int8)) -> y'      teacher:  x -> Conv(w float) -> y
    after:   x -> Q -> DQ -> Conv(DQ(v int8)) -> y' close to y

    Quantisation-aware training on the Q/DQ nodes themselves: each runs as fake quantisation whose rounding passes the
    gradient on. Weights are trained as floats and go back as codes; with learned scales those of weights, activations
    and biases follow, ties kept. Runs after a pass that quantises. Teacher and losses are those of `distill`.
    (Jacob et al., Quantization and Training of Neural Networks, 2018; Esser et al., Learned Step Size, 2020.)
    """

    name: ClassVar[str] = "qat"
    first_rate: ClassVar[float] = 0.0003

    scales: Literal["learned", "frozen"] = "learned"
    """Are the scales trained too?"""

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Train in place.

        Raises:
            ZcError: nothing is quantised; else as `Distill.run`.
        """
        if not any(node.op == "DequantizeLinear" for scope in model.scopes() for node in scope.nodes):
            raise ZcError(
                f"{model.name}: has no DequantizeLinear nodes: run quantize before qat, or distill instead; if it did "
                "run, it left all layers in float, and its notes say why (quantize:float_if_faster=false asks for "
                "codes where they gain no time)"
            )
        result = distil(self, model, teacher_of(self, ctx), ctx, learn_scales=self.scales == "learned")
        if ctx.target.saturating_pairs and result.changed:
            result.warn(
                ctx.target.name,
                "adds products in pairs of 16 bits; the trained codes were not held to what cannot saturate there: "
                "measure on such a processor, or quantise without qat for it",
            )
        return result
