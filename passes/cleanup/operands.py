"""What the rules ask of a node and its operands: constants, axes in either form, shapes, element types."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from zc.ir.graph import Array, Constant, Graph, Node, Tensor, fixed_value
from zc.ir.model import Model
from zc.ir.spec import Dim
from zc.pipeline.base import PassResult

VAGUE = frozenset({"", "?", "-1", "*", "None", "none", "unk", "unknown", "dynamic"})
"""Names that exporters give to every dimension they know nothing of: equal names, but not equal sizes."""

OLDEST = 7
"""Below this operator set arithmetic broadcasts by attributes; nothing here reads them."""


def too_old(model: Model) -> PassResult:
    """The result of a pass on a model of an operator set that it does not know."""
    result = PassResult(False)
    result.declined(model.name, f"operator set {model.opset} is older than {OLDEST}; convert the model to a newer one")
    return result


def computing_scopes(model: Model) -> list[Graph]:
    """The main graph and the bodies in it, outer ones first; not the functions, whose inputs may be anything."""
    return [model.graph, *cast(Any, model.graph.subgraphs(recursive=True))]


def overridable(model: Model) -> frozenset[int]:
    """Ids of the initializers that a caller may replace, because the graph lists them as inputs too."""
    return frozenset(id(t) for scope in model.scopes() for t in scope.inputs if isinstance(t, Constant))


def fixed(tensor: Tensor, loose: frozenset[int], limit: int | None = None) -> Array | None:
    """The array of a tensor that never changes at run time, else None. `limit`: only when it has so few elements."""
    if isinstance(tensor, Constant):
        if id(tensor) in loose or (limit is not None and tensor.size > limit):
            return None
        return tensor.values
    if not tensor.inputs:
        return None
    value = fixed_value(tensor)
    return None if value is None or (limit is not None and value.size > limit) else value


def standard(node: gs.Node, *ops: str) -> bool:
    """Is the node one of these operators of ONNX itself?"""
    return node.op in ops and cast(Node, node).standard


def given(node: gs.Node, index: int) -> Tensor | None:
    """The input at `index`, or None when it is absent or empty."""
    if index >= len(node.inputs) or node.inputs[index].is_empty():
        return None
    return node.inputs[index]


def made_by(tensor: Tensor) -> Node | None:
    """The node that computes a value, or None for inputs and constants."""
    return cast(Node, tensor.inputs[0]) if len(tensor.inputs) == 1 else None


def plain(node: gs.Node, name: str, default: Any = None) -> Any:
    """An attribute's value; the default also for what has no plain value (references in functions)."""
    value = node.attrs.get(name, default)
    return default if isinstance(value, onnx.AttributeProto) else value


def shape_of(tensor: Tensor) -> list[Dim] | None:
    """The shape, vague names taken for unknown; None when the rank is unknown."""
    if tensor.shape is None:
        return None
    return [None if (isinstance(d, str) and d in VAGUE) or (isinstance(d, int) and d < 0) else d for d in tensor.shape]


def rank_of(tensor: Tensor) -> int | None:
    """The number of dimensions, or None."""
    return None if tensor.shape is None else len(tensor.shape)


def same_shape(a: Tensor, b: Tensor) -> bool:
    """Is it certain that two values have one shape, of known or equally named dimensions?"""
    left, right = shape_of(a), shape_of(b)
    return left is not None and right is not None and left == right and None not in left


def is_float(tensor: Tensor) -> bool:
    """Is the element type float32 or float64, the types in which weights may be rewritten without visible rounding?"""
    return tensor.dtype is not None and np.dtype(tensor.dtype) in (np.float32, np.float64)


def normal_axes(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Axes counted from the front."""
    return tuple(a + rank if a < 0 else a for a in axes)


def unused(tensor: Tensor) -> bool:
    """Does no node take the value? (It may still be an output of the graph.)"""
    return not tensor.outputs
