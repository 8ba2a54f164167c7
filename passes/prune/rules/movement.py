"""Operators that move whole axes or copy along them: Transpose, Concat, Squeeze, Unsqueeze, Expand, Tile."""

import numpy as np

from zc.ir.graph import Node, attribute
from zc.passes.prune.flow import Flow, where
from zc.passes.prune.labels import Ints
from zc.passes.prune.layout import Block, Layout, block_at, dims_of, fixed, moved, without
from zc.passes.prune.rules.rule import Rule, axis_of, out_dims, rank


def transpose(node: Node, flow: Flow) -> None:
    """Output axis i is input axis perm[i]."""
    axes = rank(node)
    perm = attribute(node, "perm", list(range(axes))[::-1])
    layout = moved(flow.of(node.inputs[0]), {int(source): to for to, source in enumerate(perm)})
    flow.put(node.outputs[0], layout, f"is made by {where(node)}")


def concat(node: Node, flow: Flow) -> None:
    """Labels stand one after the other along the axis; along the others the inputs are tied."""
    reason = f"is joined in {where(node)} along another axis"
    dims = out_dims(node)
    axis = axis_of(node, 1, len(dims))
    pieces: list[Ints] = []
    parts: list[tuple[Layout, list[int | str | None]]] = []
    known = True
    for tensor in node.inputs:
        layout, labels = flow.along(tensor, axis, reason)
        sizes = dims_of(tensor)
        size = fixed(sizes[axis])
        if labels is None and size is not None:
            labels = flow.labels.rigid(size, f"{where(node)} takes it from '{tensor.name}', which must stay whole")
        if labels is None:
            known = False
        else:
            pieces.append(labels)
        parts.append((without(layout, axis), [*sizes[:axis], 1, *sizes[axis + 1 :]]))
    others = flow.align(parts, reason)
    if not known:
        for piece in pieces:
            flow.labels.pin(piece, f"{where(node)} joins it with a value whose size is known only at run time")
        flow.put(node.outputs[0], others, reason)
        return
    flow.put(node.outputs[0], (*others, Block((axis,), np.concatenate(pieces))), reason)


def squeeze(node: Node, flow: Flow) -> None:
    """Axes of size 1 go."""
    sizes = dims_of(node.inputs[0])
    axes = flow.numbers.known(node, 1, "axes")
    gone = {i for i, d in enumerate(sizes) if d == 1} if axes is None else {a % len(sizes) for a in axes}
    kept = [a for a in range(len(sizes)) if a not in gone]
    flow.put(
        node.outputs[0],
        moved(flow.of(node.inputs[0]), {a: i for i, a in enumerate(kept)}),
        f"is made by {where(node)}",
    )


def unsqueeze(node: Node, flow: Flow) -> None:
    """Axes of size 1 come."""
    total = len(out_dims(node))
    axes = flow.numbers.known(node, 1, "axes")
    if axes is None:
        flow.stop(node, node.inputs, f"reaches {where(node)}, whose axes are known only at run time")
        return
    new = {a % total for a in axes}
    kept = [a for a in range(total) if a not in new]
    layout = moved(flow.of(node.inputs[0]), dict(enumerate(kept)))
    flow.put(node.outputs[0], layout, f"is made by {where(node)}")


def expand(node: Node, flow: Flow) -> None:
    """Axes of size 1 are repeated to a stated size: new labels, for the size can be stated anew."""
    reason = f"is repeated by {where(node)} to a size that something else fixes"
    sizes, dims = dims_of(node.inputs[0]), out_dims(node)
    shift = len(dims) - len(sizes)
    layout = moved(flow.of(node.inputs[0]), {a: a + shift for a in range(len(sizes))})
    entries = flow.numbers.read(node, 1)
    behind = len(dims) - len(entries or ())
    for axis, dim in enumerate(dims):
        size, source = fixed(dim), 1 if axis < shift else sizes[axis - shift]
        stated = entries is not None and axis >= behind and entries[axis - behind].value == size
        if size is not None and size > 1 and source == 1 and stated:
            layout = (*layout, Block((axis,), flow.labels.fresh(size)))
    flow.put(node.outputs[0], layout, reason)
    _bind_stated(node, flow, behind, reason)


def _bind_stated(node: Node, flow: Flow, behind: int, reason: str) -> None:
    """The stated sizes follow the labels; a stated 1 leaves an axis as it is."""
    layout = flow.of(node.outputs[0])
    entries = flow.numbers.read(node, 1)
    for axis in range(max(behind, 0), len(out_dims(node))):
        block = block_at(layout, axis)
        if block is None:
            continue
        if entries is None:
            flow.labels.pin(block.labels, reason)
        elif entries[axis - behind].value != 1:
            flow.bind_sizes([entries[axis - behind]], node.outputs[0], reason, first=axis)


def tile(node: Node, flow: Flow) -> None:
    """Repeated axes repeat their labels."""
    repeats = flow.numbers.known(node, 1)
    if repeats is None:
        flow.stop(node, node.inputs, f"reaches {where(node)}, whose repeats are known only at run time")
        return
    reason = f"is repeated by {where(node)}"
    layout = flow.of(node.inputs[0])
    for axis, count in enumerate(repeats):
        if count != 1:
            layout = flow.alone(layout, axis, reason)
            block = block_at(layout, axis)
            if block is not None:
                layout = (*without(layout, axis), Block((axis,), np.tile(block.labels, count)))
    flow.put(node.outputs[0], layout, reason)


RULES: dict[str, Rule] = {
    "Transpose": transpose,
    "Concat": concat,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Expand": expand,
    "Tile": tile,
}
