"""Einsum of one or two values: axes put in order, a BATCH_MATMUL, axes put in order again."""

from math import prod

from zc.backends.tflite.elementwise import Rule
from zc.backends.tflite.flat import FlatTensor
from zc.backends.tflite.layout import Layout
from zc.backends.tflite.lowering import Lowering
from zc.ir.graph import Node, attribute


def einsum(lowering: Lowering, node: Node) -> None:
    """Einsum without `...` and without an axis twice in one term."""
    text = str(attribute(node, "equation", "")).replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if not arrow:
        right = "".join(sorted(c for c in set(left) - {","} if left.count(c) == 1))
    if "." in text or any(len(set(term)) < len(term) for term in terms) or len(terms) > 2:
        raise lowering.fail(f"the equation {text}; of one or two terms without ... and repeated axes it is written out")
    if len(terms) == 1:
        _single(lowering, node, terms[0], right)
    else:
        _pair(lowering, node, terms[0], terms[1], right)


def _single(lowering: Lowering, node: Node, term: str, right: str) -> None:
    """A sum along the axes that go, and the others in another order."""
    value = lowering.settled(node.inputs[0]) if id(node.inputs[0]) in lowering.values else None
    layout: Layout = value.layout if value is not None else tuple(range(len(term)))
    made = lowering.read(node.inputs[0], layout)
    order = "".join(term[axis] for axis in layout)
    gone = [i for i, axis in enumerate(order) if axis not in right]
    if gone:
        shape = tuple(d for i, d in enumerate(made.shape) if i not in gone)
        made = lowering.apply("SUM", made, lowering.integers(gone), shape=shape, keepDims=False)
        order = "".join(axis for axis in order if axis in right)
    lowering.bind(node.outputs[0], made, tuple(right.index(axis) for axis in order))


def _pair(lowering: Lowering, node: Node, first: str, second: str, right: str) -> None:
    """Axes of both terms and the result are the batch; of both terms alone, what is summed."""
    batch = [axis for axis in first if axis in second and axis in right]
    summed = [axis for axis in first if axis in second and axis not in right]
    rows = [axis for axis in first if axis not in second]
    columns = [axis for axis in second if axis not in first]
    if any(axis not in right for axis in (*rows, *columns)):
        raise lowering.fail("an axis of one term that is summed alone", "sum it in front (ReduceSum)")
    sizes = dict(zip(first, lowering.sizes(node.inputs[0]), strict=True))
    sizes |= dict(zip(second, lowering.sizes(node.inputs[1]), strict=True))
    a = _matrix(lowering, node, 0, first, (batch, rows, summed), sizes)
    b = _matrix(lowering, node, 1, second, (batch, summed, columns), sizes)
    shape = (*a.shape[:-1], b.shape[-1])
    made = lowering.apply("BATCH_MATMUL", a, b, shape=shape)
    order = [*batch, *rows, *columns]
    made = lowering.reshape(made, tuple(sizes[axis] for axis in order))
    lowering.bind(node.outputs[0], made, tuple(right.index(axis) for axis in order))


def _matrix(
    lowering: Lowering,
    node: Node,
    position: int,
    term: str,
    groups: tuple[list[str], list[str], list[str]],
    sizes: dict[str, int],
) -> FlatTensor:
    """A term as [batch, rows, columns]."""
    layout = tuple(term.index(axis) for group in groups for axis in group)
    made = lowering.read(node.inputs[position], layout)
    return lowering.reshape(made, tuple(prod(sizes[axis] for axis in group) for group in groups))


RULES: dict[str, Rule] = {"Einsum": einsum}
