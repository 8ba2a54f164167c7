"""The pass `fp16`."""

from dataclasses import dataclass
from typing import ClassVar

from zc.passes.precision.half import HalfPrecision
from zc.passes.precision.kinds import FLOAT16, Kind
from zc.pipeline.registry import register


@register
@dataclass(frozen=True)
class Fp16(HalfPrecision):
    """Compute in float16, with islands of float32 where its range or its digits do not suffice.

    before:  x -> Conv(w) -> Relu -> Softmax -> y
    after:   x -> Cast -> Conv(w float16) -> Relu -> Cast -> Softmax -> y

    In float32 stay operators for which half precision is a risk (Softmax, normalisations, sums, Exp, Pow), nodes with
    a constant that float16 cannot hold, and nodes with a value that comes near its end at 65504, or vanishes, on the
    samples. Light operators between such islands stay with them. weights_only=true only stores float16.
    """

    name: ClassVar[str] = "fp16"
    kind: ClassVar[Kind] = FLOAT16
