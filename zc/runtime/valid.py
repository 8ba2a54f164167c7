"""What an operator's attributes must be, whatever it computes: a file may hold anything."""

from collections.abc import Sequence

import numpy as np

from zc.ir.graph import Node, Tensor, attribute, fixed_value

WINDOWS = frozenset({"Conv", "QLinearConv", "MaxPool", "AveragePool", "QLinearAveragePool"})
ONE_AXIS = frozenset({"Softmax", "Concat", "Gather", "Split", "QLinearSoftmax", "QLinearConcat"})

LEAST_INPUTS = {
    "QLinearConv": 8,
    "QLinearMatMul": 8,
    "QGemm": 6,
    "QLinearAdd": 7,
    "QLinearMul": 7,
    "QLinearAveragePool": 4,
    "QLinearGlobalAveragePool": 4,
    "QLinearSigmoid": 4,
    "QLinearLeakyRelu": 4,
    "QLinearSoftmax": 4,
    "QLinearConcat": 5,
    "QuantizeLinear": 2,
    "DequantizeLinear": 2,
}
"""Inputs that an operator on codes cannot do without."""


def fault(node: Node) -> str | None:
    """What is wrong with a node, or None. Sizes that are not known yet are not judged."""
    if len(node.inputs) < LEAST_INPUTS.get(node.op, 0):
        return f"{node.op} has {len(node.inputs)} inputs, and needs {LEAST_INPUTS[node.op]}"
    if node.op in LEAST_INPUTS and any(_empty(t) for t in node.inputs):
        return "one of its constants holds nothing"
    rank = _rank(node)
    if node.op in WINDOWS:
        return _window_fault(node, rank)
    if node.op in ONE_AXIS and rank is not None:
        return _axis_fault([int(attribute(node, "axis", 0))], rank)
    if node.op == "Flatten" and rank is not None:
        return _axis_fault([int(attribute(node, "axis", 1))], rank, rank)
    if node.op == "Transpose" and rank is not None:
        order = list(attribute(node, "perm", None) or range(rank))
        return None if sorted(order) == list(range(rank)) else f"{order} is no order of {rank} axes"
    if node.op in ("DepthToSpace", "SpaceToDepth"):
        return _block_fault(node)
    if node.op == "Slice":
        return _slice_fault(node, rank)
    if node.op in ("Squeeze", "Unsqueeze") and rank is not None:
        axes = _numbers(node, 1, "axes")
        if axes is None:
            return None
        if node.op == "Unsqueeze":
            return _axis_fault(axes, rank + len(axes))
        shape = node.inputs[0].shape
        return _axis_fault(axes, rank) or next(
            (f"axis {a} has length {shape[a]}, not 1" for a in axes if isinstance(shape[a], int) and shape[a] != 1),
            None,
        )
    return None


def _empty(tensor: Tensor) -> bool:
    values = fixed_value(tensor) if tensor.name else None
    return values is not None and values.size == 0


def _rank(node: Node) -> int | None:
    position = 2 if node.op == "QLinearConcat" else 0
    if len(node.inputs) <= position or node.inputs[position].shape is None:
        return None
    return len(node.inputs[position].shape)


def _numbers(node: Node, position: int, key: str) -> list[int] | None:
    if len(node.inputs) > position and node.inputs[position].name:
        values = fixed_value(node.inputs[position])
    else:
        found = attribute(node, key, None)
        values = None if found is None else np.asarray(found)
    return None if values is None else [int(v) for v in values.reshape(-1)]


def _axis_fault(axes: Sequence[int], rank: int, most: int | None = None) -> str | None:
    wrong = [a for a in axes if not -rank <= a <= (rank - 1 if most is None else most)]
    return f"axis {wrong[0]} of a value with {rank} axes" if wrong else None


def _window_fault(node: Node, rank: int | None) -> str | None:
    kernel = attribute(node, "kernel_shape", None)
    pooling = node.op not in ("Conv", "QLinearConv")
    if kernel is None and pooling:
        return "it has no kernel_shape"
    weight = None if pooling else node.inputs[1 if node.op == "Conv" else 3].shape
    if kernel is None and weight is not None:
        kernel = list(weight[2:])
    elif kernel is not None and weight is not None and list(kernel) != list(weight[2:]):
        return f"kernel_shape {list(kernel)} with weights {list(weight)}"
    if rank is not None and kernel is not None and len(kernel) != rank - 2:
        return f"a window of {len(kernel)} dimensions over a value with {rank} axes"
    for key, sizes in (("kernel_shape", kernel), *((k, attribute(node, k, None)) for k in ("strides", "dilations"))):
        if sizes is not None and any(isinstance(n, int) and n < 1 for n in sizes):
            return f"{key} {list(sizes)}"
        if sizes is not None and kernel is not None and len(sizes) != len(kernel):
            return f"{key} {list(sizes)} for {len(kernel)} dimensions"
    pads = attribute(node, "pads", None)
    if pads and kernel is not None and len(pads) != 2 * len(kernel):
        return f"pads {list(pads)} for {len(kernel)} dimensions"
    return "group 0" if int(attribute(node, "group", 1)) < 1 else None


def _block_fault(node: Node) -> str | None:
    size, shape = int(attribute(node, "blocksize", 0)), node.inputs[0].shape
    if size < 1:
        return f"blocksize {size}"
    if shape is None:
        return None
    if len(shape) != 4:
        return f"it takes four axes, not {len(shape)}"
    divided, by = ((shape[1],), size * size) if node.op == "DepthToSpace" else (shape[2:], size)
    wrong = [n for n in divided if isinstance(n, int) and n % by]
    return f"blocks of {size} do not divide {list(shape)}" if wrong else None


def _slice_fault(node: Node, rank: int | None) -> str | None:
    if 0 in (_numbers(node, 4, "steps") or []):
        return "a step of 0"
    axes = _numbers(node, 3, "axes") or range(len(_numbers(node, 1, "starts") or []))
    return None if rank is None else _axis_fault(list(axes), rank)
