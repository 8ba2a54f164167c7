"""2:4 sparsity: two of four neighbouring weights along the depth are zero, which Ampere and later GPUs use."""

import numpy as np

from zc.backends.qdq import nodes_of, stored_codes
from zc.ir.graph import Array, Node, attribute, fixed_value
from zc.ir.model import Model

_FEWEST = 4


def sparse_layers(model: Model) -> tuple[int, int]:
    """Layers whose weights are 2:4 sparse throughout, and layers that could be."""
    sparse = total = 0
    for node in nodes_of(model, "Conv", "Gemm", "MatMul"):
        depth = _depth(node)
        if depth is None or depth.shape[-1] < _FEWEST:
            continue
        total += 1
        sparse += is_sparse(depth)
    return sparse, total


def is_sparse(rows: Array) -> bool:
    """Have each four neighbours along the last axis at most two that are not zero?"""
    whole = rows.shape[-1] // 4 * 4
    fours = np.asarray(rows[..., :whole] != 0).reshape(-1, 4)
    return bool((fours.sum(axis=1) <= 2).all())


def _depth(node: Node) -> Array | None:
    """The weight with the axis that is summed over last (for a Conv the input channels)."""
    if len(node.inputs) < 2:
        return None
    stored = stored_codes(node.inputs[1])
    values = stored[1] if stored is not None else fixed_value(node.inputs[1])
    if values is None or values.ndim < 2 or (node.op == "Conv" and attribute(node, "group", 1) != 1):
        return None
    if node.op == "Conv":
        return np.moveaxis(values, 1, -1)
    if node.op == "Gemm" and attribute(node, "transB", 0):
        return values
    return np.swapaxes(values, -1, -2)
