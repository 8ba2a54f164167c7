"""Matrix products: MatMul and Gemm."""

from zc.ir.graph import Constant, Node, Tensor, attribute
from zc.passes.prune.flow import Flow, Product, where
from zc.passes.prune.labels import Ints
from zc.passes.prune.layout import Block, Layout, block_at, dims_of, moved, without
from zc.passes.prune.rules.rule import Rule, given, out_dims, rank


def matmul(node: Node, flow: Flow) -> None:
    """MatMul: [..., M, K] x [..., K, N], or vectors; the axes before are batches that broadcast."""
    a, b = node.inputs[0], node.inputs[1]
    ranks = rank(node, 0), rank(node, 1)
    sum_a, sum_b = ranks[0] - 1, max(ranks[1] - 2, 0)
    reason = f"meets in {where(node)} a value that must stay whole"
    left, right = _sum(node, flow, sum_a, sum_b)
    total = len(out_dims(node))
    vector_a, vector_b = ranks[0] == 1, ranks[1] == 1
    columns = 0 if vector_b else 1
    # Axes of the result: batches from the right, then M (unless A is a vector), then N (unless B is).
    to_a = {axis: axis + total - columns - (ranks[0] - 1) for axis in range(ranks[0] - 1)}
    to_b = {axis: axis + total - (0 if vector_a else 1) - (ranks[1] - 1) for axis in range(max(ranks[1] - 2, 0))}
    if not vector_b:
        to_b[ranks[1] - 1] = total - 1
    parts = [
        (moved(without(left, sum_a), to_a), _dims(a, to_a, total)),
        (moved(without(right, sum_b), to_b), _dims(b, to_b, total)),
    ]
    layout = flow.align(parts, reason)
    flow.put(node.outputs[0], layout, reason)
    for weight, axis, exists in ((a, total - columns - 1, not vector_a), (b, total - 1, not vector_b)):
        made = block_at(layout, axis) if exists and is_weight(weight) else None
        if made is not None and len(made.axes) == 1:
            flow.products.append(Product(node, made.labels, weight))


def _sum(node: Node, flow: Flow, sum_a: int, sum_b: int) -> tuple[Layout, Layout]:
    """The layouts after the summed axes were tied to each other.

    Where both are part of a larger block (the heads and head widths of attention), whole rows leave: heads.
    """
    reason = f"{where(node)} sums over it"
    left, right = flow.of(node.inputs[0]), flow.of(node.inputs[1])
    blocks = block_at(left, sum_a), block_at(right, sum_b)
    if all(block is not None and len(block.axes) > 1 for block in blocks):
        return flow.freeze(left, sum_a, reason), flow.freeze(right, sum_b, reason)
    left, right = flow.alone(left, sum_a, reason), flow.alone(right, sum_b, reason)
    flow.contract(node, 0, sum_a, _labels(left, sum_a), _labels(right, sum_b))
    return left, right


def _dims(tensor: Tensor, to: dict[int, int], total: int) -> list[int | str | None]:
    dims: list[int | str | None] = [1] * total
    for axis, dim in enumerate(dims_of(tensor)):
        if axis in to:
            dims[to[axis]] = dim
    return dims


def is_weight(tensor: Tensor) -> bool:
    """Is the value a constant, as it is or after it was moved or dequantised?"""
    while not isinstance(tensor, Constant):
        if len(tensor.inputs) != 1 or tensor.inputs[0].op not in _STORED or not tensor.inputs[0].inputs:
            return False
        tensor = tensor.inputs[0].inputs[0]
    return True


_STORED = frozenset({"Cast", "DequantizeLinear", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def _labels(layout: Layout, axis: int) -> Ints | None:
    block = block_at(layout, axis)
    return None if block is None else block.labels


def gemm(node: Node, flow: Flow) -> None:
    """Gemm: alpha * A' x B' + beta * C."""
    reason = f"meets in {where(node)} a value that must stay whole"
    sum_a = 0 if int(attribute(node, "transA", 0)) else 1
    sum_b = 1 if int(attribute(node, "transB", 0)) else 0
    left = flow.alone(flow.of(node.inputs[0]), sum_a, reason)
    right = flow.alone(flow.of(node.inputs[1]), sum_b, reason)
    flow.contract(node, 0, sum_a, _labels(left, sum_a), _labels(right, sum_b))
    made, rows = _labels(right, 1 - sum_b), _labels(left, 1 - sum_a)
    layout: Layout = ()
    if rows is not None:
        layout += (Block((0,), rows),)
    if made is not None:
        layout += (Block((1,), made),)
        flow.products.append(Product(node, made, node.inputs[1]))
    dims = out_dims(node)
    if given(node, 2):
        shift = 2 - rank(node, 2)
        bias = moved(flow.of(node.inputs[2]), {a: a + shift for a in range(2 - shift)})
        layout = flow.align([(layout, dims), (bias, [*[1] * shift, *dims_of(node.inputs[2])])], reason)
    flow.put(node.outputs[0], layout, reason)


RULES: dict[str, Rule] = {"MatMul": matmul, "Gemm": gemm}
