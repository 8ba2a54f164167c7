"""Einsum of two operands, where it is a product of matrices: every letter stands once in an operand.

bth,ho->bto     a layer            bqhd,bkhd->bhqk     attention: h is a batch, d is summed
"""

from zc.ir.graph import Node, attribute
from zc.passes.prune.flow import Flow, Product, where
from zc.passes.prune.layout import Layout, block_at, dims_of, moved, without
from zc.passes.prune.rules.products import is_weight
from zc.passes.prune.rules.rule import Rule, out_dims


def einsum(node: Node, flow: Flow) -> None:
    """Letters of the result come from one operand or align in both; letters that are not in it are summed."""
    reason = f"meets in {where(node)} a value that must stay whole"
    terms = _terms(node)
    if terms is None:
        flow.stop(node, node.inputs, f"reaches {where(node)}, which is no product of two matrices")
        return
    operands, result = terms
    layouts = [flow.of(tensor) for tensor in node.inputs]
    both = [letter for letter in operands[0] if letter in operands[1] and letter not in result]
    for letter in both:
        layouts = _sum(node, flow, layouts, operands, letter)
    parts = []
    for layout, letters, tensor in zip(layouts, operands, node.inputs, strict=True):
        to = {axis: result.index(letter) for axis, letter in enumerate(letters) if letter in result}
        dims: list[int | str | None] = [1] * len(result)
        for axis, dim in enumerate(dims_of(tensor)):
            if axis in to:
                dims[to[axis]] = dim
        summed = [axis for axis in range(len(letters)) if axis not in to]
        parts.append((moved(without(layout, *summed), to), dims))
    made = flow.align(parts, reason)
    flow.put(node.outputs[0], made, reason)
    for tensor, letters, others in zip(node.inputs, operands, operands[::-1], strict=True):
        for letter in letters if is_weight(tensor) else "":
            block = block_at(made, result.index(letter)) if letter in result and letter not in others else None
            if block is not None and len(block.axes) == 1 and out_dims(node)[block.axes[0]] != 1:
                flow.products.append(Product(node, block.labels, tensor))


def _sum(node: Node, flow: Flow, layouts: list[Layout], operands: list[str], letter: str) -> list[Layout]:
    """The layouts after a summed letter was tied; where it is a part of a larger block, whole rows leave: heads."""
    reason = f"{where(node)} sums over it"
    axes = [letters.index(letter) for letters in operands]
    blocks = [block_at(layout, axis) for layout, axis in zip(layouts, axes, strict=True)]
    if all(block is not None and len(block.axes) > 1 for block in blocks):
        return [flow.freeze(layout, axis, reason) for layout, axis in zip(layouts, axes, strict=True)]
    layouts = [flow.alone(layout, axis, reason) for layout, axis in zip(layouts, axes, strict=True)]
    left, right = (block_at(layout, axis) for layout, axis in zip(layouts, axes, strict=True))
    flow.contract(node, 0, axes[0], left.labels if left else None, right.labels if right else None)
    return layouts


def _terms(node: Node) -> tuple[list[str], str] | None:
    """The letters of both operands and of the result; None where they are not those of a product."""
    text = str(attribute(node, "equation", "")).replace(" ", "")
    taken, arrow, result = text.partition("->")
    operands = taken.split(",")
    if len(operands) != 2 or len(node.inputs) != 2 or "." in text:
        return None
    if not arrow:
        result = "".join(sorted(c for c in set(taken) - {","} if taken.count(c) == 1))
    if any(len(set(part)) != len(part) for part in (*operands, result)):
        return None
    alone = [c for one, other in (operands, operands[::-1]) for c in one if c not in other and c not in result]
    return None if alone else (operands, result)


RULES: dict[str, Rule] = {"Einsum": einsum}
