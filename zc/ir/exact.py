"""What a quantised model says on every processor: sums of products that saturate nowhere.

A default session of onnxruntime on x86 without VNNI adds neighbouring products of uint8 by int8 in 16 bits, where the
sum saturates (`vpmaddubsw`). What it puts out there says something of that processor and nothing of the model. Asked
for precision, it makes uint8 weights of int8 ones and multiplies those exactly; it then stores each weight and zero
point under a new name, fails on a second reader of one, and gives a weight without zero points a single one, which does
not go with scales by channel.
"""

from collections import Counter
from typing import TypeGuard, cast

import numpy as np

from zc.ir.edit import Names
from zc.ir.graph import Constant, Node, Tensor
from zc.ir.model import Model

EXACT = {"session.x64quantprecision": "1"}
"""The session's option. Where the processor has an exact dot product it changes nothing."""

AT_ODDS = ("QDQS8ToU8Transformer",)
"""Optimisers that give constants a second reader, for int8 activations."""


def precise(model: Model) -> Model:
    """The model, or a copy of the same numbers, in a form in which onnxruntime can be asked for precision.

    No two places of nodes read the same int8 constant, and what makes numbers of int8 constants by channel or by block
    has zero points.
    """
    nodes = [cast(Node, node) for scope in model.scopes() for node in scope.nodes]
    counts = Counter(value for node in nodes for value in node.inputs if _is_int8(value))
    if not any(count > 1 for count in counts.values()) and not any(map(_lacks_zeros, nodes)):
        return model
    copy = model.copy()
    names, seen = Names(copy.graph), set[Constant]()
    for scope in copy.scopes():
        for node in scope.nodes:
            if _lacks_zeros(cast(Node, node)):
                zeros = np.zeros(node.inputs[1].shape, np.int8)
                node.inputs[2:] = [names.constant(f"{node.inputs[0].name}_zero_point", zeros)]
            for place, value in enumerate(node.inputs):
                if not _is_int8(value):
                    continue
                if value in seen:
                    node.inputs[place] = names.constant(value.name, value.values)
                seen.add(value)
    return copy


def _is_int8(value: Tensor) -> TypeGuard[Constant]:
    return isinstance(value, Constant) and value.dtype == np.int8


def _lacks_zeros(node: Node) -> bool:
    if node.op != "DequantizeLinear" or not _is_int8(node.inputs[0]):
        return False
    bare = len(node.inputs) < 3 or not node.inputs[2].name
    return bare and isinstance(node.inputs[1], Constant) and len(node.inputs[1].shape) > 0
