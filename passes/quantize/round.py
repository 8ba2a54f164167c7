"""The pass `round`: codes of weights chosen for what their layer says, not each for itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from zc.errors import ZcError
from zc.ir.model import Model
from zc.passes.layers.layers import by_value, find_layers
from zc.passes.quantize.again import layers_to_mend, mend
from zc.passes.quantize.find_codes import weight_codes
from zc.passes.quantize.form import Rounding
from zc.passes.quantize.recode import DAMPING
from zc.passes.quantize.weights import Coded
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register


@register
@dataclass(frozen=True)
class Round(Pass):
    """Round the weights of a quantised model anew, so that errors of one weight are undone by others.

    before:  x -> Conv(DQ(q)) -> y      q = rint(w / s), each by itself
    after:   x -> Conv(DQ(p)) -> y      p is q or its neighbour, chosen so that y is the float model's

    Layer after layer: inputs of a layer vary together, so the error of a weight can be made up for by the next ones.
    Each takes over what is left of the errors so far, along the Cholesky factor of the covariance of what the layer
    reads in the quantised model. Weights are first drawn towards those that make what the float model says of it. With
    few bits the scales are chosen anew too. The mean of what is left goes into the biases (see `bias-correct`).
    (Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers, 2022.)

    Runs after a pass that quantises, in the same pipeline: it needs the float model. Types and sizes stay, and so do
    weights that layers share and layers in bodies.
    """

    name: ClassVar[str] = "round"
    uses_samples: ClassVar[bool] = True

    method: Rounding = "second-order"
    """second-order: for what the layer says; nearest: each weight to its nearest code, which needs no samples."""
    bias_correct: bool = True
    """With second-order: correct the bias of each layer before the next is rounded."""
    damping: float = DAMPING
    """What is added to the variances of a layer's inputs, in units of their mean: more trusts the samples less."""
    rows: int = 0
    """Most sample rows to look at; 0: as many as fit into 1.5 GB of memory."""
    skip: tuple[str, ...] = ()
    """Nodes to leave as they are: globs over node names, operators and output names."""
    only: tuple[str, ...] = ()
    """If given, the nodes to round; globs as for skip."""

    def __post_init__(self) -> None:
        if not 0 < self.damping < 100:
            raise ZcError(f"damping is {self.damping:g}; give more than 0 and less than 100")
        if self.rows < 0:
            raise ZcError(f"rows is {self.rows}; give 0 or more")

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Round in place. ZcError when the model is not quantised, or there is no float model to round towards."""
        result = PassResult(changed=False)
        original, coded = layers_to_mend(model, ctx, result, self.name, self.skip, self.only)
        if self.method == "second-order":
            kind, bias, rows = self.method, self.bias_correct, self.rows
            mend(model, original, coded, ctx, result, rounding=kind, bias=bias, rows=rows, damping=self.damping)
        else:
            _to_nearest(original, coded, result)
        return result


def _to_nearest(original: Model, coded: Sequence[Coded], result: PassResult) -> None:
    """Give layers the codes nearest to the weights of the float model."""
    layers = by_value(find_layers(original)[0])
    for one in coded:
        codes, layer = weight_codes(one.node), layers.get(one.float_name)
        if isinstance(codes, str) or layer is None:
            result.declined(one.where, codes if isinstance(codes, str) else "it is no plain layer in the float model")
        else:
            codes.set_weight_codes(codes.nearest(layer.weight.values))
            result.changed = True
