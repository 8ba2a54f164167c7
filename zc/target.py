"""Target: what a place of deployment can run and demands. A value; `zc.backends` defines the instances."""

from dataclasses import dataclass, field
from typing import Literal

QuantType = Literal["uint8", "int8"]


@dataclass(frozen=True)
class Target:
    """What the quantiser and the pruner need to know of a place of deployment."""

    name: str
    activations: QuantType = "uint8"
    """Element type of quantised activations."""
    symmetric_activations: bool = False
    """Must activations have the middle of their range as zero point?"""
    weights: QuantType = "int8"
    """Element type of quantised weights; always symmetric."""
    per_channel: bool = True
    """One weight scale for each output channel?"""
    integer_bias: bool = True
    """Is the bias stored as int32 (scale sx*sw), rather than in float?"""
    integer_ops: frozenset[str] = frozenset()
    """Operators with int8 kernels."""
    tied_ops: frozenset[str] = frozenset()
    """Operators whose inputs and output share one scale."""
    transparent_ops: frozenset[str] = frozenset()
    """Operators that only move codes about."""
    absorbed_activations: frozenset[str] = frozenset()
    """Activations that the range of the preceding operator's output already expresses."""
    float_ops: frozenset[str] = frozenset()
    """Operators that stay float although a kernel may exist: they lose too much on 8 bits."""
    min_opset: int = 13
    """Lowest default opset that its Q/DQ form needs (13: per-channel)."""
    channel_step: int = 1
    """Widths that are a multiple of this run best."""
    session: dict[str, str] = field(default_factory=dict)
    """onnxruntime session configuration entries."""
