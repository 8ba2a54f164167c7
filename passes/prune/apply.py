"""Takes the chosen atoms out of a model: weights are cut, and every number that speaks of a size is stated anew."""

from collections.abc import Iterable

import numpy as np

from zc.ir.edit import Names
from zc.ir.graph import Array, Constant, Node, fixed_value
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes
from zc.passes.prune.flow import Flow, Picks, Split
from zc.passes.prune.groups import Groups
from zc.passes.prune.labels import Bools, Ints
from zc.passes.prune.layout import Block, Count, Layout
from zc.passes.prune.numbers import Entry, Source
from zc.passes.prune.sharing import reshare


def stays(groups: Groups, gone: Ints) -> Bools:
    """By label: does it stay when the classes with the roots `gone` leave?"""
    leaves = np.zeros(groups.flow.labels.count, np.bool_)
    leaves[gone] = True
    return ~leaves[groups.classes.roots]


def remove(model: Model, groups: Groups, gone: Ints) -> None:
    """Cut the weights of the model that was analysed, in place, and infer its shapes anew."""
    flow, stay = groups.flow, stays(groups, gone)
    for constant in flow.constants:
        layout = flow.of(constant)
        if not all(stay[block.labels].all() for block in layout):
            constant.values = cut(constant.values, layout, stay)
    names = Names(model.graph)
    _state_numbers(flow, stay, names)
    for pick in flow.picks:
        _state_picks(pick, stay, names)
    for split in flow.splits:
        _state_split(split, stay, names, model.opset)
    reshare(groups.copies)
    infer_shapes(model, stale=True)


def cut(values: Array, layout: Layout, stay: Bools) -> Array:
    """The array without the positions whose labels leave."""
    simple = [b for b in layout if len(b.axes) == 1]
    for block in layout:
        if block.axes == (0, 1):
            values = _cut_ragged(values, block.labels, next((b for b in simple if b.axes == (0,)), None), stay)
            simple = [b for b in simple if b.axes != (0,)]
    for block in simple:
        kept = np.flatnonzero(stay[block.labels])
        if len(kept) < len(block.labels):
            values = np.take(values, kept, axis=block.axes[0])
    return np.ascontiguousarray(values)


def _cut_ragged(values: Array, labels: Ints, rows: Block | None, stay: Bools) -> Array:
    """Cut the first two axes, where each row keeps columns of its own, as many as the others."""
    keep = stay[labels]
    if rows is not None:
        keep = keep & stay[rows.labels][:, None]
    height = int(keep.any(axis=1).sum())
    return values[keep].reshape(height, -1, *values.shape[2:])


def counted(counts: Count, stay: Bools) -> int:
    """How many positions stay along the dimension that a number counts."""
    kept = stay[counts.labels]
    others = tuple(a for a in range(kept.ndim) if a != counts.dim)
    return int(kept.any(axis=others).sum()) if others else int(kept.sum())


def _state_numbers(flow: Flow, stay: Bools, names: Names) -> None:
    changed: dict[tuple[int, int | str], list[tuple[Entry, int]]] = {}
    for entry in flow.numbers.bound:
        assert entry.source is not None
        assert entry.counts is not None
        if not stay[entry.counts.labels].all():
            key = (id(entry.source.node), entry.source.place)
            changed.setdefault(key, []).append((entry, counted(entry.counts, stay)))
    for entries in changed.values():
        source = entries[0][0].source
        assert source is not None
        _write(source, [(entry.position, value) for entry, value in entries], names)


def _write(source: Source, changes: Iterable[tuple[int, int]], names: Names) -> None:
    node, place = source.node, source.place
    if isinstance(place, str):
        value = node.attrs[place]
        if isinstance(value, list | tuple):
            value = list(value)
            for position, number in changes:
                value[position] = number
            node.attrs[place] = value
        else:
            node.attrs[place] = next(iter(changes))[1]
        return
    old = fixed_value(node.inputs[place])
    assert old is not None
    flat = old.ravel().copy()
    for position, number in changes:
        flat[position] = number
    _set_constant(node, place, flat.reshape(old.shape), names)


def _set_constant(node: Node, place: int, values: Array, names: Names) -> None:
    """Give a node another constant at an input; one that others use too is left to them."""
    old = node.inputs[place]
    if isinstance(old, Constant) and len(old.outputs) == 1:
        old.values = values
    else:
        node.inputs[place] = names.constant(old.name, values)


def _state_picks(pick: Picks, stay: Bools, names: Names) -> None:
    kept = stay[pick.labels]
    if kept.all():
        return
    old = fixed_value(pick.node.inputs[pick.place])
    assert old is not None
    place = np.cumsum(kept) - 1
    _set_constant(pick.node, pick.place, place[old[kept[old]]].astype(old.dtype), names)


def _state_split(split: Split, stay: Bools, names: Names, opset: int) -> None:
    sizes = [counted(counts, stay) for counts in split.sizes]
    if sizes == [len(counts.labels) for counts in split.sizes]:
        return
    node = split.node
    node.attrs.pop("num_outputs", None)
    if opset < 13:
        node.attrs["split"] = sizes
    elif len(node.inputs) > 1 and isinstance(node.inputs[1], Constant):
        _set_constant(node, 1, np.array(sizes, np.int64), names)
    else:
        constant = names.constant(f"{node.name or node.outputs[0].name}_sizes", np.array(sizes, np.int64))
        if len(node.inputs) > 1:
            node.inputs[1] = constant
        else:
            node.inputs.append(constant)
