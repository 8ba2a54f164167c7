"""Form: the settings with which a model is written in integers."""

from dataclasses import dataclass
from typing import Literal

from zc.passes.quantize.ranges import Method

Ranges = Method | Literal["auto"]
Activations = Literal["static", "dynamic"]
Rounding = Literal["nearest", "second-order"]


@dataclass(frozen=True)
class Form:
    """What one quantised form of a model is made with; the same float model has many."""

    method: Ranges = "auto"
    """How ranges of activations are read from what calibration saw."""
    percentile: float = 99.999
    """With method=percentile: per cent of the values that a range must hold."""
    clip_cost: float = 1.0
    """With method=mse: how many times the squared error of what is cut off counts."""
    per_channel: bool = True
    """One weight scale for each output channel."""
    bias_correct: bool = True
    """Shift biases so that channel means are the float model's."""
    weight_bits: int = 8
    """Bits of the codes of weights: the largest is 2**(bits - 1) - 1."""
    activation_bits: int = 8
    """Bits of the codes of activations, 8 or 16."""
    activations: Activations = "static"
    """Where the ranges of what matrix products between float values read come from: calibration, or the data at
    hand."""
    rounding: Rounding = "nearest"
    """How the codes of weights are chosen: each by itself, or for what the layer says with all of them."""
    equalize: bool = False
    """Move factors from channel to channel across layers before ranges are taken."""
    smooth: bool = False
    """Move outliers of what matrix products read into their weights before."""
    wide: frozenset[str] = frozenset()
    """Names of nodes whose weights have 8 bits all the same."""
