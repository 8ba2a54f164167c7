"""What operators allow: which of their inputs hold data, what their bounds are, whether they can run on codes."""

import numpy as np

from zc.ir.graph import Graph, Node, Tensor, attribute, fixed_value
from zc.target import Target

CODE_MAX = 127
"""The largest code of a constant."""
FEWEST_STEPS = 4
"""A number of a constant of fewer steps than this is rounded by up to an eighth of itself, or more."""
MOST_SMALL = 0.25
"""The share of a constant's numbers that may be so small."""

Bounds = tuple[float, float]
FREE: Bounds = (-np.inf, np.inf)


def data_inputs(node: Node) -> list[Tensor]:
    """The inputs of an integer operator that hold data (Where's condition does not)."""
    return [t for t in (node.inputs[1:] if node.op == "Where" else node.inputs) if t.name]


def is_number(tensor: Tensor, graph: Graph) -> bool:
    """A constant of one element: a code represents it exactly."""
    values = fixed_value(tensor, graph)
    return values is not None and values.size == 1 and values.dtype == np.float32 and bool(np.isfinite(values).all())


def stands_as_codes(node: Node, tensor: Tensor, graph: Graph, target: Target) -> bool:
    """Is an input of an integer operator a constant that codes represent: one number, or many where the target has it?

    Many are rounded, with one scale; numbers of so differing size that the small ones would be lost stay what they
    are, since a small factor may be made up for by the weights behind it.
    """
    if node.op in {"Add", "Mul"} and is_number(tensor, graph):
        return True
    values = fixed_value(tensor, graph) if node.op in target.coded_constants else None
    if values is None or values.dtype != np.float32 or not np.isfinite(values).all() or not values.any():
        return False
    size = np.abs(values[values != 0])
    return bool((size < size.max() * (FEWEST_STEPS / CODE_MAX)).mean() <= MOST_SMALL)


def activation_bounds(node: Node, graph: Graph) -> Bounds | None:
    """The lowest and highest value that Relu or Clip lets through, if zero is one of them; else None."""
    if not node.standard:
        return None
    if node.op == "Relu":
        return (0.0, np.inf)
    if node.op != "Clip":
        return None
    limits = list(FREE)
    for i in (0, 1):
        if len(node.inputs) > i + 1 and node.inputs[i + 1].name:
            values = fixed_value(node.inputs[i + 1], graph)
            if values is None or values.size != 1:
                return None
            limits[i] = float(values.reshape(-1)[0])
        limits[i] = float(attribute(node, ("min", "max")[i], limits[i]))
    return (limits[0], limits[1]) if limits[0] <= 0 <= limits[1] else None


def moves_codes(node: Node, graph: Graph) -> str | None:
    """Why an operator of `transparent_ops` cannot run on codes as it stands, or None."""
    if node.op == "Pad":
        fill = fixed_value(node.inputs[2], graph) if len(node.inputs) > 2 and node.inputs[2].name else np.zeros(1)
        if attribute(node, "mode", "constant") == "constant" and (fill is None or fill.size != 1 or fill.any()):
            return "it pads with a value other than zero"
    if node.op == "MaxPool" and len(node.outputs) > 1 and node.outputs[1].name:
        return "it puts out indices"
    if node.op == "Resize" and attribute(node, "mode", "nearest") != "nearest":
        return "it interpolates"
    if node.op in {"Relu", "Clip"} and activation_bounds(node, graph) is None:
        return "its bounds are not constant or leave out zero"
    return None
