"""Operators that move positions about, choose among them or sum over some: labels move with them."""

from collections.abc import Sequence

import numpy as np

from zc.errors import ZcError
from zc.ir.graph import Node, attribute
from zc.passes.prune.labels import Ints
from zc.passes.prune.rules.reshaping import factors
from zc.passes.quantize.scaling.flow import Edit, Flow, given, rank, where
from zc.passes.quantize.scaling.rule import Rule, axis_of, dims_of, numbers, size_of


def transpose(node: Node, flow: Flow) -> None:
    """Output axis i is input axis perm[i]."""
    perm = attribute(node, "perm", list(range(rank(node.inputs[0])))[::-1])
    flow.put(node.outputs[0], flow.of(node.inputs[0]).transpose([int(p) for p in perm]))


def reshape(node: Node, flow: Flow) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze: axes are split and merged, elements stay in order."""
    layout = flow.of(node.inputs[0])
    before, after = dims_of(node.inputs[0]), dims_of(node.outputs[0])
    spread, target = [1] * len(before), [1] * len(after)
    for group in factors(before, after):
        if all(layout.shape[a] == 1 for a in group.before):
            continue
        sizes, wanted = [before[a] for a in group.before], [after[a] for a in group.after]
        if group.is_open or not all(isinstance(d, int) for d in (*sizes, *wanted)):
            if len(group.before) == len(group.after) == 1:
                sizes = wanted = [layout.shape[group.before[0]]]
            else:
                layout = flow.even(layout, *group.before)
                continue
        for axis, size in zip(group.before, sizes, strict=True):
            spread[axis] = int(size or 1)
        for axis, size in zip(group.after, wanted, strict=True):
            target[axis] = int(size or 1)
    moved = np.broadcast_to(layout, spread).reshape(target)
    flow.put(node.outputs[0], _narrow(flow, moved))


def _narrow(flow: Flow, layout: Ints) -> Ints:
    """The layout without the axes along which it does not change."""
    for axis, size in enumerate(layout.shape):
        if size > 1:
            roots = flow.labels.find(layout)
            if (roots == roots.take([0], axis)).all():
                layout = layout.take([0], axis)
    return layout


def concat(node: Node, flow: Flow) -> None:
    """Labels stand one after the other along the axis; along the others the inputs share theirs."""
    axes = rank(node.outputs[0])
    axis = axis_of(node, 1, axes)
    layouts, sizes = [], [size_of(t, axis) for t in node.inputs]
    for place, tensor in enumerate(node.inputs):
        size = sizes[place]
        if flow.fixed_value(tensor) is not None and flow.scalable(tensor) and size is not None:
            layouts.append(flow.fresh(axes, axis, size))
            flow.edits.append(Edit(node, place, layouts[-1]))
        else:
            layouts.append(flow.of(tensor))
    along_others = all(one.shape[axis] == 1 for one in layouts) and any(one.size > 1 for one in layouts)
    if along_others or None in sizes:
        flow.put(node.outputs[0], flow.meet([flow.even(one, axis) for one in layouts]))
        return
    rest = np.broadcast_shapes(*(tuple(n for a, n in enumerate(one.shape) if a != axis) for one in layouts))
    if any(n > 1 for n in rest):
        # Labels on several axes: each part is spread over the same others.
        first = [one.take([0], axis) for one in layouts]
        flow.meet(first)
    parts = []
    for one, size in zip(layouts, sizes, strict=True):
        assert size is not None  # looked for above
        parts.append(np.broadcast_to(one, (*rest[:axis], size, *rest[axis:])))
    flow.put(node.outputs[0], np.concatenate(parts, axis))


def split(node: Node, flow: Flow) -> None:
    """Split: consecutive ranges of an axis."""
    layout = flow.of(node.inputs[0])
    axis = axis_of(node, 0, layout.ndim)
    sizes = [size_of(t, axis) for t in node.outputs]
    if layout.shape[axis] > 1 and None in sizes:
        layout = flow.even(layout, axis)
    at = 0
    for tensor, size in zip(node.outputs, sizes, strict=True):
        part = layout
        if layout.shape[axis] > 1 and size is not None:
            part = layout.take(range(at, at + size), axis)
            at += size
        flow.put(tensor, part)


def slice_(node: Node, flow: Flow) -> None:
    """Slice: a range of some axes."""
    layout = flow.of(node.inputs[0])
    starts, ends = numbers(node, flow, 1, "starts"), numbers(node, flow, 2, "ends")
    axes, steps = numbers(node, flow, 3, "axes"), numbers(node, flow, 4)
    if axes is None and not given(node, 3):
        axes = list(range(len(starts or ())))
    if starts is None or ends is None or axes is None or (steps is None and given(node, 4)):
        flow.put(node.outputs[0], flow.even(layout, *range(layout.ndim)))
        return
    cut = [slice(None)] * layout.ndim
    for i, axis in enumerate(a % layout.ndim for a in axes):
        if layout.shape[axis] > 1:
            cut[axis] = slice(*_bounds(starts[i], ends[i], steps[i] if steps else 1, layout.shape[axis]))
    flow.put(node.outputs[0], layout[tuple(cut)])


def _bounds(start: int, end: int, step: int, size: int) -> tuple[int, int | None, int]:
    first, last, step = slice(start, end if step > 0 or end >= -size else None, step).indices(size)
    return first, None if last < 0 else last, step


def pick(node: Node, flow: Flow) -> None:
    """Gather of positions of a value."""
    layout, indices = flow.of(node.inputs[0]), flow.fixed_value(node.inputs[1])
    axis = axis_of(node, 0, layout.ndim)
    if indices is not None and layout.shape[axis] > 1:
        flow.put(node.outputs[0], layout.take(indices, axis))
        return
    layout = flow.even(layout, axis)
    shape = layout.shape[:axis] + (1,) * rank(node.inputs[1]) + layout.shape[axis + 1 :]
    flow.put(node.outputs[0], layout.reshape(shape))


def pad(node: Node, flow: Flow) -> None:
    """Pad: zeros have any factor; what is copied from an axis has that of its place."""
    layout = flow.of(node.inputs[0])
    mode = attribute(node, "mode", "constant")
    fill = flow.fixed_value(node.inputs[2]) if given(node, 2) else np.array(attribute(node, "value", 0.0))
    pads, axes = numbers(node, flow, 1, "pads"), numbers(node, flow, 3)
    constant = mode in ("constant", b"constant")
    if constant and (fill is None or fill.any()):
        flow.stop(node, f"reaches {where(node)}, which pads with a number that is not zero")
        return
    if pads is None or (axes is None and given(node, 3)):
        flow.put(node.outputs[0], flow.even(layout, *range(layout.ndim)))
        return
    axes = list(range(layout.ndim)) if axes is None else [a % layout.ndim for a in axes]
    for i, axis in enumerate(axes):
        before, after = pads[i], pads[i + len(axes)]
        if layout.shape[axis] == 1 or before == after == 0:
            continue
        if not constant or min(before, after) < 0 or layout.size != layout.shape[axis]:
            layout = flow.even(layout, axis)
            continue
        ends = [flow.fresh(layout.ndim, axis, n) for n in (before, after)]
        layout = np.concatenate([ends[0], layout, ends[1]], axis)
    flow.put(node.outputs[0], layout)


def expand(node: Node, flow: Flow) -> None:
    """Expand: axes of size 1 are repeated."""
    layout = flow.of(node.inputs[0])
    flow.put(node.outputs[0], layout.reshape((1,) * (rank(node.outputs[0]) - layout.ndim) + layout.shape))


def tile(node: Node, flow: Flow) -> None:
    """Tile: labels are repeated with what they stand on."""
    layout, repeats = flow.of(node.inputs[0]), numbers(node, flow, 1)
    if repeats is None:
        flow.put(node.outputs[0], flow.even(layout, *range(layout.ndim)))
        return
    flow.put(node.outputs[0], np.tile(layout, [n if s > 1 else 1 for n, s in zip(repeats, layout.shape, strict=True)]))


def spatial(node: Node, flow: Flow) -> None:
    """Pools and resizing: what is summed or interpolated shares a factor; channels stay apart."""
    layout = flow.even(flow.of(node.inputs[0]), *range(2, rank(node.inputs[0])))
    if layout.size > 1 and (layout.shape[0] > 1 or size_of(node.inputs[0], 1) != size_of(node.outputs[0], 1)):
        raise ZcError(f"reaches {where(node)}, which changes the number of channels")
    for tensor in node.outputs[:1]:
        flow.put(tensor, layout)


def reduce(node: Node, flow: Flow) -> None:
    """ReduceMean, ReduceSum, ReduceMax, ...: what is reduced shares a factor."""
    layout = flow.of(node.inputs[0])
    axes = numbers(node, flow, 1, "axes")
    if axes is None:
        if given(node, 1):
            raise ZcError(f"reaches {where(node)}, whose axes are not constant")
        axes = [] if attribute(node, "noop_with_empty_axes", 0) else list(range(layout.ndim))
    gone = [a % layout.ndim for a in axes]
    layout = flow.even(layout, *gone)
    if not int(attribute(node, "keepdims", 1)):
        layout = layout.reshape([n for a, n in enumerate(layout.shape) if a not in gone])
    flow.put(node.outputs[0], layout)


def size(node: Node, flow: Flow) -> None:
    """Shape and Size: they read no number of the value."""
    flow.put(node.outputs[0], flow.rigid(rank(node.outputs[0]), f"is made by {where(node)}"))


def depth_to_space(node: Node, flow: Flow) -> None:
    """DepthToSpace: channels that become neighbours in the image share a factor."""
    layout = flow.even(flow.of(node.inputs[0]), 0, 2, 3)
    if layout.size > 1:
        block = int(attribute(node, "blocksize", 1)) ** 2
        crd = attribute(node, "mode", "DCR") in ("CRD", b"CRD")
        grid = layout.reshape((-1, block) if crd else (block, -1))
        layout = flow.labels.tie(grid, 1 if crd else 0).reshape(1, -1, 1, 1)
    flow.put(node.outputs[0], layout)


def space_to_depth(node: Node, flow: Flow) -> None:
    """SpaceToDepth: each channel becomes several, the block's positions first."""
    layout = flow.even(flow.of(node.inputs[0]), 0, 2, 3)
    if layout.size > 1:
        layout = np.tile(layout, (1, int(attribute(node, "blocksize", 1)) ** 2, 1, 1))
    flow.put(node.outputs[0], layout)


def _same(names: Sequence[str], rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names, rule)


_POOLS = ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
_REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2")

RULES: dict[str, Rule] = {
    **_same(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), reshape),
    **_same((*_POOLS, "Resize", "Upsample"), spatial),
    **_same(_REDUCTIONS, reduce),
    "Shape": size,
    "Size": size,
    "Transpose": transpose,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Pad": pad,
    "Expand": expand,
    "Tile": tile,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
}
