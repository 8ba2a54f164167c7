"""LSTM, GRU and RNN: a hidden unit leaves with its rows in every gate, its column in the recurrence, and its state.

    X [T, B, I]   W [D, gates * H, I]   R [D, gates * H, H]   B [D, 2 * gates * H]   P [D, 3 * H]      (D directions)
    Y [T, D, B, H]   Y_h, Y_c [D, B, H]

Both directions lose the same units: they share the size H.
"""

import numpy as np

from zc.ir.graph import Node, Tensor, attribute
from zc.passes.prune.flow import Flow, Product, where
from zc.passes.prune.labels import Ints
from zc.passes.prune.layout import Block, Count, Layout, block_at
from zc.passes.prune.numbers import Entry, Source
from zc.passes.prune.rules.rule import Rule, given

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(node: Node, flow: Flow) -> None:
    """All three kinds; the recurrence sums over the units itself, by R."""
    gates, reason = GATES[node.op], f"enters {where(node)}"
    weights = _labels(flow, node.inputs[1], 1)
    recurrence = _labels(flow, node.inputs[2], 1), _labels(flow, node.inputs[2], 2)
    if weights is None or recurrence[0] is None or recurrence[1] is None or len(weights) % gates:
        flow.stop(node, node.inputs, f"reaches {where(node)}, whose weights are of a size known only at run time")
        return
    if int(attribute(node, "layout", 0)):
        flow.stop(node, node.inputs, f"reaches {where(node)}, whose batch comes first (layout=1)")
        return
    for place in (1, 2, 3, 7):
        directions = _labels(flow, node.inputs[place], 0) if given(node, place) else None
        if directions is not None:
            flow.labels.pin(directions, f"is a direction of {where(node)}")
    units = flow.labels.tie(weights.reshape(gates, -1), 0)
    flow.labels.union(recurrence[0].reshape(gates, -1), units[None])
    flow.contract(node, 2, 2, recurrence[1], units)
    for block in flow.of(node.inputs[0]):
        if 0 in block.axes:  # a step that reads zeros still moves the state
            flow.labels.pin(block.labels.reshape(-1), f"is a step in time of {where(node)}")
    layout, taken = flow.along(node.inputs[0], 2, f"{where(node)} sums over it")
    flow.contract(node, 0, 2, taken, _labels(flow, node.inputs[1], 2))
    for place, parts in ((3, 2 * gates), (7, 3)):
        if given(node, place):
            vector = _labels(flow, node.inputs[place], 1)
            if vector is None or len(vector) != parts * len(units):
                flow.labels.pin(units, reason)
            else:
                flow.labels.union(vector.reshape(parts, -1), units[None])
    if given(node, 4):
        flow.pin(node.inputs[4], reason)
    for place in (5, 6):
        if given(node, place):
            _state(node.inputs[place], units, flow, reason)
    flow.numbers.bind(Entry(len(units), None, Source(node, "hidden_size")), Count(units), reason)
    flow.products.append(Product(node, weights, node.inputs[1]))
    _put(node, flow, layout, units, f"is made by {where(node)}")


def _put(node: Node, flow: Flow, layout: Layout, units: Ints, reason: str) -> None:
    directions = int(node.inputs[1].shape[0])
    each = np.ascontiguousarray(np.broadcast_to(units, (directions, len(units))))
    made = [t for t in node.outputs if not t.is_empty()]
    for tensor in made:
        axes = (1, 3) if tensor is node.outputs[0] else (0, 2)
        block = Block(axes, each) if directions > 1 else Block(axes[1:], units)
        steps = tuple(b for b in layout if b.axes == (0,)) if axes == (1, 3) else ()
        flow.put(tensor, (*steps, block), reason)


def _state(tensor: Tensor, units: Ints, flow: Flow, reason: str) -> None:
    """What the units begin with, [D, B, H]."""
    _, state = flow.along(tensor, 2, reason)
    if state is None:
        flow.labels.pin(units, f"{reason} with a state whose size is known only at run time")
    else:
        flow.labels.union(state, units)


def _labels(flow: Flow, tensor: Tensor, axis: int) -> Ints | None:
    block = block_at(flow.of(tensor), axis)
    return block.labels if block is not None and len(block.axes) == 1 else None


RULES: dict[str, Rule] = dict.fromkeys(GATES, recurrent)
