"""What a rule is, and what rules share."""

from collections.abc import Callable

from zc.ir.graph import Node, attribute
from zc.ir.spec import Dim
from zc.passes.prune.flow import Flow
from zc.passes.prune.layout import dims_of

Rule = Callable[[Node, Flow], None]
"""Reads the layouts of a node's inputs and writes those of its outputs. All ranks are known."""


def rank(node: Node, place: int = 0) -> int:
    """Number of axes of an input."""
    return len(dims_of(node.inputs[place]))


def out_dims(node: Node) -> list[Dim]:
    """Dimensions of the first output."""
    return dims_of(node.outputs[0])


def axis_of(node: Node, default: int, axes: int, name: str = "axis") -> int:
    """An attribute that names an axis, counted from the front."""
    axis = int(attribute(node, name, default))
    return axis + axes if axis < 0 else axis


def given(node: Node, place: int) -> bool:
    """Does the node have this input?"""
    return place < len(node.inputs) and not node.inputs[place].is_empty()
