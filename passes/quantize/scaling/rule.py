"""What a rule is, and what rules share."""

from collections.abc import Callable
from typing import Any

from zc.ir.graph import Node, Tensor, attribute
from zc.ir.spec import Dim
from zc.passes.quantize.scaling.flow import Flow, given, rank

Rule = Callable[[Node, Flow], None]
"""Reads the layouts of a node's inputs and writes those of its outputs. All ranks are known."""


def axis_of(node: Node, default: int, axes: int) -> int:
    """The attribute `axis`, counted from the front."""
    axis = int(attribute(node, "axis", default))
    return axis + axes if axis < 0 else axis


def dims_of(tensor: Tensor) -> list[Dim]:
    """The dimensions of a value of known rank; negative sizes count as unknown."""
    return [None if isinstance(d, int) and d < 0 else d for d in tensor.shape]


def size_of(tensor: Tensor, axis: int) -> int | None:
    """The size of an axis where it is known before run time."""
    dim = dims_of(tensor)[axis]
    return dim if isinstance(dim, int) else None


def numbers(node: Node, flow: Flow, place: int, name: str | None = None) -> list[int] | None:
    """Whole numbers that a node takes at an input or, in older forms, from an attribute; None if not known."""
    if given(node, place):
        values = flow.fixed_value(node.inputs[place])
        return None if values is None else [int(v) for v in values.reshape(-1)]
    found: Any = attribute(node, name, None) if name is not None else None
    return None if found is None else [int(v) for v in found]


def pass_on(node: Node, flow: Flow) -> None:
    """f(s x) = s f(x), element by element: the layout passes."""
    layout = flow.of(node.inputs[0])
    for tensor in node.outputs:
        if tensor.name and rank(tensor) == layout.ndim:
            flow.put(tensor, layout)
