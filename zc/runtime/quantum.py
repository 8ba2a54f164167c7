"""Reading the quantisation of a graph: what a DequantizeLinear or QuantizeLinear says, and where codes come from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from zc.errors import ZcError
from zc.ir.graph import Array, Graph, Node, Tensor, attribute, describe, fixed_value
from zc.runtime.ops import Coding

MICROSOFT = "com.microsoft"


class Declined(Exception):  # noqa: N818
    """An operator that has no form on codes here; the text says why."""


@dataclass(frozen=True)
class Scope:
    """The graph, with what is looked up often."""

    graph: Graph
    name: str
    """The model's, for messages."""
    opset: int
    ends: frozenset[int]
    """Ids of the graph's outputs."""
    fed: frozenset[int]
    """Ids of the graph's inputs."""

    def constant(self, tensor: Tensor | None) -> Array | None:
        """Its array, if it cannot change at run time."""
        if tensor is None or id(tensor) in self.fed:
            return None
        return fixed_value(tensor)


def given(node: gs.Node, position: int) -> Tensor | None:
    """An input that may be left out."""
    if len(node.inputs) <= position:
        return None
    tensor = node.inputs[position]
    return tensor if tensor.name else None


def maker(tensor: Tensor | None, *ops: str) -> Node | None:
    """The node that makes a value, if it is one of these operators."""
    if tensor is None or len(tensor.inputs) != 1 or tensor.inputs[0].op not in ops:
        return None
    node = tensor.inputs[0]
    return node if isinstance(node, Node) and (node.standard or node.domain == MICROSOFT) else None


def check_scale(scope: Scope, node: gs.Node, scale: Array) -> None:
    """ZcError for a scale with which nothing can be computed."""
    values = np.asarray(scale, np.float64)
    if not np.isfinite(values).all() or (values <= 0).any() or (values < np.finfo(np.float32).tiny).any():
        bad = values[~(np.isfinite(values) & (values >= np.finfo(np.float32).tiny))].reshape(-1)[0]
        raise ZcError(
            f"{scope.name}: node '{describe(node)}': scale {bad:g} is not a positive, finite, normal number; "
            "quantise the model anew"
        )


def coding(scope: Scope, node: gs.Node, scale: Tensor | None, zero: Tensor | None) -> Coding:
    """A scale for a whole tensor. Declined where it is not constant, per channel, or not of 8 bits."""
    values, zeros = scope.constant(scale), scope.constant(zero)
    if values is None or (zero is not None and zeros is None):
        raise Declined("its scale or zero point is not constant")
    if values.dtype != np.float32:
        raise Declined(f"its scale is {values.dtype}")
    check_scale(scope, node, values)
    if values.size != 1 or (zeros is not None and zeros.size != 1):
        raise Declined("activations are quantised by channel or by block")
    if zeros is None:
        return Coding(np.float32(values.reshape(-1)[0]), 0)
    if zeros.dtype not in (np.uint8, np.int8):
        raise Declined(f"its codes are {zeros.dtype}, not 8 bits")
    signed = zeros.dtype == np.int8
    return Coding(np.float32(values.reshape(-1)[0]), int(zeros.reshape(-1)[0]) + 128 * signed, signed)


def node_coding(scope: Scope, node: gs.Node) -> Coding:
    """That of a QuantizeLinear or DequantizeLinear."""
    found = coding(scope, node, given(node, 1), given(node, 2))
    if given(node, 2) is None and _code_type(node) == np.int8:
        return Coding(found.scale, 128, True)
    return found


def _code_type(node: gs.Node) -> object:
    tensor = node.inputs[0] if node.op == "DequantizeLinear" else node.outputs[0]
    if node.op == "QuantizeLinear" and node.attrs.get("output_dtype") == 3:
        return np.dtype(np.int8)
    return tensor.dtype


def read(scope: Scope, tensor: Tensor | None) -> tuple[Tensor, Coding]:
    """The codes behind a float value. Declined unless a DequantizeLinear makes it from codes of 8 bits."""
    node = maker(tensor, "DequantizeLinear")
    if node is None:
        raise Declined(f"'{tensor.name if tensor is not None else ''}' is not read from codes")
    if node.inputs[0].dtype not in (np.uint8, np.int8):
        raise Declined(f"'{node.inputs[0].name}' has codes of {node.inputs[0].dtype}")
    return node.inputs[0], node_coding(scope, node)


def written(scope: Scope, tensor: Tensor) -> tuple[Tensor, Coding, list[Node]]:
    """The codes that a float value is rounded to, and the nodes on the way: an activation that the range expresses.

    Declined where something else reads the value.
    """
    passed: list[Node] = []
    while True:
        if id(tensor) in scope.ends:
            raise Declined(f"'{tensor.name}' is an output of the model in float")
        readers = list(tensor.outputs)
        if len(readers) != 1:
            raise Declined(f"'{tensor.name}' is read by {len(readers)} nodes in float")
        node = readers[0]
        if node.op == "QuantizeLinear" and node.inputs[0] is tensor:
            found = node_coding(scope, node)
            for activation in passed:
                _check_absorbed(scope, activation, found)
            assert isinstance(node, Node)
            return node.outputs[0], found, [*passed, node]
        if node.op not in {"Relu", "Clip"} or passed:
            raise Declined(f"'{tensor.name}' is read in float by {node.op} '{describe(node)}'")
        assert isinstance(node, Node)
        passed.append(node)
        tensor = node.outputs[0]


def _check_absorbed(scope: Scope, node: Node, y: Coding) -> None:
    """Declined unless rounding to codes does what the activation does."""
    low, high = clip_bounds(scope, node)
    if low > float(np.float32(-y.zero) * y.scale) + EPSILON:
        raise Declined(f"the codes of '{node.outputs[0].name}' begin below the bounds of {node.op}")
    if high < float(np.float32(255 - y.zero) * y.scale) - EPSILON:
        raise Declined(f"the codes of '{node.outputs[0].name}' end above the bounds of {node.op}")


EPSILON = float(np.finfo(np.float32).eps)
"""How far onnxruntime lets a bound be inside the range of the codes and still drops the activation."""


def clip_bounds(scope: Scope, node: Node) -> tuple[float, float]:
    """Of Relu or Clip. Declined where they are not constant."""
    if node.op == "Relu":
        return 0.0, np.inf
    bounds = [-np.inf, np.inf]
    for i, key in enumerate(("min", "max")):
        tensor = given(node, i + 1)
        values = scope.constant(tensor)
        if tensor is not None:
            if values is None or values.size != 1:
                raise Declined("its bounds are not constant")
            bounds[i] = float(values.reshape(-1)[0])
        bounds[i] = float(attribute(node, key, bounds[i]))
    return bounds[0], bounds[1]


def pair(values: Sequence[int] | None, default: int) -> tuple[int, int]:
    """Two sizes of an attribute; of one (1-D), the second."""
    if not values:
        return default, default
    return (int(values[0]), int(values[1])) if len(values) == 2 else (1, int(values[0]))
