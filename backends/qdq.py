"""Q/DQ in a graph, as checkers of any place read it."""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from zc.ir.graph import Array, Node, Tensor, attribute, fixed_value
from zc.ir.model import Model

QUANTISE, DEQUANTISE = "QuantizeLinear", "DequantizeLinear"


def nodes_of(model: Model, *ops: str) -> Iterator[Node]:
    """Nodes of every scope, of the given operators (in any domain) if any are named."""
    for scope in model.scopes():
        for node in scope.nodes:
            if not ops or node.op in ops:
                yield cast(Node, node)


def quantisers(model: Model) -> Iterator[Node]:
    """Every QuantizeLinear."""
    return nodes_of(model, QUANTISE)


def maker(tensor: Tensor) -> Node | None:
    """The node that makes a value."""
    return cast(Node, tensor.inputs[0]) if tensor.inputs else None


def dequantised(tensor: Tensor) -> bool:
    """Does a value come straight out of a DequantizeLinear?"""
    made = maker(tensor)
    return made is not None and made.op == DEQUANTISE


def quantised(tensor: Tensor) -> bool:
    """Is every reader of a value a QuantizeLinear, and is there one?"""
    return bool(tensor.outputs) and all(n.op == QUANTISE for n in tensor.outputs)


def scale_of(node: Node) -> Array | None:
    """The scale of a QuantizeLinear or DequantizeLinear; None where it is computed."""
    return fixed_value(node.inputs[1]) if len(node.inputs) > 1 else None


def zero_of(node: Node) -> Array | None:
    """Its zero point; None where there is none or it is computed."""
    if len(node.inputs) < 3 or node.inputs[2].is_empty():
        return None
    return fixed_value(node.inputs[2])


def codes_type(node: Node) -> Any:
    """The element type of its codes, a NumPy dtype; None where nothing says."""
    if len(node.inputs) > 2 and not node.inputs[2].is_empty() and node.inputs[2].dtype is not None:
        return np.dtype(node.inputs[2].dtype)
    codes = node.outputs[0] if node.op == QUANTISE else node.inputs[0]
    if codes.dtype is not None:
        return np.dtype(codes.dtype)
    return np.dtype(np.uint8) if node.op == QUANTISE and not attribute(node, "output_dtype", 0) else None


def stored_codes(tensor: Tensor) -> tuple[Node, Array] | None:
    """For a value that a DequantizeLinear makes of a constant: that node and the codes."""
    made = maker(tensor)
    if made is None or made.op != DEQUANTISE:
        return None
    codes = fixed_value(made.inputs[0])
    return None if codes is None else (made, codes)
