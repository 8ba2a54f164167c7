"""The pass `bf16`."""

from dataclasses import dataclass
from typing import ClassVar

from zc.passes.precision.half import HalfPrecision
from zc.passes.precision.kinds import BFLOAT16, Kind
from zc.pipeline.registry import register


@register
@dataclass(frozen=True)
class Bf16(HalfPrecision):
    """Compute in bfloat16: the range of float32 with 8 bits of digits. Islands of float32 as in `fp16`.

    before:  x -> Conv(w) -> Relu -> Softmax -> y
    after:   x -> Cast -> Conv(w bfloat16) -> Relu -> Cast -> Softmax -> y

    Where the target has no bfloat16 kernels, as onnxruntime on a CPU, weights are stored in bfloat16 and computed with
    in float32 (weights_only).
    """

    name: ClassVar[str] = "bf16"
    kind: ClassVar[Kind] = BFLOAT16
