"""The pass `bias-correct`: biases of a quantised model that keep the float model's means."""

from dataclasses import dataclass
from typing import ClassVar

from zc.errors import ZcError
from zc.ir.model import Model
from zc.passes.quantize.again import layers_to_mend, mend
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register


@register
@dataclass(frozen=True)
class BiasCorrect(Pass):
    """Shift the biases of a quantised model so that every channel has the mean that it has in the float model.

    before:  x -> Conv(DQ(w_q), b) -> y                   mean of y differs from the float model's, channel by channel
    after:   x -> Conv(DQ(w_q), b + mean(float y - y)) -> y

    Rounding weights shifts means, and the shifts add up through the net. So it goes layer after layer, on the quantised
    model whose earlier layers are corrected already, on samples. A bias in codes moves by whole codes; a layer without
    a bias stays as it is. (Nagel et al., Data-Free Quantization through Weight Equalization and Bias Correction, 2019,
    section 4.2, measured on samples.)

    Runs after a pass that quantises, in the same pipeline. `quantize` and `round` do it by themselves unless told not
    to; by itself it is for what they left, or for other samples.
    """

    name: ClassVar[str] = "bias-correct"
    uses_samples: ClassVar[bool] = True

    rows: int = 0
    """Most sample rows to look at; 0: as many as fit into 1.5 GB of memory."""
    skip: tuple[str, ...] = ()
    """Nodes to leave as they are: globs over node names, operators and output names."""
    only: tuple[str, ...] = ()
    """If given, the nodes to correct; globs as for skip."""

    def __post_init__(self) -> None:
        if self.rows < 0:
            raise ZcError(f"rows is {self.rows}; give 0 or more")

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Correct in place. ZcError when the model is not quantised, or there is no float model to compare with."""
        result = PassResult(changed=False)
        original, coded = layers_to_mend(model, ctx, result, self.name, self.skip, self.only)
        for layer in coded:
            if layer.bias is None:
                result.declined(layer.where, "it has no bias of its own; quantize:bias_correct=true gives it one")
        mend(model, original, coded, ctx, result, rounding="nearest", bias=True, rows=self.rows)
        return result
