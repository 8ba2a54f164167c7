"""Rules for rows that are picked from a constant table.

A product of one-hot rows and a matrix picks rows of the matrix; arithmetic on picked rows is arithmetic on the table,
done once, before the model runs. Both are exact.
"""

import math

import numpy as np

from zc.ir.graph import Array, Node, Tensor, Variable
from zc.passes.cleanup.operands import plain, rank_of, shape_of
from zc.passes.cleanup.rules import Match, Rule, Site, after

SMALL = 1 << 16
"""Elements of a table up to which it may be written once more, when its rows are read in several ways."""

_UNARY = frozenset(
    {"Relu", "Gelu", "Tanh", "Sigmoid", "Erf", "Sqrt", "Exp", "Neg", "Abs", "LeakyRelu", "Elu", "Selu", "Softplus"}
    | {"HardSigmoid", "HardSwish", "Reciprocal", "Log", "Mish", "Softsign"}
)
_BINARY = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "PRelu"})


# ---- a product of one-hot rows

#     before:  Cast(Equal(i[..., 1], [0, 1, .., K-1])) -> MatMul(w[K, M])
#     after:   Gather(w and a row of zeros, Clip(i, -1, K))
#
# An index that is out of range matches nothing: its row is zero. -1 and K both stand for the row at the end.


def _find_one_hot(node: Node, site: Site) -> Match | None:
    match = after("Cast")(node, site)
    if match is None:
        return None
    equal = after("Equal")(match[1], site)
    if equal is None or rank_of(node.inputs[1]) != 2 or _indices(equal[1], site) is None:
        return None
    return node, match[1], equal[1]


def _indices(equal: Node, site: Site) -> tuple[Tensor, int] | None:
    """What is compared with 0, 1, 2, ... along the last axis, and how many they are."""
    for value, row in (equal.inputs, list(equal.inputs)[::-1]):
        counted, shape = site.fixed(row), shape_of(value)
        if counted is None or counted.size != counted.shape[-1:][0] or shape is None or counted.ndim > len(shape):
            continue
        if counted.dtype in (np.int32, np.int64) and np.array_equal(counted.reshape(-1), np.arange(counted.size)):
            return (value, counted.size) if shape[-1] == 1 and counted.size > 1 else None
    return None


def _check_one_hot(match: Match, site: Site) -> str | None:
    product, cast, _ = match
    table = product.inputs[1]
    values = site.fixed(table)
    if values is None or not site.private(table, product):
        return "its matrix is not a constant that this node alone reads"
    if values.dtype != np.float32 or cast.outputs[0].dtype != np.float32 or not np.isfinite(values).all():
        return "its matrix is not finite float32"
    if site.opset < 13:
        return f"operator set {site.opset} has no Clip of integers (13 has)"
    return None


def _to_gather(match: Match, site: Site) -> None:
    product, _, equal = match
    found = _indices(equal, site)
    values = site.fixed(product.inputs[1])
    assert found is not None
    assert values is not None
    (value, count), stem = found, product.outputs[0].name
    shape = shape_of(value)
    assert shape is not None
    rows = Variable(site.names.take(f"{stem}_rows"), value.dtype, shape[:-1])
    bounded = Variable(site.names.take(f"{stem}_index"), value.dtype, shape[:-1])
    axis = site.names.constant(f"{stem}_axis", np.array([-1], np.int64))
    bounds = [
        site.names.constant(f"{stem}_{w}", np.array(v, value.dtype)) for w, v in (("before", -1), ("behind", count))
    ]
    site.editor.add(Node("Squeeze", site.names.take(rows.name), {}, [value, axis], [rows]))
    site.editor.add(Node("Clip", site.names.take(bounded.name), {}, [rows, *bounds], [bounded]))
    table = site.names.constant(product.inputs[1].name, np.pad(values, ((0, 1), (0, 0))))
    site.replace(product, "Gather", [table, bounded], {"axis": 0})


# ---- arithmetic on picked rows

#     before:  Gather(table, i) -> Add(c) -> Gelu -> y
#     after:   Gather(Gelu(Add(table, c)), i) -> y


def _find_on_rows(node: Node, site: Site) -> Match | None:
    if not node.inputs or (node.op in _UNARY and len(node.inputs) > 1):
        return None
    picks = [p for p in (site.producer(t, "Gather") for t in node.inputs) if p is not None]
    if not picks or any(_table_shape(p, site) is None for p in picks):
        return None
    shape, indices = _table_shape(picks[0], site), picks[0].inputs[1]
    if any(_table_shape(p, site) != shape or p.inputs[1] is not indices for p in picks):
        return None  # a sum of several embeddings
    assert shape is not None
    depth, picked, rank = len(shape) - 1, rank_of(indices), rank_of(node.outputs[0])
    if picked is None or rank != picked + depth:
        return None
    for tensor in node.inputs:
        if site.producer(tensor, "Gather") is None and _across(tensor, shape, site) is None:
            return None
    return (node, *{id(p): p for p in picks}.values())


def _table_shape(pick: Node, site: Site) -> tuple[int, ...] | None:
    """The shape of a table of float rows that is constant, or computed from constants by a rewrite."""
    table = pick.inputs[0]
    if plain(pick, "axis", 0) != 0 or table.dtype is None or np.dtype(table.dtype).kind != "f":
        return None
    if id(table) not in site.computed and site.fixed(table) is None:
        return None
    return tuple(table.shape) if table.shape is not None and len(table.shape) > 1 else None


def _check_on_rows(match: Match, site: Site) -> str | None:
    node, *picks = match
    for pick in picks:
        table = pick.inputs[0]
        alone = site.alone(pick.outputs[0], node) and site.alone(table, pick)
        if math.prod(table.shape) > SMALL and not alone:
            return "the table or its rows are read elsewhere too"
    return None


def _across(tensor: Tensor, table: tuple[int, ...], site: Site) -> Array | None:
    """A constant as it meets a row, without the dimensions in which rows are picked; None if it differs there."""
    values, depth = site.fixed(tensor, SMALL), len(table) - 1
    if values is None:
        return None
    if math.prod(values.shape[: max(values.ndim - depth, 0)]) != 1:
        return None
    row = values.reshape(values.shape[max(values.ndim - depth, 0) :])
    try:
        fits = np.broadcast_shapes(row.shape, table[1:]) == table[1:]
    except ValueError:
        return None
    return row if fits else None


def _onto_table(match: Match, site: Site) -> None:
    node, first, *_ = match
    shape = _table_shape(first, site)
    assert shape is not None
    inputs: list[Tensor] = []
    for tensor in node.inputs:
        pick = site.producer(tensor, "Gather")
        if pick is not None:
            inputs.append(pick.inputs[0])
            continue
        row = _across(tensor, shape, site)
        assert row is not None
        inputs.append(tensor if row.shape == tensor.shape else site.names.constant(tensor.name, row))
    dtype = node.outputs[0].dtype
    result = Variable(site.names.take(f"{node.outputs[0].name}_table"), dtype, list(shape))
    site.computed.add(id(result))
    site.editor.add(Node(node.op, site.names.take(result.name), dict(node.attrs), inputs, [result]))
    site.replace(node, "Gather", [result, first.inputs[1]], {"axis": 0})


RULES = [
    Rule("one-hot product is a choice of rows", ("MatMul",), _find_one_hot, _check_one_hot, _to_gather),
    Rule("arithmetic onto the table", tuple(sorted(_UNARY | _BINARY)), _find_on_rows, _check_on_rows, _onto_table),
]
