"""Recognising operators of two arguments: by a table of all pairs of codes, computed by onnxruntime itself.

A factor, summand or slope that is a constant in float has few distinct values: each gives a table of 256 codes.
"""

import numpy as np

from zc.ir.graph import Array, Node, Tensor
from zc.ir.model import Model
from zc.runtime import elementary
from zc.runtime.islands import pair_table, table_of, tables_of
from zc.runtime.ops import LookUp, LookUpPairs, Op
from zc.runtime.quantum import Declined, Scope, maker, read, written

OPERATORS = frozenset({"Add", "Mul", "Sub", "Div", "Min", "Max", "PRelu", "Pow"})
"""Those that compute each element from one pair, rounding as IEEE 754 says (Pow: with one constant exponent)."""

MOST_TABLES = 4096
"""Distinct values of a constant: a table of 256 codes for each."""


def pairwise(model: Model, scope: Scope, node: Node) -> Op:
    """DQ, DQ (or a constant) -> operator -> Q. What onnxruntime fuses (Add, Mul) follows its rule."""
    if len(node.inputs) != 2:
        raise Declined(f"it has {len(node.inputs)} arguments, not two")
    constant = next((t for t in node.inputs if scope.constant(t) is not None), None)
    if constant is not None:
        return _with_constant(model, scope, node, constant)
    (left, a), (right, b) = (read(scope, t) for t in node.inputs)
    target, y, passed = written(scope, node.outputs[0])
    if node.op in ("Add", "Mul") and a.signed == b.signed == y.signed:
        return elementary.binary(scope, node)
    if node.op == "Pow":
        raise Declined("its exponent is not constant")
    nodes = (node, *passed)
    whole = [*_dequantizers(node), *nodes]
    if left is right:
        if a != b:
            raise Declined("it reads the same codes in two scales")
        table = table_of(model, whole, left, target)
        return LookUp(nodes, (left.name,), (target.name,), table=table, x=a, y=y)
    table = pair_table(model, whole, left, right, target)
    return LookUpPairs(nodes, (left.name, right.name), (target.name,), table=table, operands=(a, b), y=y)


def _with_constant(model: Model, scope: Scope, node: Node, constant: Tensor) -> Op:
    values = scope.constant(constant)
    assert values is not None
    other = node.inputs[1] if node.inputs[0] is constant else node.inputs[0]
    if node.op in ("PRelu", "Pow") and other is not node.inputs[0]:
        raise Declined(f"{node.op} of a constant")
    if values.dtype != np.float32 and node.op != "Pow":
        raise Declined(f"its constant is {values.dtype}")
    source, x = read(scope, other)
    target, y, passed = written(scope, node.outputs[0])
    if values.ndim and (source.shape is None or len(source.shape) < values.ndim):
        raise Declined("its constant has more axes than what it meets")
    if node.op == "Pow" and values.size != 1:
        raise Declined("it has several exponents")
    distinct, places = _distinct(values)
    if len(distinct) > MOST_TABLES or (len(distinct) > 256 and sum(n > 1 for n in values.shape) != 1):
        raise Declined(f"its constant has {len(distinct)} values, along several axes")
    nodes = (node, *passed)
    tables = tables_of(model, [*_dequantizers(node), *nodes], source, target, constant, distinct)
    if len(distinct) == 1 and values.size == 1:
        return LookUp(nodes, (source.name,), (target.name,), table=tables[0], x=x, y=y)
    return LookUpPairs(nodes, (source.name,), (target.name,), table=tables, y=y, places=places)


def _dequantizers(node: Node) -> list[Node]:
    found = [maker(t, "DequantizeLinear") for t in node.inputs]
    return list({id(n): n for n in found if n is not None}.values())


def _distinct(values: Array) -> tuple[Array, Array]:
    """The distinct values, to the bit, and where each is: int64 in the shape of the values."""
    flat = np.ascontiguousarray(values).reshape(-1)
    _, at, places = np.unique(flat.view(f"u{flat.itemsize}"), return_index=True, return_inverse=True)
    return flat[at], places.reshape(values.shape).astype(np.int64)
