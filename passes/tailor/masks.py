"""Softmax of masked scores, without subnormal numbers.

    before:  scores + mask -> Softmax                            masked likelihoods near 4e-39
    after:   scores + mask -> Max(., ReduceMax(.) - 60) -> Softmax    masked likelihoods near 1e-26

A mask adds some large negative number to what must not be attended to. onnxruntime bounds the exponent at -88, whose
exponential is subnormal, and processors take a hundred times as long for those: half the time of an int8 attention.
Whatever lies 60 below the largest score of its row has no part in a float32 sum: raising it to there changes nothing.
"""

from collections.abc import Collection, Sequence
from typing import cast

import numpy as np

from zc.execute import Feeds, Runner
from zc.ir.edit import Editor, Names
from zc.ir.graph import Graph, Node, Tensor, Variable, attribute, fixed_value
from zc.ir.model import Model

DEPTH = 60.0
"""exp(-60) is 9e-27: below the last place of any sum of likelihoods, far above the smallest normal number, 1.2e-38."""

SLOW = 80.0
"""Scores that lie further below the largest have subnormal exponentials, after division by the sum at the latest."""

ENOUGH = 0.02
"""Share of such scores from which the bound costs less than it saves."""

_MASKING = -1e3
_THROUGH = frozenset(
    {"Add", "Sub", "Mul", "Div", "Where", "Cast", "Expand", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Slice"}
    | {"Gather", "Identity", "Max", "Clip"}
)
_MOST = 24


def masked_scores(model: Model, feeds: Sequence[Feeds]) -> frozenset[str]:
    """The values of the main graph that a Softmax reads and that should be bounded.

    feeds: some samples. A mask that is computed counts only if it masks something in them; a constant one always does.
    """
    scope = model.graph
    kinds = {n.inputs[0].name: _mask_of(n.inputs[0], scope) for n in model.nodes("Softmax") if _along_last(n, scope)}
    masking = _active([name for name, kind in kinds.items() if kind == "computed"], model, feeds)
    return frozenset({name for name, kind in kinds.items() if kind == "constant"} | masking)


def bound(model: Model, scores: Collection[str]) -> int:
    """Bound the named scores from below where a Softmax reads them; how many."""
    found = [n for n in model.nodes("Softmax") if n.inputs[0].name in scores] if scores else []
    if found:
        editor = Editor(model.graph, Names(model.graph))
        for node in found:
            _bound(node, editor)
        editor.finish()
    return len(found)


def _along_last(node: Node, scope: Graph) -> bool:
    """Is it a Softmax of float32 along the last axis alone, not bounded yet?"""
    value = node.inputs[0]
    if value.dtype != np.float32 or value.shape is None:
        return False
    axis = int(attribute(node, "axis", -1 if scope.opset >= 13 else 1))
    before = value.inputs[0] if len(value.inputs) == 1 else None
    return axis in (-1, len(value.shape) - 1) and (before is None or before.op != "Max")


def _mask_of(value: Tensor, scope: Graph) -> str | None:
    """`constant` or `computed`, as the mask is that a sum of scores holds; None if there is none."""
    stack, seen, computed = [value], 0, False
    while stack and seen < _MOST:
        seen += 1
        tensor = stack.pop()
        numbers = fixed_value(tensor, scope)
        if numbers is not None:
            if numbers.dtype == np.float32 and numbers.size and numbers.min() <= _MASKING:
                computed = computed or numbers.size == 1
                if numbers.size > 1:
                    return "constant"
        elif len(tensor.inputs) == 1 and tensor.inputs[0].op in _THROUGH and cast(Node, tensor.inputs[0]).standard:
            stack += tensor.inputs[0].inputs
    return "computed" if computed else None


def _active(names: list[str], model: Model, feeds: Sequence[Feeds]) -> set[str]:
    """Those of the named scores of which the samples mask enough."""
    if not names or not feeds:
        return set()
    runner = Runner(model, outputs=names)
    low, count = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for feed in feeds:
        for name, scores in runner.run(feed).items():
            if scores.size:
                low[name] += int((scores < scores.max(axis=-1, keepdims=True) - SLOW).sum())
                count[name] += scores.size
    return {name for name in names if low[name] > ENOUGH * max(count[name], 1)}


def _bound(node: Node, editor: Editor) -> None:
    names, scores = editor.names, node.inputs[0]
    assert scores.shape is not None
    shape = [*scores.shape[:-1], 1]
    largest, lowest = (Variable(names.take(f"{scores.name}_{w}"), np.float32, shape) for w in ("largest", "lowest"))
    bounded = names.variable(f"{scores.name}_bounded", like=scores)
    axes = names.constant(f"{scores.name}_axis", np.array([-1], np.int64))
    depth = names.constant(f"{scores.name}_depth", np.array(DEPTH, np.float32))
    old = editor.graph.opset < 18  # then the axes of ReduceMax are an attribute
    attrs = {"keepdims": 1, **({"axes": [-1]} if old else {})}
    reduce = [scores] if old else [scores, axes]
    editor.add(Node("ReduceMax", names.take(largest.name), attrs, reduce, [largest]))
    editor.add(Node("Sub", names.take(lowest.name), {}, [largest, depth], [lowest]))
    editor.add(Node("Max", names.take(bounded.name), {}, [scores, lowest], [bounded]))
    node.inputs[0] = bounded
