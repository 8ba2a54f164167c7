"""Operators that take parts of an axis or add to it: Slice, Split, Gather, Pad."""

import numpy as np

from zc.ir.graph import Node, Tensor, attribute
from zc.passes.prune.flow import Flow, Picks, Split, where
from zc.passes.prune.labels import is_rigid
from zc.passes.prune.layout import Block, Count, Layout, block_at, dims_of, fixed, moved, without
from zc.passes.prune.numbers import Entry
from zc.passes.prune.rules.rule import Rule, axis_of, given, out_dims, rank


def slice_(node: Node, flow: Flow) -> None:
    """Slice: a range of an axis. Starts and ends count the labels before them."""
    sizes = dims_of(node.inputs[0])
    starts, ends = flow.numbers.read(node, 1, "starts"), flow.numbers.read(node, 2, "ends")
    axes = flow.numbers.known(node, 3, "axes")
    if axes is None and not given(node, 3) and "axes" not in node.attrs and starts is not None:
        axes = list(range(len(starts)))
    steps = flow.numbers.known(node, 4)
    if axes is None or starts is None or ends is None or (steps is None and given(node, 4)):
        flow.stop(node, node.inputs[:1], f"is cut by {where(node)} at places known only at run time")
        return
    layout = flow.of(node.inputs[0])
    for i, axis in enumerate(a % len(sizes) for a in axes):
        layout = _cut(node, flow, layout, axis, fixed(sizes[axis]), (starts[i], ends[i], steps[i] if steps else 1))
    flow.put(node.outputs[0], layout, f"is cut by {where(node)}")


def _cut(node: Node, flow: Flow, layout: Layout, axis: int, size: int | None, cut: tuple[Entry, Entry, int]) -> Layout:
    block = block_at(layout, axis)
    if block is None or size is None:
        return layout
    start, end, step = cut
    if start.value is None or end.value is None or step != 1:
        why = "in steps" if step != 1 else "at a place known only at run time"
        return without(flow.freeze(layout, axis, f"is cut by {where(node)} {why}"), axis)
    first, last, _ = slice(start.value, end.value).indices(size)
    if (first, last) == (0, size):
        return layout
    if len(block.axes) > 1 or is_rigid(block.labels):
        return without(flow.freeze(layout, axis, f"is cut by {where(node)}"), axis)
    reason = f"is cut by {where(node)} at a place that something else fixes"
    if first > 0:
        flow.numbers.bind(start, Count(block.labels[:first]), reason)
    if last < size:
        flow.numbers.bind(end, Count(block.labels[:last]), reason)
    return (*without(layout, axis), Block((axis,), block.labels[first:last]))


def split(node: Node, flow: Flow) -> None:
    """Split: consecutive ranges of an axis."""
    axis = axis_of(node, 0, rank(node))
    layout, labels = flow.along(node.inputs[0], axis, f"is split by {where(node)} along another axis")
    counts, at = [], 0
    for tensor in node.outputs:
        size = _piece(tensor, axis)
        own = without(layout, axis)
        if labels is not None and size is not None and at + size <= len(labels):
            own = (*own, Block((axis,), labels[at : at + size]))
            counts.append(Count(labels[at : at + size]))
            at += size
        flow.put(tensor, own, f"is split by {where(node)}")
    if labels is None or is_rigid(labels):
        return
    stated = not given(node, 1) or flow.numbers.known(node, 1) is not None
    if at == len(labels) and len(counts) == len(node.outputs) and stated:
        flow.splits.append(Split(node, counts))
    else:
        flow.labels.pin(labels, f"is split by {where(node)} at places known only at run time")


def _piece(tensor: Tensor, axis: int) -> int | None:
    return None if tensor.is_empty() or tensor.shape is None else fixed(dims_of(tensor)[axis])


def gather(node: Node, flow: Flow) -> None:
    """Gather: positions of an axis by index. Constant indices choose labels; others need the axis whole."""
    data, index = node.inputs[0], node.inputs[1]
    axis, axes = axis_of(node, 0, rank(node)), rank(node, 1)
    chosen = flow.fixed_value(index)
    layout = flow.of(data)
    block = block_at(layout, axis)
    to = {a: a if a < axis else a - 1 + axes for a in range(rank(node)) if a != axis}
    reason = f"is indexed by {where(node)}"
    if chosen is not None and chosen.ndim == 1 and block is not None and len(block.axes) == 1:
        labels = block.labels
        flow.put(node.outputs[0], (*moved(layout, to), Block((axis,), labels[chosen])), reason)
        if not is_rigid(labels):
            flow.picks.append(Picks(node, 1, labels))
        return
    layout = flow.freeze(layout, axis, reason if chosen is not None else f"{reason} at run time")
    positions: Layout = ()
    if chosen is None:
        positions = moved(flow.of(index), {a: a + axis for a in range(axes)})
    flow.put(node.outputs[0], (*moved(without(layout, axis), to), *positions), reason)


def pad(node: Node, flow: Flow) -> None:
    """Pad: constant channels before and after are labels of their own, and leave with what they are added to."""
    sizes, dims = dims_of(node.inputs[0]), out_dims(node)
    pads = flow.numbers.read(node, 1, "pads")
    axes = flow.numbers.known(node, 3)
    if pads is None or (axes is None and given(node, 3)):
        flow.stop(node, node.inputs[:1], f"is padded by {where(node)} with sizes known only at run time")
        return
    axes = list(range(len(sizes))) if axes is None else [a % len(sizes) for a in axes]
    mode = attribute(node, "mode", "constant")
    layout = flow.of(node.inputs[0])
    for i, axis in enumerate(axes):
        before, after = pads[i], pads[i + len(axes)]
        if before.value == 0 and after.value == 0:
            continue
        size = fixed(sizes[axis])
        if mode not in ("constant", b"constant") or size is None or fixed(dims[axis]) is None:
            layout = without(flow.freeze(layout, axis, f"is padded by {where(node)}"), axis)
        else:
            layout = _grow(node, flow, layout, axis, size, before, after)
    flow.put(node.outputs[0], layout, f"is padded by {where(node)}")


def _grow(node: Node, flow: Flow, layout: Layout, axis: int, size: int, before: Entry, after: Entry) -> Layout:
    block = block_at(layout, axis)
    if before.value is None or after.value is None:
        return without(flow.freeze(layout, axis, f"is padded by {where(node)} at run time"), axis)
    amounts = before.value, after.value
    if block is not None and (len(block.axes) > 1 or min(amounts) < 0):
        return without(flow.freeze(layout, axis, f"is padded by {where(node)}"), axis)
    if min(amounts) < 0 or (block is None and size > 1):
        return layout
    if block is not None and is_rigid(block.labels) and axis != 1:
        return without(layout, axis)  # the borders of an image: nothing would be gained
    inner = flow.labels.rigid(1, f"is padded by {where(node)}") if block is None else block.labels
    ends = [flow.labels.fresh(amount) for amount in amounts]
    for entry, labels in zip((before, after), ends, strict=True):
        if len(labels):
            flow.numbers.bind(entry, Count(labels), f"is padded by {where(node)} by what something else fixes")
    return (*without(layout, axis), Block((axis,), np.concatenate([ends[0], inner, ends[1]])))


RULES: dict[str, Rule] = {"Slice": slice_, "Split": split, "Gather": gather, "Pad": pad}
