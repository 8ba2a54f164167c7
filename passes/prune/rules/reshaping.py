"""Reshape and Flatten: axes are split and merged, and their labels with them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zc.ir.graph import Node, attribute
from zc.ir.spec import Dim
from zc.passes.prune.flow import Flow, where
from zc.passes.prune.labels import Ints
from zc.passes.prune.layout import Block, Layout, dims_of, fixed, moved
from zc.passes.prune.rules.rule import Rule, out_dims


@dataclass(frozen=True)
class Regroup:
    """Input axes that become output axes, elements in the same order. Open: some size is known only at run time."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    is_open: bool = False

    @property
    def renames(self) -> bool:
        """Is it one axis that stays as it is?"""
        return len(self.before) == len(self.after) == 1 and not self.is_open


def reshape(node: Node, flow: Flow) -> None:
    """Reshape: the numbers that state the new shape count the labels of the new axes."""
    entries = flow.numbers.read(node, 1)
    before, after = dims_of(node.inputs[0]), out_dims(node)
    for axis, entry in enumerate(entries or ()):
        if entry.value == 0 and not int(attribute(node, "allowzero", 0)) and axis < len(before):
            after[axis] = before[axis]
    _regroup(node, flow, factors(before, after))
    reason = f"is reshaped by {where(node)} to a size that something else fixes"
    if entries is None:
        flow.pin(node.outputs[0], f"is reshaped by {where(node)} to a shape known only at run time")
    else:
        flow.bind_sizes(entries, node.outputs[0], reason)


def flatten(node: Node, flow: Flow) -> None:
    """Flatten: two groups of axes, each merged into one."""
    total = len(dims_of(node.inputs[0]))
    axis = int(attribute(node, "axis", 1))
    axis = axis + total if axis < 0 else axis
    dims = dims_of(node.inputs[0])
    groups = []
    for after, axes in enumerate((tuple(range(axis)), tuple(range(axis, total)))):
        unknown = sum(fixed(dims[a]) is None for a in axes)
        groups.append(Regroup(axes, (after,), is_open=unknown > 0 and len([a for a in axes if dims[a] != 1]) > 1))
    _regroup(node, flow, groups)


def factors(before: Sequence[Dim], after: Sequence[Dim]) -> list[Regroup]:
    """The smallest groups of axes with equal products, from both ends; what is left between them is open.

    >>> [(g.before, g.after) for g in factors(["N", 12, 7], ["N", 3, 4, 7])]
    [((0,), (0,)), ((1,), (1, 2)), ((2,), (3,))]
    """
    front = _match(before, after)
    used_before = sum(len(g.before) for g in front)
    used_after = sum(len(g.after) for g in front)
    rest_before, rest_after = list(before[used_before:]), list(after[used_after:])
    back = _match(rest_before[::-1], rest_after[::-1])
    ends = len(before) - 1, len(after) - 1
    flipped = [
        Regroup(tuple(ends[0] - a for a in g.before[::-1]), tuple(ends[1] - a for a in g.after[::-1]))
        for g in back[::-1]
    ]
    stop = len(before) - sum(len(g.before) for g in back), len(after) - sum(len(g.after) for g in back)
    middle = Regroup(tuple(range(used_before, stop[0])), tuple(range(used_after, stop[1])), is_open=True)
    return [*front, *([middle] if middle.before or middle.after else []), *flipped]


def _match(before: Sequence[Dim], after: Sequence[Dim]) -> list[Regroup]:
    """Groups from the front, as long as sizes are known or plainly the same."""
    groups: list[Regroup] = []
    i = j = 0
    while i < len(before) and j < len(after):
        if before[i] is not None and before[i] == after[j]:
            groups.append(Regroup((i,), (j,)))
            i, j = i + 1, j + 1
            continue
        found = _equal_products(before[i:], after[j:])
        if found is None:
            break
        groups.append(Regroup(tuple(range(i, i + found[0])), tuple(range(j, j + found[1]))))
        i, j = i + found[0], j + found[1]
    return groups


def _equal_products(before: Sequence[Dim], after: Sequence[Dim]) -> tuple[int, int] | None:
    """How many of the first axes on either side have the same product, at least one each."""
    i = j = 0
    left = right = 1
    while i == 0 or left != right:
        take_left = i == 0 or (j > 0 and left < right)
        side, at = (before, i) if take_left else (after, j)
        size = fixed(side[at]) if at < len(side) else None
        if size is None or size < 1:
            return None
        if take_left:
            left, i = left * size, i + 1
            if j == 0:
                size = fixed(after[0]) if after else None
                if size is None or size < 1:
                    return None
                right, j = size, 1
        else:
            right, j = right * size, j + 1
    return i, j


def _regroup(node: Node, flow: Flow, groups: Sequence[Regroup]) -> None:
    """Carry the layout of the first input through the groups of axes to the first output."""
    before, after = dims_of(node.inputs[0]), out_dims(node)
    layout = flow.of(node.inputs[0])
    merged = f"is merged by {where(node)} with another axis"
    result: list[Block] = []
    for group in groups:
        if group.renames:
            continue
        for block in [b for b in layout if set(b.axes) & set(group.before)]:
            for axis in block.axes:
                if axis not in group.before:
                    layout = flow.freeze(layout, axis, merged)
        inside = [b for b in layout if b.axes and set(b.axes) <= set(group.before)]
        if group.is_open:
            for block in inside:
                flow.labels.pin(
                    block.labels, f"is reshaped by {where(node)} together with a size known only at run time"
                )
        else:
            result += _carry(flow, group, inside, (before, after), merged)
    renamed = {g.before[0]: g.after[0] for g in groups if g.renames}
    whole = f"is reshaped by {where(node)} from axes that must stay whole"
    flow.put(node.outputs[0], (*result, *moved(layout, renamed)), whole)


def _carry(
    flow: Flow, group: Regroup, inside: Sequence[Block], dims: tuple[Sequence[Dim], Sequence[Dim]], reason: str
) -> Layout:
    """One block of the group in its new form; where several could lose positions, the largest one may."""
    live = [b for b in inside if not flow.labels.pinned(b.labels).all()]
    if not live:
        return ()
    main = max(live, key=lambda b: b.labels.size)
    for block in live:
        if block is not main:
            flow.labels.pin(block.labels, reason)
    sizes = [fixed(dims[0][a]) or 1 for a in group.before]
    shape = [size if axis in main.axes else 1 for axis, size in zip(group.before, sizes, strict=True)]
    whole: Ints = np.broadcast_to(main.labels.reshape(shape), sizes)
    targets = [fixed(dims[1][a]) or 1 for a in group.after]
    labels = np.ascontiguousarray(whole).reshape(targets)
    # Axes along which nothing changes do not take part: channels that were flattened with an image and come back.
    axes = list(group.after)
    for dim in range(len(axes) - 1, -1, -1):
        if len(axes) > 1:
            roots = flow.labels.find(labels)
            first = roots.take([0], axis=dim)
            if (roots == first).all():
                labels = np.asarray(labels.take(0, axis=dim))
                del axes[dim]
    return (Block(tuple(axes), labels),) if labels.size > 1 else ()


RULES: dict[str, Rule] = {"Reshape": reshape, "Flatten": flatten}
