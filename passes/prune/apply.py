"""Takes the chosen atoms out of a model: weights are cut, and every number that speaks of a size is stated anew."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zc.ir.edit import Names
from zc.ir.graph import Array, Constant, Node, fixed_value
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes
from zc.passes.prune.flow import Flow, Split
from zc.passes.prune.groups import Groups
from zc.passes.prune.labels import Bools, Ints
from zc.passes.prune.layout import Block, Count, Layout
from zc.passes.prune.numbers import Entry
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
    edits = [*_stated_numbers(flow, stay), *_stated_picks(flow, stay)]
    names = Names(model.graph)
    _edit_constants(edits, names)
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


@dataclass(frozen=True, eq=False)
class _Edit:
    """Other values for a constant that a node takes."""

    node: Node
    place: int
    values: Array


def _stated_numbers(flow: Flow, stay: Bools) -> Iterator[_Edit]:
    """The constants of numbers that change; attributes are changed at once."""
    changed: dict[tuple[int, int | str], list[Entry]] = {}
    for entry in flow.numbers.bound:
        if entry.source is not None and entry.counts is not None and not stay[entry.counts.labels].all():
            changed.setdefault((id(entry.source.node), entry.source.place), []).append(entry)
    for entries in changed.values():
        source = entries[0].source
        assert source is not None
        numbers = {e.position: counted(e.counts, stay) for e in entries if e.counts is not None}
        if isinstance(source.place, str):
            _state_attribute(source.node, source.place, numbers)
            continue
        old = fixed_value(source.node.inputs[source.place])
        assert old is not None
        flat = old.ravel().copy()
        flat[list(numbers)] = list(numbers.values())
        yield _Edit(source.node, source.place, flat.reshape(old.shape))


def _state_attribute(node: Node, name: str, numbers: dict[int, int]) -> None:
    value = node.attrs[name]
    if isinstance(value, list | tuple):
        node.attrs[name] = [numbers.get(position, old) for position, old in enumerate(value)]
    else:
        node.attrs[name] = numbers[0]


def _stated_picks(flow: Flow, stay: Bools) -> Iterator[_Edit]:
    for pick in flow.picks:
        kept = stay[pick.labels]
        if not kept.all():
            old = fixed_value(pick.node.inputs[pick.place])
            assert old is not None
            after = np.cumsum(kept) - 1
            yield _Edit(pick.node, pick.place, after[old[kept[old]]].astype(old.dtype))


def _edit_constants(edits: Sequence[_Edit], names: Names) -> None:
    """Change a constant when all its consumers want that; else give those that do constants of their own."""
    by_constant: dict[int, list[_Edit]] = {}
    for edit in edits:
        by_constant.setdefault(id(edit.node.inputs[edit.place]), []).append(edit)
    for alike in by_constant.values():
        old = alike[0].node.inputs[alike[0].place]
        wanted: dict[bytes, Constant] = {}
        if isinstance(old, Constant) and len(alike) == len(old.outputs):
            old.values = alike[0].values
            wanted[alike[0].values.tobytes()] = old
        for edit in alike:
            key = edit.values.tobytes()
            if key not in wanted:
                wanted[key] = names.constant(old.name, edit.values)
            edit.node.inputs[edit.place] = wanted[key]


def _state_split(split: Split, stay: Bools, names: Names, opset: int) -> None:
    sizes = [counted(counts, stay) for counts in split.sizes]
    if sizes == [len(counts.labels) for counts in split.sizes]:
        return
    node = split.node
    node.attrs.pop("num_outputs", None)
    if opset < 13:
        node.attrs["split"] = sizes
    elif len(node.inputs) > 1 and isinstance(node.inputs[1], Constant):
        _edit_constants([_Edit(node, 1, np.array(sizes, np.int64))], names)
    else:
        constant = names.constant(f"{node.name or node.outputs[0].name}_sizes", np.array(sizes, np.int64))
        if len(node.inputs) > 1:
            node.inputs[1] = constant
        else:
            node.inputs.append(constant)
