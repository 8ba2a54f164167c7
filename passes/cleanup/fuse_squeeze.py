"""A rule for a layer with a Squeeze behind it: arithmetic by channel goes in front of the Squeeze, next to the layer.

before:  Conv -> Squeeze(3) -> Add(b[1, C, 1]) -> y
after:   Conv -> Add(b[1, C, 1, 1]) -> Squeeze(3) -> y
"""

import numpy as np

from zc.ir.graph import Array, Node
from zc.passes.cleanup.dce import discard
from zc.passes.cleanup.layers import LAYERS
from zc.passes.cleanup.operands import normal_axes, rank_of
from zc.passes.cleanup.rules import Match, Rule, Site, always


def _find(node: Node, site: Site) -> Match | None:
    squeeze = site.producer(node.inputs[0], "Squeeze") or site.producer(node.inputs[1], "Squeeze")
    if squeeze is None or not site.alone(squeeze.outputs[0], node):
        return None
    layer = site.producer(squeeze.inputs[0], *LAYERS)
    if layer is None or not site.alone(squeeze.inputs[0], squeeze) or _constant(node, squeeze, site) is None:
        return None
    rank = rank_of(squeeze.inputs[0])
    if rank is None or not site.ints(squeeze, "axes", 1) or rank_of(node.outputs[0]) != rank_of(squeeze.outputs[0]):
        return None
    return node, squeeze


def _constant(node: Node, squeeze: Node, site: Site) -> Array | None:
    """The other operand, if it is constant and has no more dimensions than the value."""
    other = node.inputs[1] if node.inputs[0] is squeeze.outputs[0] else node.inputs[0]
    values, rank = site.fixed(other), rank_of(squeeze.outputs[0])
    return values if values is not None and rank is not None and values.ndim <= rank else None


def _swap(match: Match, site: Site) -> None:
    node, squeeze = match
    values, raw = _constant(node, squeeze, site), squeeze.inputs[0]
    rank, axes = rank_of(raw), site.ints(squeeze, "axes", 1)
    assert values is not None
    assert rank is not None
    assert axes is not None
    wide = values.reshape((1,) * (rank - len(axes) - values.ndim) + values.shape)
    constant = site.names.constant(
        f"{node.outputs[0].name}_wide", np.expand_dims(wide, sorted(normal_axes(axes, rank)))
    )
    between = site.names.variable(f"{node.outputs[0].name}_unsqueezed", like=raw)
    operands = [raw, constant] if node.inputs[0] is squeeze.outputs[0] else [constant, raw]
    again, attrs = [between, *squeeze.inputs[1:]], dict(squeeze.attrs)
    discard(squeeze)
    site.editor.add(Node(node.op, node.name, dict(node.attrs), operands, [between]))
    node.name = site.names.take(f"{node.outputs[0].name}_Squeeze")
    site.replace(node, "Squeeze", again, attrs)


RULES = [Rule("arithmetic in front of Squeeze", ("Add", "Sub", "Mul", "Div"), _find, always, _swap)]
