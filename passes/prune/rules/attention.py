"""Attention as one operator: whole heads leave, with their queries, keys and values.

com.microsoft Attention:            X [B, S, C], weight [C, 3 * heads * width], bias [3 * heads * width]
com.microsoft MultiHeadAttention:   query, key, value [B, S, heads * width], bias [3 * heads * width]

(onnxruntime, contrib operators.) Forms with a past, packed inputs or differing widths stop what reaches them.
"""

from collections.abc import Sequence

import numpy as np

from zc.ir.graph import Node, Tensor, attribute
from zc.passes.prune.flow import Flow, Product, where
from zc.passes.prune.labels import Ints
from zc.passes.prune.layout import Block, Count, block_at
from zc.passes.prune.numbers import Entry, Source
from zc.passes.prune.rules.rule import Rule, given, rank


def attention(node: Node, flow: Flow) -> None:
    """The projection is inside: heads leave the columns of its weight."""
    heads, reason = int(attribute(node, "num_heads", 1)), f"meets in {where(node)} a value that must stay whole"
    made = _labels(flow, node.inputs[1], 1)
    sizes = list(attribute(node, "qkv_hidden_sizes", None) or [])
    why = _why_not(node, range(4, len(node.inputs))) or ("whose widths differ" if len(set(sizes)) > 1 else None)
    if made is None or len(made) % (3 * heads) or why is not None:
        flow.stop(node, node.inputs, f"reaches {where(node)}, {why or 'whose weight has no known size'}")
        return
    grid = made.reshape(3, heads, -1)
    whole = _by_head(flow, grid)
    layout, taken = flow.along(node.inputs[0], 2, f"{where(node)} sums over it")
    flow.contract(node, 0, 2, taken, _labels(flow, node.inputs[1], 0))
    _bias(node, 2, flow, made, reason)
    if given(node, 3):
        flow.pin(node.inputs[3], f"is a mask of {where(node)}")
    width = np.repeat(whole, grid.shape[2])
    flow.numbers.bind(Entry(heads, None, Source(node, "num_heads")), Count(whole), reason)
    for entry in flow.numbers.read(node, len(node.inputs), "qkv_hidden_sizes") or ():
        flow.numbers.bind(entry, Count(width), reason)
    flow.products.append(Product(node, made, node.inputs[1]))
    rest = tuple(b for b in layout if b.axes in ((0,), (1,)))
    flow.put(node.outputs[0], (*rest, Block((2,), width)), f"is made by {where(node)}")


def multi_head(node: Node, flow: Flow) -> None:
    """Queries, keys and values come from outside: their channels of a head leave together."""
    heads, reason = int(attribute(node, "num_heads", 1)), f"meets in {where(node)} a value that must stay whole"
    why = _why_not(node, range(6, len(node.inputs)))
    if why is None and (not given(node, 1) or not given(node, 2) or any(rank(node, i) != 3 for i in range(3))):
        why = "whose queries, keys and values are packed"
    if why is not None:
        flow.stop(node, node.inputs, f"reaches {where(node)}, {why}")
        return
    found = [flow.along(node.inputs[place], 2, reason) for place in range(3)]
    labels = [each for _, each in found]
    if any(each is None or len(each) % heads for each in labels):
        flow.stop(node, node.inputs, f"reaches {where(node)}, whose widths are known only at run time")
        return
    grids = [each.reshape(heads, -1) for each in labels if each is not None]
    whole = [_by_head(flow, grid[None]) for grid in grids]
    for other in whole[1:]:
        flow.labels.union(whole[0], other)
    if given(node, 3):
        _bias(node, 3, flow, np.concatenate([grid.ravel() for grid in grids]), reason)
    for place in (4, 5):
        if given(node, place):
            flow.pin(node.inputs[place], f"is a mask of {where(node)}")
    flow.numbers.bind(Entry(heads, None, Source(node, "num_heads")), Count(whole[0]), reason)
    rest = tuple(b for b in found[0][0] if b.axes in ((0,), (1,)))
    values = np.repeat(whole[0], grids[2].shape[1])
    flow.put(node.outputs[0], (*rest, Block((2,), values)), f"is made by {where(node)}")


def _by_head(flow: Flow, grid: Ints) -> Ints:
    """One label for all channels of each head; grid: [parts, heads, width]."""
    return flow.labels.tie(flow.labels.tie(grid, 2), 0)


def _bias(node: Node, place: int, flow: Flow, made: Ints, reason: str) -> None:
    if not given(node, place):
        return
    bias = _labels(flow, node.inputs[place], 0)
    if bias is None or len(bias) != len(made):
        flow.labels.pin(made, reason)
    else:
        flow.labels.union(bias, made)


def _why_not(node: Node, places: Sequence[int]) -> str | None:
    if any(given(node, place) for place in places):
        return "which keeps a past or adds a bias by position"
    if any(not t.is_empty() for t in node.outputs[1:]):
        return "which puts out a present"
    return None


def _labels(flow: Flow, tensor: Tensor, axis: int) -> Ints | None:
    block = block_at(flow.of(tensor), axis)
    return block.labels if block is not None and len(block.axes) == 1 else None


RULES: dict[str, Rule] = {"com.microsoft.Attention": attention, "com.microsoft.MultiHeadAttention": multi_head}
