"""What a quantised graph computes, in the runtime's own terms: operations on codes, and islands in float.

Values go by name. Codes are uint8 in memory: an int8 code is kept 128 higher, and so is its zero point.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from zc.ir.graph import Array, Node


@dataclass(frozen=True)
class Coding:
    """How codes stand for numbers: number = scale * (code - zero)."""

    scale: np.float32
    zero: int
    """In 0..255, also for int8 codes (128 above their own)."""
    signed: bool = False

    @property
    def base(self) -> int:
        """The code in memory that stands for the code 0 of the file: 128 for int8."""
        return 128 if self.signed else 0


@dataclass(frozen=True, eq=False)
class Op:
    """One operation. `nodes`: the nodes of the model that it stands for."""

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    first: "Op | None" = field(default=None, kw_only=True)
    """One that must run before it and makes its input: codes in the scale of its output."""

    @property
    def output(self) -> str:
        """The only output."""
        return self.outputs[0]


@dataclass(frozen=True, eq=False)
class Quantize(Op):
    """Float to codes."""

    y: Coding


@dataclass(frozen=True, eq=False)
class Dequantize(Op):
    """Codes to float."""

    x: Coding


@dataclass(frozen=True, eq=False)
class Weights:
    """A constant factor: codes of int8 or uint8, zero points, scales and an int32 bias, by output channel."""

    codes: Array
    zero: Array
    scale: Array
    bias: Array
    per_channel: bool = True
    """False: the model has one scale for all channels."""


@dataclass(frozen=True, eq=False)
class Convolution(Op):
    """Conv. Weights [m, c / group, kh, kw]; a 1-D convolution has kh = 1."""

    x: Coding
    y: Coding
    weights: Weights
    strides: tuple[int, int]
    pads: tuple[int, int, int, int] | None
    """top, left, bottom, right; None: as `same` says."""
    dilations: tuple[int, int]
    group: int
    same: Literal["lower", "upper"] | None = None


@dataclass(frozen=True, eq=False)
class Product(Op):
    """Rows of codes times a constant matrix [k, n]. y: None where the result stays float."""

    x: Coding
    y: Coding | None
    weights: Weights


@dataclass(frozen=True, eq=False)
class BatchedProduct(Op):
    """MatMul of two values that are computed, with broadcast batches. y: None where the result stays float."""

    a: Coding
    b: Coding
    y: Coding | None


@dataclass(frozen=True, eq=False)
class Binary(Op):
    """Add or multiply, with broadcasting."""

    kind: Literal["add", "multiply"]
    a: Coding
    b: Coding
    y: Coding


@dataclass(frozen=True, eq=False)
class LookUp(Op):
    """Any operator of one argument: uint8[256], from code in memory to code in memory."""

    table: Array
    x: Coding | None = None
    """What the codes stand for; None for an operator of codes themselves."""
    y: Coding | None = None


@dataclass(frozen=True, eq=False)
class LookUpPairs(Op):
    """Any operator of two arguments, with broadcasting, of codes and codes or of codes and a constant."""

    table: Array
    """uint8[256, 256]: the result, as a code in memory, by the code of the second input, then that of the first. With
    a constant uint8[distinct values, 256]."""
    y: Coding
    operands: tuple[Coding, Coding] | None = None
    """What both inputs' codes stand for; None with a constant."""
    places: Array | None = None
    """The constant as numbers of its distinct values, int64 in its shape."""


@dataclass(frozen=True, eq=False)
class Concatenate(Op):
    """Concat; `tables`: what the codes of each input become, None where they stay."""

    axis: int
    tables: tuple[Array | None, ...]
    codings: tuple[Coding, ...] = ()
    """Of the inputs, then of the output; none where codes alone are joined."""


@dataclass(frozen=True, eq=False)
class Pool(Op):
    """MaxPool, or AveragePool where `x` and `y` say how."""

    kernel: tuple[int, int] | None
    """None: the whole image."""
    strides: tuple[int, int]
    pads: tuple[int, int, int, int] | None
    dilations: tuple[int, int]
    ceil: bool
    counts_pad: bool = False
    x: Coding | None = None
    y: Coding | None = None
    same: Literal["lower", "upper"] | None = None
    keeps_axes: bool = True
    """False: the result has no axes for the image."""


@dataclass(frozen=True, eq=False)
class GlobalAverage(Op):
    """GlobalAveragePool."""

    x: Coding
    y: Coding


@dataclass(frozen=True, eq=False)
class Softmax(Op):
    """Softmax over the axes from `axis` on (one, from opset 13 on)."""

    x: Coding
    y: Coding
    axis: int
    flat: bool


@dataclass(frozen=True, eq=False)
class Reshape(Op):
    """Another shape for the same codes in the same order. What it is, shape inference says."""


@dataclass(frozen=True, eq=False)
class Transpose(Op):
    """Axes in another order."""

    order: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Slice(Op):
    """Every step-th position from a start, by axis: (axis, start, step); sizes from the output's shape."""

    cuts: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, eq=False)
class Split(Op):
    """Consecutive parts along an axis."""

    axis: int


@dataclass(frozen=True, eq=False)
class Gather(Op):
    """Positions of an axis, by number (not negative); their array's shape takes the place of the axis."""

    axis: int
    positions: Array


@dataclass(frozen=True, eq=False)
class Expand(Op):
    """Broadcast to a shape that both go into."""

    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Tile(Op):
    """The codes repeated, by axis."""

    repeats: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Pad(Op):
    """Padding: positions in front and behind, by axis; negative ones are cut off."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    value: int
    """The code there, if the mode is `constant`."""
    mode: Literal["constant", "edge", "reflect", "wrap"] = "constant"


@dataclass(frozen=True, eq=False)
class Blocks(Op):
    """DepthToSpace or SpaceToDepth: reshape, transpose, reshape."""

    size: int
    mode: Literal["DCR", "CRD", "space"]


@dataclass(frozen=True, eq=False)
class Resize(Op):
    """Resize by nearest neighbour: the source row of each output row, and of each column, once sizes are known."""

    source: str
    """coordinate_transformation_mode / nearest_mode."""
    scales: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class Interpolate(Op):
    """Resize, linear."""

    x: Coding
    y: Coding
    source: str
    """coordinate_transformation_mode."""
    scales: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class Island(Op):
    """Nodes that run in onnxruntime."""

    reasons: tuple[str, ...] = field(default=())
    """Why, for each node."""
