"""What onnxruntime's CPU kernels do for one operator: which kernel runs, and how much of each kind of work it has.

A prediction is a sum: for each kind of work, its amount times microseconds for one of it (`cost_table.py`, fitted by
`benchmarks/cost_table.py`). The amounts are the loops of the kernels, blocks filled up: a convolution of 8 channels in
blocks of 16 does the work of 16.

Values come in four forms; each turns into its neighbours at a price:

    blocked (float, NCHW16c) <-> plain float <-> plain codes <-> codes with the channels last (NHWC)

Read in onnxruntime 1.32 (core/optimizer/nchwc_transformer.cc, nhwc_transformer.cc, core/mlas) and seen in what it runs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

BLOCKED: Final = 0
PLAIN: Final = 1
CODES: Final = 2
LAST: Final = 3
FORMS = ("blocked", "plain", "codes", "channels-last codes")

BLOCK = 16
"""Channels of a block of float numbers, on processors with AVX-512."""

Work = tuple[str, Mapping[str, float]]
"""A kernel, and the amount of each kind of work that it does."""


@dataclass(frozen=True)
class Window:
    """A convolution, batch and all, as its kernel sees it."""

    channels: int
    """Of the input, over all groups."""
    filters: int
    """Channels of the output, over all groups."""
    groups: int
    taps: int
    """Positions under the kernel."""
    stride: int
    """The largest of its strides."""
    positions: int
    """Batch times spatial positions of the output."""
    rows: int
    """Batch times all output dimensions but the innermost."""
    overhang: int = 0
    """Of the positions, those whose window hangs over the left or right edge of the input."""
    spatial: int = 2
    """Spatial dimensions."""

    @property
    def depth(self) -> int:
        """Input channels of one group."""
        return self.channels // self.groups

    @property
    def depthwise(self) -> bool:
        """Does every channel have one filter of its own?"""
        return self.depth == 1 and self.groups == self.filters


def overhanging(size: int, out: int, taps: int, stride: int, dilation: int = 1) -> int:
    """How many of a row of `out` windows hang over the edges of a row of `size` elements."""
    pads = max((out - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
    return min(out, -(-(pads // 2) // stride) + -(-(pads - pads // 2) // stride))


def window(
    x: Sequence[int],
    weight: Sequence[int],
    out: Sequence[int],
    groups: int,
    strides: Sequence[int],
    dilations: Sequence[int],
) -> Window:
    """A convolution of x [N, C, ...] with weight [filters, C / groups, ...] to out [N, filters, ...]."""
    rows = out[0] * math.prod(out[2:-1])
    return Window(
        channels=x[1],
        filters=weight[0],
        groups=groups,
        taps=math.prod(weight[2:]),
        stride=max(strides),
        positions=rows * out[-1],
        rows=rows,
        overhang=rows * overhanging(x[-1], out[-1], weight[-1], strides[-1], dilations[-1]),
        spatial=len(x) - 2,
    )


def up(size: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-size // step) * step


def runs_blocked(w: Window) -> bool:
    """Does the float kernel work in blocks of channels? (NchwcTransformerImpl::TransformConv)"""
    if w.spatial != 2:
        return False
    if w.groups == 1:
        return w.channels < BLOCK or w.channels % 4 == 0
    if w.depthwise:
        return w.channels % 4 == 0
    return w.depth % BLOCK == 0 and (w.filters // w.groups) % BLOCK == 0


def reads_plain(w: Window) -> bool:
    """Does the blocked kernel read its input as it stands? So it does with fewer channels than a block."""
    return w.groups == 1 and w.channels < BLOCK


def float_conv(w: Window) -> Work:
    """The float kernel of a convolution."""
    if not runs_blocked(w):
        return _plain_conv(w)
    filters = up(w.filters, BLOCK)
    if w.depthwise:
        macs = w.positions * filters * w.taps
        return "blocked depthwise Conv", {
            "macs": macs,
            "macs of strides": macs * (w.stride > 1),
            "outputs": w.positions * filters,
            "macs at edges": w.overhang * filters * w.taps,
            "rows": w.rows * filters / BLOCK,
            "calls": 1,
        }
    if reads_plain(w):
        return f"blocked {'pointwise ' if w.taps == 1 else ''}Conv of plain input", {
            "macs": w.positions * filters * w.channels * w.taps,
            "macs of four blocks": w.positions * up(filters, 64) * w.channels * w.taps,
            "outputs": w.positions * filters,
            "macs at edges": w.overhang * filters * w.channels * w.taps,
            "row taps": w.rows * up(filters, 64) * w.channels * w.taps,
            "calls": 1,
        }
    depth = up(w.channels, BLOCK) // w.groups
    macs = w.positions * filters * depth * w.taps
    work = {
        "macs": macs,
        "macs of four blocks": w.positions * up(filters // w.groups, 64) * w.groups * depth * w.taps,
        "macs of strides": macs * (w.stride > 1),
        "outputs": w.positions * filters,
        "calls": 1,
    }
    if w.taps == 1:
        return "blocked pointwise Conv", work | {
            "inputs": w.positions * depth * w.groups,
            "weights": filters * depth,
        }
    return "blocked Conv", work | {
        "macs at edges": w.overhang * filters * depth * w.taps,
        "row taps": w.rows * filters * depth * w.taps / BLOCK**2,
    }


def _plain_conv(w: Window) -> Work:
    """Columns and a matrix product, group after group (MlasConv)."""
    common = {"macs": w.positions * w.filters * w.depth * w.taps, "groups": w.groups, "calls": 1}
    common["outputs"] = w.positions * w.filters
    if w.depthwise:
        return "plain depthwise Conv", common | {"macs of strides": common["macs"] * (w.stride > 1)}
    return ("plain Conv" if w.groups == 1 else "plain grouped Conv"), common | {
        "columns": w.positions * w.channels * w.taps,
        "weights": w.filters * w.depth * w.taps,
    }


def integer_conv(w: Window) -> Work:
    """QLinearConv with the channels last."""
    if w.depthwise:
        return "integer depthwise Conv", {
            "macs of eight": w.positions * up(w.filters, 8) * w.taps,
            "macs left over": w.positions * (w.filters % 8) * w.taps,
            "halves": w.positions * w.taps * (w.filters % 16 >= 8),
            "taps": w.positions * w.taps,
            "outputs": w.positions * w.filters,
            "outputs left over": w.positions * (w.filters % 16),
            "calls": 1,
        }
    filters, depth = w.filters // w.groups, w.depth * w.taps
    work = {
        "macs": w.positions * up(filters, 16) * w.groups * up(depth, 4),
        "outputs": w.positions * w.filters,
        "outputs left over": w.positions * w.groups * (filters % 16),
        "taps": w.positions * w.taps * w.groups,
        "weights": w.filters * depth,
        "calls": 1,
    }
    if w.groups > 1:
        return "integer grouped Conv", work | {"columns": w.positions * w.channels * w.taps, "groups": w.groups}
    size = "pointwise " if w.taps == 1 else ""
    if w.channels % 4 == 0 and w.filters % 4 == 0 and w.filters >= 16:  # MlasConvSym: neither columns nor a second pass
        four = w.positions * up(filters, 64) * depth
        return f"integer {size}Conv", work | {
            "macs of four blocks": four,
            "inputs of strides": w.positions * w.channels * (w.stride > 1),
        }
    return f"integer {size}Conv by columns", work | {
        "columns": w.positions * depth * (w.taps > 1 or w.stride > 1),
        "positions": w.positions,
        "blocks": w.positions * up(filters, 16) / 16,
    }


def fused(name: str, filters: int, positions: int) -> Work:
    """What a float convolution takes longer when it applies an activation, or adds a value, itself."""
    return f"fused {name}", {"outputs": positions * up(filters, BLOCK)}


def product(rows: int, depth: int, columns: int, *, integer: bool) -> Work:
    """Gemm or MatMul with constant weights [depth, columns]."""
    return ("integer product" if integer else "plain product"), {
        "macs": up(rows, 4) * depth * up(columns, BLOCK),
        "weights": depth * columns,
        "weights of blocks": depth * columns * (rows > 1),
        "inputs": rows * depth,
        "outputs": rows * columns,
        "calls": 1,
    }


def elementwise(name: str, form: int, outputs: int, inputs: int, *, taps: int = 1, width: int = 1) -> Work:
    """An operator whose work is moving or mapping elements. `name`: one of `MEASURED`.

    taps: positions under the window of a pool. width: elements that lie side by side in memory and belong together.
    """
    if form == LAST and name not in (*_POOLS, "Concat", "Resize"):
        form = CODES  # one kernel for every order of the axes
    if form == BLOCKED and name not in (*_POOLS, "Resize"):
        form = PLAIN
    by_row = name in ("LayerNormalization", "Softmax") or (name == "Concat" and form == LAST)
    return f"{FORMS[form]} {name}", {
        "outputs": outputs,
        "inputs": inputs,
        "taps": outputs * taps * (taps > 1),
        "rows": outputs / max(width, 1) * by_row,
        "calls": 1,
    }


def conversion(low: int, rising: bool, shape: tuple[int, ...]) -> Work:
    """From form `low` to the one above it, or back."""
    size, channels = math.prod(shape), shape[1] if len(shape) > 1 else 1
    if low == CODES:
        wide = size * (channels >= 64 and size > 1 << 17)  # rows of the result leave the cache before they are full
        work = {"elements": size, "elements of few channels": size * (channels < 8), "elements of many": wide}
        return ("channels last" if rising else "channels first"), work | {"calls": 1}
    if low == PLAIN:
        return ("QuantizeLinear" if rising else "DequantizeLinear"), {"elements": size, "calls": 1}
    filled = size // max(channels, 1) * up(channels, BLOCK)
    return ("out of blocks" if rising else "into blocks"), {"elements": filled, "calls": 1}


_POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool")
MEASURED = frozenset(
    {
        *_POOLS,
        *("Add", "Mul", "Concat", "Sigmoid", "LeakyRelu", "Softmax", "LayerNormalization", "Erf", "Tanh", "Relu"),
        *("Slice", "Transpose", "Resize"),
    }
)
"""Operators that move or map elements, of which the table has times."""
