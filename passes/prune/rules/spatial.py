"""Operators on images: pools, Resize, DepthToSpace and SpaceToDepth."""

import numpy as np

from zc.ir.graph import Node, attribute
from zc.passes.prune.flow import Flow, where
from zc.passes.prune.layout import Block, Layout, dims_of, fixed, without
from zc.passes.prune.rules.rule import Rule, out_dims


def image(flow: Flow, layout: Layout, reason: str) -> Layout:
    """The layout of batch and channels; nothing leaves along the other axes."""
    for axis in sorted({a for b in layout for a in b.axes if a > 1}):
        layout = flow.freeze(layout, axis, reason)
    return tuple(b for b in layout if max(b.axes) <= 1)


def pool(node: Node, flow: Flow) -> None:
    """Channels pass; the window slides over the other axes."""
    reason = f"{where(node)} slides over it"
    if len(node.outputs) > 1 and node.outputs[1].outputs:
        flow.stop(node, node.inputs, f"reaches {where(node)}, whose indices count whole images")
        return
    layout = image(flow, flow.of(node.inputs[0]), reason)
    for tensor in node.outputs:
        if not tensor.is_empty():
            flow.put(tensor, layout, reason)


def resize(node: Node, flow: Flow) -> None:
    """Channels pass where their number stays; stated sizes count them."""
    reason = f"is resized by {where(node)}"
    before, after = dims_of(node.inputs[0]), out_dims(node)
    layout = image(flow, flow.of(node.inputs[0]), reason)
    for axis in (0, 1):
        if before[axis] != after[axis] or fixed(before[axis]) is None:
            layout = without(flow.freeze(layout, axis, reason), axis)
    flow.put(node.outputs[0], layout, reason)
    if len(node.inputs) > 3 and not node.inputs[3].is_empty():
        axes = [int(a) % len(before) for a in attribute(node, "axes", range(len(before)))]
        sizes = flow.numbers.read(node, 3)
        for i, axis in enumerate(axes):
            if sizes is None:
                if axis < 2:
                    flow.put(node.outputs[0], flow.freeze(layout, axis, reason), reason)
            else:
                flow.bind_sizes([sizes[i]], node.outputs[0], reason, first=axis)


def depth_to_space(node: Node, flow: Flow) -> None:
    """Channel c of the output is made of the block^2 channels that leave with it."""
    reason = f"is spread over the image by {where(node)}"
    layout = flow.alone(flow.of(node.inputs[0]), 1, reason)
    block = int(attribute(node, "blocksize", 1))
    mode = attribute(node, "mode", "DCR")
    result = [b for b in layout if b.axes == (0,)]
    for one in layout:
        if one.axes == (1,):
            grid = (block, block, -1) if mode in ("DCR", b"DCR") else (-1, block, block)
            labels = one.labels.reshape(grid)
            dim = 0 if grid[0] == block and grid[2] == -1 else 1
            labels = flow.labels.tie(flow.labels.tie(labels, dim), dim)
            if len(labels) > 1:
                result.append(Block((1,), labels))
            else:
                flow.labels.pin(labels, f"{reason} into a single channel")
    image(flow, layout, reason)
    flow.put(node.outputs[0], tuple(result), reason)


def space_to_depth(node: Node, flow: Flow) -> None:
    """Each channel comes back block^2 times."""
    reason = f"is moved into channels by {where(node)}"
    layout = flow.alone(flow.of(node.inputs[0]), 1, reason)
    block = int(attribute(node, "blocksize", 1))
    result = [b for b in layout if b.axes == (0,)]
    result += [Block((1,), np.tile(b.labels, block * block)) for b in layout if b.axes == (1,)]
    image(flow, layout, reason)
    flow.put(node.outputs[0], tuple(result), reason)


_POOLS = ["AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool"]

RULES: dict[str, Rule] = {
    **dict.fromkeys(_POOLS, pool),
    "Resize": resize,
    "Upsample": resize,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
}
