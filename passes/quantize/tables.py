"""Embedding tables: which are stored as codes."""

import math

import numpy as np

from zc.ir.graph import Graph, Node, attribute, fixed_value
from zc.target import Target

SMALLEST_TABLE = 1024
"""Elements below which a table stays float."""


def picks_rows(node: Node, graph: Graph, target: Target) -> bool:
    """Does the node pick rows of a constant float32 table, big enough to be worth it, that is read in no other way?"""
    if node.op not in target.lookup_ops or not node.standard or attribute(node, "axis", 0) != 0:
        return False
    table = fixed_value(node.inputs[0], graph)
    if table is None or table.dtype != np.float32 or table.ndim < 2 or table.size < SMALLEST_TABLE:
        return False
    return bool(np.isfinite(table).all()) and all(n.op in target.lookup_ops for n in node.inputs[0].outputs)


def table_reason(node: Node) -> str | None:
    """Why a table is better left in float, or None: rows are turned into numbers each time that they are picked."""
    rows, shape = node.inputs[0].shape[0], node.inputs[1].shape
    picked = math.prod(d for d in shape if isinstance(d, int)) if shape is not None else 1
    if picked > rows:
        return f"a run picks {picked} of its {rows} rows, and would turn each into numbers anew"
    return None
