"""Recognising operators that only move codes about, or choose among them: reshapes, slices, maxima, repetitions."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from zc.ir.graph import Node, Tensor, attribute
from zc.kernels import rules
from zc.runtime.elementary import CODES, windows
from zc.runtime.ops import (
    Blocks,
    Coding,
    Expand,
    Gather,
    Interpolate,
    LookUp,
    Op,
    Pad,
    Pool,
    Reshape,
    Resize,
    Slice,
    Split,
    Tile,
    Transpose,
)
from zc.runtime.quantum import Declined, Scope, given, read, written


@dataclass(frozen=True)
class Path:
    """From which codes to which an operator moves them, and what they stand for there (None: it stands on codes)."""

    nodes: tuple[Node, ...]
    source: Tensor
    target: Tensor
    coding: Coding | None
    first: LookUp | None = None
    """What brings codes of another scale into that of the result."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Name of what is moved."""
        return (self.source.name,) if self.first is None else self.first.outputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Name of the result."""
        return (self.target.name,)


def path(scope: Scope, node: Node) -> Path:
    """Of an operator that stands on codes, or between a DQ and a Q.

    With another scale behind it, the codes get that first: then they are fewer, and each is rounded as it would be
    later.
    """
    if node.inputs[0].dtype in CODES:
        return Path((node,), node.inputs[0], node.outputs[0], None)
    source, x = read(scope, given(node, 0))
    target, y, passed = written(scope, node.outputs[0])
    first = None
    if x != y:
        table = rules.rescale_table(x.scale, x.zero, y.scale, y.zero)
        first = LookUp((passed[-1],), (source.name,), (f"{target.name}{RESCALED}",), table=table, x=x, y=y)
    return Path((node, *passed), source, target, y, first)


RESCALED = ":rescaled"
"""Behind the name of a value: what is moved there, in its scale."""


def reshape(scope: Scope, node: Node) -> Op:
    """Reshape, Flatten, Squeeze, Unsqueeze, Identity; Dropout, which does nothing in inference."""
    if node.op == "Dropout" and (given(node, 2) is not None or len(node.outputs) > 1):
        raise Declined("it may drop values, or puts out which it drops")
    if node.op != "Dropout" and len(node.inputs) > 1 and node.inputs[1].name and scope.constant(node.inputs[1]) is None:
        raise Declined("its new shape is not constant")
    way = path(scope, node)
    return Reshape(way.nodes, way.inputs, way.outputs, first=way.first)


def transpose(scope: Scope, node: Node) -> Op:
    """Transpose."""
    way = path(scope, node)
    rank = len(way.source.shape) if way.source.shape is not None else 0
    order = attribute(node, "perm", None) or range(rank)[::-1]
    return Transpose(way.nodes, way.inputs, way.outputs, first=way.first, order=tuple(int(a) for a in order))


def slices(scope: Scope, node: Node) -> Op:
    """Slice with constant starts and steps."""
    way = path(scope, node)
    if scope.opset < 10:
        starts, axes, steps = attribute(node, "starts", []), attribute(node, "axes", None), None
    else:
        starts, axes, steps = (_numbers(scope, node, i) for i in (1, 3, 4))
    if starts is None or (scope.opset >= 10 and _numbers(scope, node, 2) is None):
        raise Declined("its bounds are not constant")
    axes = list(range(len(starts))) if axes is None else list(axes)
    steps = [1] * len(starts) if steps is None else list(steps)
    cuts = tuple((int(a), int(s), int(t)) for a, s, t in zip(axes, starts, steps, strict=True))
    return Slice(way.nodes, way.inputs, way.outputs, first=way.first, cuts=cuts)


def split(scope: Scope, node: Node) -> Op:
    """Split of codes, or between a DQ and one Q for each part, all with one scale."""
    if given(node, 1) is not None and scope.constant(given(node, 1)) is None:
        raise Declined("the sizes of its parts are not constant")
    axis = int(attribute(node, "axis", 0))
    if node.inputs[0].dtype in CODES:
        return Split((node,), (node.inputs[0].name,), tuple(t.name for t in node.outputs), axis=axis)
    source, x = read(scope, given(node, 0))
    parts = [written(scope, t) for t in node.outputs]
    if any(y != x for _, y, _ in parts):
        raise Declined("its parts have other scales than the whole")
    nodes = (node, *(n for _, _, passed in parts for n in passed))
    return Split(nodes, (source.name,), tuple(t.name for t, _, _ in parts), axis=axis)


PadMode = Literal["constant", "edge", "reflect", "wrap"]


def pad(scope: Scope, node: Node) -> Op:
    """Pad, in all modes."""
    mode = attribute(node, "mode", "constant")
    if mode not in get_args(PadMode):
        raise Declined(f"it pads by {mode}")
    way = path(scope, node)
    if scope.opset < 11:
        pads, value = list(attribute(node, "pads", [])), float(attribute(node, "value", 0.0))
    else:
        numbers, fill = _numbers(scope, node, 1), given(node, 2)
        constant = scope.constant(fill)
        if numbers is None or (fill is not None and constant is None):
            raise Declined("its pads are not constant")
        pads, value = list(numbers), 0.0 if constant is None else float(constant.reshape(-1)[0])
        if given(node, 3) is not None:
            axes, rank = _numbers(scope, node, 3), len(way.source.shape or ())
            if axes is None:
                raise Declined("its axes are not constant")
            full = [0] * (2 * rank)
            for i, axis in enumerate(axes):
                full[axis % rank], full[axis % rank + rank] = pads[i], pads[i + len(axes)]
            pads = full
    if way.coding is not None:
        code = int(rules.quantize(np.asarray(value, np.float32).reshape(1), way.coding.scale, way.coding.zero)[0])
    else:
        code = int(value) + (128 if way.source.dtype == np.int8 else 0)
    if any(p < 0 for p in pads) and mode != "constant":
        raise Declined("it cuts (negative pads)")
    half = len(pads) // 2
    before, after = (tuple(int(p) for p in part) for part in (pads[:half], pads[half:]))
    return Pad(way.nodes, way.inputs, way.outputs, first=way.first, before=before, after=after, value=code, mode=mode)


def blocks(scope: Scope, node: Node) -> Op:
    """DepthToSpace, SpaceToDepth."""
    way = path(scope, node)
    mode: Literal["DCR", "CRD", "space"] = "CRD" if attribute(node, "mode", "DCR") == "CRD" else "DCR"
    mode = "space" if node.op == "SpaceToDepth" else mode
    return Blocks(
        way.nodes, way.inputs, way.outputs, first=way.first, size=int(attribute(node, "blocksize", 1)), mode=mode
    )


def resize(scope: Scope, node: Node) -> Op:
    """Resize or Upsample of images, to the nearest neighbour or linear."""
    mode = attribute(node, "mode", "nearest")
    mode = mode.decode() if isinstance(mode, bytes) else mode
    if mode not in ("nearest", "linear") or attribute(node, "antialias", 0):
        raise Declined("it interpolates by cubes, or against aliasing")
    if node.op == "Resize" and (attribute(node, "axes", None) or scope.opset < 11):
        raise Declined("it names axes, or is of an old operator set")
    if attribute(node, "keep_aspect_ratio_policy", "stretch") not in ("stretch", b"stretch"):
        raise Declined("it keeps the aspect ratio")
    scales = None
    if node.op == "Upsample":
        how, rounding, found = "asymmetric", "floor", scope.constant(given(node, 1))
    else:
        how = attribute(node, "coordinate_transformation_mode", "half_pixel")
        rounding = attribute(node, "nearest_mode", "round_prefer_floor")
        found = scope.constant(given(node, 2)) if given(node, 2) is not None else None
        if (found is None or not found.size) and scope.constant(given(node, 3)) is None:
            raise Declined("its sizes are not constant")
    if how not in COORDINATES:
        raise Declined(f"its coordinates are {how}")
    if found is not None and found.size:
        if found.size != 4 or found[0] != 1 or found[1] != 1:
            raise Declined("it resizes batch or channels, or other than four axes")
        scales = (float(found[2]), float(found[3]))
    elif node.op == "Upsample":
        raise Declined("its scales are not constant")
    if mode == "linear":
        return _linear(scope, node, how, scales)
    way = path(scope, node)
    _four_axes(way.source)
    source = f"{how}/{rounding}"
    return Resize(way.nodes, way.inputs, way.outputs, first=way.first, source=source, scales=scales)


COORDINATES = frozenset(
    {"half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric", "tf_half_pixel_for_nn"}
)
"""What `rules.coordinates` knows."""


def _linear(scope: Scope, node: Node, how: str, scales: tuple[float, float] | None) -> Op:
    if node.inputs[0].dtype in CODES:
        raise Declined("it interpolates codes, not what they stand for")
    source, x = read(scope, given(node, 0))
    target, y, passed = written(scope, node.outputs[0])
    _four_axes(source)
    return Interpolate((node, *passed), (source.name,), (target.name,), x=x, y=y, source=how, scales=scales)


def _four_axes(source: Tensor) -> None:
    if source.shape is not None and len(source.shape) != 4:
        raise Declined(f"it resizes {len(source.shape)} axes, not four")


# ---- the largest of several codes


def max_pool(scope: Scope, node: Node) -> Op:
    """MaxPool."""
    if len(node.outputs) > 1 and node.outputs[1].name:
        raise Declined("it puts out indices")
    way, found = path(scope, node), windows(node)
    return Pool(
        way.nodes,
        way.inputs,
        way.outputs,
        first=way.first,
        kernel=found.kernel,
        strides=found.strides,
        pads=found.pads,
        dilations=found.dilations,
        ceil=found.ceil,
        same=found.same,
    )


def global_max(scope: Scope, node: Node) -> Op:
    """GlobalMaxPool; ReduceMax over the axes of an image."""
    way = path(scope, node)
    rank = None if way.source.shape is None else len(way.source.shape)
    if rank not in (3, 4):
        raise Declined("it is not known to read an image")
    if node.op == "ReduceMax":
        axes = _numbers(scope, node, 1) if scope.opset >= 18 else attribute(node, "axes", None)
        if axes is None or sorted(a % rank for a in axes) != list(range(2, rank)):
            raise Declined("it is not over the axes of an image")
    return Pool(
        way.nodes,
        way.inputs,
        way.outputs,
        first=way.first,
        kernel=None,
        strides=(1, 1),
        pads=(0, 0, 0, 0),
        dilations=(1, 1),
        ceil=False,
        keeps_axes=node.op != "ReduceMax" or bool(attribute(node, "keepdims", 1)),
    )


# ---- the same codes several times


def gather(scope: Scope, node: Node) -> Op:
    """Gather with constant positions."""
    way, found = path(scope, node), scope.constant(given(node, 1))
    if found is None:
        raise Declined("its positions are not constant")
    axis, shape = int(attribute(node, "axis", 0)), way.source.shape
    positions = found.astype(np.int64)
    if (positions < 0).any():
        size = None if shape is None else shape[axis]
        if not isinstance(size, int):
            raise Declined("its positions count from the end of an axis of unknown length")
        positions = np.where(positions < 0, positions + size, positions)
    if positions.size > MOST_PARTS:
        raise Declined(f"it takes {positions.size} positions, more than {MOST_PARTS}")
    return Gather(way.nodes, way.inputs, way.outputs, first=way.first, axis=axis, positions=positions)


MOST_PARTS = 1024
"""Positions of a Gather: each may become a step of its own."""


def expand(scope: Scope, node: Node) -> Op:
    """Expand to a constant shape."""
    way, shape = path(scope, node), _numbers(scope, node, 1) or []
    return Expand(way.nodes, way.inputs, way.outputs, first=way.first, shape=tuple(shape))


def tile(scope: Scope, node: Node) -> Op:
    """Tile with constant repeats."""
    way, repeats = path(scope, node), _numbers(scope, node, 1) or []
    return Tile(way.nodes, way.inputs, way.outputs, first=way.first, repeats=tuple(repeats))


def _numbers(scope: Scope, node: Node, position: int) -> list[int] | None:
    tensor = given(node, position)
    values = scope.constant(tensor)
    if tensor is not None and values is None:
        raise Declined("its sizes are not constant")
    return None if values is None else [int(v) for v in values.reshape(-1)]
