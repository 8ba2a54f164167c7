"""Shapes as values: Shape, and the operators that carry its numbers to a Reshape, Expand or Slice."""

import numpy as np

from zc.ir.graph import Node, attribute
from zc.passes.prune.flow import Flow, where
from zc.passes.prune.labels import is_rigid
from zc.passes.prune.layout import Block, Layout, block_at, count_at, dims_of, fixed
from zc.passes.prune.numbers import MAX_ENTRIES, Entry
from zc.passes.prune.rules.rule import Rule, out_dims, rank


def shape(node: Node, flow: Flow) -> None:
    """The sizes of a value: read at run time, they are right whatever leaves, if they only say sizes again."""
    layout = flow.of(node.inputs[0])
    entries = []
    for axis, dim in enumerate(dims_of(node.inputs[0])):
        block = block_at(layout, axis)
        counts = None if block is None or is_rigid(block.labels) else count_at(layout, axis)
        entries.append(Entry(fixed(dim), counts))
    start, end = attribute(node, "start", 0), attribute(node, "end", None)
    flow.numbers.put(node.outputs[0], entries[slice(start, end)])
    flow.put(node.outputs[0], (), f"is made by {where(node)}")


def size(node: Node, flow: Flow) -> None:
    """The number of elements: no label may leave."""
    flow.stop(node, node.inputs, f"its size is read at run time by {where(node)}")


def constant_of_shape(node: Node, flow: Flow) -> None:
    """One value everywhere: new labels on every axis, whose sizes are stated by the input."""
    entries = flow.numbers.read(node, 0)
    layout: Layout = ()
    for axis, dim in enumerate(out_dims(node)):
        stated = fixed(dim)
        if stated is not None and stated > 1 and entries is not None and entries[axis].value == stated:
            layout = (*layout, Block((axis,), flow.labels.fresh(stated)))
    reason = f"is made by {where(node)} with a size that something else fixes"
    flow.put(node.outputs[0], layout, reason)
    flow.bind_sizes(entries or [], node.outputs[0], reason)


def compute(node: Node, flow: Flow) -> bool:
    """Follow the numbers of `Shape` through a node. False when the node does no such thing."""
    out = node.outputs[0] if len(node.outputs) == 1 else None
    if out is None or len(dims_of(out)) > 1 or not any(flow.numbers.has(t) for t in node.inputs):
        return False
    entries: list[Entry] | None = None
    if node.op in _ARITHMETIC:
        length = int(np.prod([fixed(d) or 0 for d in dims_of(out)], dtype=np.int64))
        entries = [Entry(None) for _ in range(length)]
    elif node.op in _PASSED and rank(node) <= 1:
        entries = flow.numbers.read(node, 0)
        if node.op == "Reshape":
            flow.numbers.read(node, 1)
    elif node.op == "Concat":
        read = [flow.numbers.read(node, place) for place in range(len(node.inputs))]
        entries = _joined(read, [dims_of(t) for t in node.inputs])
    elif node.op in ("Gather", "Slice") and flow.numbers.has(node.inputs[0]):
        entries = _selected(node, flow)
    if entries is None or len(entries) > MAX_ENTRIES:
        flow.numbers.give_up(node)
        return False
    flow.numbers.put(out, entries)
    flow.put(out, (), f"is made by {where(node)}")
    return True


def _joined(read: list[list[Entry] | None], dims: list[list[int | str | None]]) -> list[Entry] | None:
    entries: list[Entry] = []
    for one, sizes in zip(read, dims, strict=True):
        length = fixed(sizes[0]) if sizes else 1
        if one is None and length is None:
            return None
        entries += one if one is not None else [Entry(None) for _ in range(length or 0)]
    return entries


def _selected(node: Node, flow: Flow) -> list[Entry] | None:
    entries = flow.numbers.read(node, 0)
    if entries is None:
        return None
    if node.op == "Gather":
        index = flow.fixed_value(node.inputs[1])
        return None if index is None else [entries[int(i)] for i in index.ravel()]
    starts, ends = flow.numbers.known(node, 1, "starts"), flow.numbers.known(node, 2, "ends")
    steps = flow.numbers.known(node, 4) or [1]
    if starts is None or ends is None:
        return None
    return entries[slice(*slice(starts[0], ends[0], steps[0]).indices(len(entries)))]


_PASSED = frozenset({"Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape"})
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Mod", "Min", "Max", "Neg", "Floor", "Ceil"})

RULES: dict[str, Rule] = {"Shape": shape, "Size": size, "ConstantOfShape": constant_of_shape}
