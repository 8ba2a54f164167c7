"""Which initializers of a model are weights that training may change."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from zc.ir.graph import Constant, Node, Tensor, attribute, describe
from zc.ir.model import Model

Kind = Literal["weight", "codes"]
Matrices = tuple[int, int, int]
"""How many matrices a weight is, and their rows and columns."""

_WEIGHTS: dict[str, frozenset[int]] = {
    "Conv": frozenset({1, 2}),
    "ConvTranspose": frozenset({1, 2}),
    "Gemm": frozenset({0, 1, 2}),
    "MatMul": frozenset({0, 1}),
    "Einsum": frozenset(range(8)),
    "BatchNormalization": frozenset({1, 2}),
    "InstanceNormalization": frozenset({1, 2}),
    "GroupNormalization": frozenset({1, 2}),
    "LayerNormalization": frozenset({1, 2}),
    "RMSNormalization": frozenset({1}),
    "LSTM": frozenset({1, 2, 3, 5, 6, 7}),
    "GRU": frozenset({1, 2, 3, 5}),
    "RNN": frozenset({1, 2, 3, 5}),
    "PRelu": frozenset({1}),
    "Gather": frozenset({0}),
    "Add": frozenset({0, 1}),
    "Sub": frozenset({0, 1}),
    "Mul": frozenset({0, 1}),
    "Div": frozenset({1}),
}
"""By operator, the inputs that hold weights where they are constant."""
_LIGHT = frozenset({"Add", "Sub", "Mul", "Div"})
_FACTORS: dict[str, frozenset[int]] = {
    "Conv": frozenset({1}),
    "ConvTranspose": frozenset({1}),
    "Gemm": frozenset({0, 1}),
    "MatMul": frozenset({0, 1}),
    "Einsum": frozenset(range(8)),
    "LSTM": frozenset({1, 2}),
    "GRU": frozenset({1, 2}),
    "RNN": frozenset({1, 2}),
}
"""By operator, the inputs that it multiplies with, unlike its biases."""
_FILTERS = frozenset({"Conv", "ConvTranspose"})
_MOVES = frozenset({"Identity", "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Cast", "Flatten"})
_LARGEST = 1e3
"""Vectors with larger numbers are masks, not weights."""


@dataclass(frozen=True, eq=False)
class Role:
    """An initializer that training may change."""

    constant: Constant
    kind: Kind
    """weight: floats as they are; codes: integers that a DequantizeLinear reads."""
    decays: bool
    """Does weight decay apply? To the weights of layers, not to biases and scales."""
    reader: Node
    """The DequantizeLinear that reads codes; of weights the first layer."""
    read: Tensor
    """Where training puts its numbers into the graph: the initializer, or a Cast of codes behind it."""
    matrices: Matrices | None = None
    """As what a layer multiplies with it: filters as one matrix, each a row. None for biases, scales of norms, tables
    that rows are gathered from, and filters of groups, which are many small matrices."""


@dataclass(frozen=True)
class Left:
    """A weight that training leaves alone, and why."""

    name: str
    why: str


def find_roles(model: Model) -> tuple[list[Role], list[Left]]:
    """The initializers to train in the order of the model, and weights of layers that cannot be."""
    inputs = {id(t) for scope in model.scopes() for t in scope.inputs}
    found: list[Role] = []
    left: list[Left] = []
    for constant in model.constants():
        uses = list(_uses(constant))
        if not uses or np.dtype(constant.dtype).kind in "OUSb":
            continue
        kind: Kind
        read: Tensor
        if any(node.op == "DequantizeLinear" and at == 0 for node, at in uses):
            why, kind, read = _why_not_codes(constant, uses), "codes", uses[0][0].inputs[0]
            layers = [use for node, _ in uses for out in node.outputs for use in _uses(out)]
        elif _floating(constant) and any(at in _WEIGHTS.get(node.op, ()) for node, at in uses):
            why, kind, read = _why_not_weight(constant, uses), "weight", constant
            layers = uses
        else:
            continue
        if id(constant) in inputs:
            why = "it is a graph input, so its values can change at run time"
        if why is None:
            decays = len(constant.shape) > 1 and any(at in _FACTORS.get(node.op, ()) for node, at in layers)
            found.append(Role(constant, kind, decays, uses[0][0], read, _matrices(constant, layers)))
        elif why:
            left.append(Left(constant.name, why))
    return found, left


def _uses(tensor: Tensor) -> Iterator[tuple[Node, int]]:
    """The nodes that read a value and at which input, looking through what only moves it."""
    for consumer in {id(c): c for c in tensor.outputs}.values():
        for at, one in enumerate(consumer.inputs):
            if one is not tensor:
                continue
            if consumer.op in _MOVES and at == 0:
                yield from (use for out in consumer.outputs for use in _uses(out))
            else:
                yield cast(Node, consumer), at


def _matrices(constant: Constant, uses: list[tuple[Node, int]]) -> Matrices | None:
    """See `Role.matrices`."""
    shape = tuple(constant.shape)
    if len(shape) < 2 or not uses:
        return None
    if any(node.op == "Einsum" or at not in _FACTORS.get(node.op, ()) for node, at in uses):
        return None
    if all(node.op in _FILTERS and attribute(node, "group", 1) == 1 for node, _ in uses):
        return 1, shape[0], math.prod(shape[1:])
    if not any(node.op in _FILTERS for node, _ in uses):
        return math.prod(shape[:-2]), shape[-2], shape[-1]
    return None


def _floating(constant: Constant) -> bool:
    return np.dtype(constant.dtype).name in ("float32", "float64", "float16", "bfloat16")


def _why_not_weight(constant: Constant, uses: list[tuple[Node, int]]) -> str | None:
    """None if it may be trained, "" for what is no weight, else the reason to tell."""
    heavy = any(node.op not in _LIGHT for node, at in uses if at in _WEIGHTS.get(node.op, ()))
    if not heavy and (constant.size < 2 or not _plausible(constant)):
        return ""
    for node, at in uses:
        if node.op == "Gather" and len(constant.shape) < 2:
            return ""
        if at not in _WEIGHTS.get(node.op, ()):
            return f"node '{describe(node)}' ({node.op}) reads it too, as something else than a weight"
    return None


def _plausible(constant: Constant) -> bool:
    values = np.abs(constant.values.astype(np.float64))
    return bool(np.isfinite(values).all() and values.max() < _LARGEST)


def _why_not_codes(constant: Constant, uses: list[tuple[Node, int]]) -> str | None:
    if not all(node.op == "DequantizeLinear" and at == 0 for node, at in uses):
        return "its codes are read by other nodes than DequantizeLinear"
    if len({tuple(id(t) for t in node.inputs[1:]) for node, _ in uses}) > 1:
        return "its codes are read with several scales"
    if "int" not in np.dtype(constant.dtype).name:
        return f"its codes are of type {np.dtype(constant.dtype).name}"
    read = uses[0][0].inputs[0]
    through = [node.op for node in read.inputs]
    if any(node.inputs[0] is not read for node, _ in uses) or (read is not constant and through != ["Cast"]):
        return "its codes are moved on the way to DequantizeLinear"
    if not all(isinstance(t, Constant) for node, _ in uses for t in node.inputs[1:]):
        return "its scale is computed at run time"
    return None
