"""What a quantised model says on every processor: sums of products that saturate nowhere.

A default session of onnxruntime on x86 without VNNI adds neighbouring products of uint8 by int8 in 16 bits, where the
sum saturates (`vpmaddubsw`). What it puts out there says something of that processor and nothing of the model. Asked
for precision, it makes uint8 weights of int8 ones and multiplies those exactly; it then stores each weight and zero
point under a new name, and fails on a second reader of one.
"""

from typing import cast

import numpy as np

from zc.ir.edit import Names
from zc.ir.graph import Constant, Node
from zc.ir.model import Model

EXACT = {"session.x64quantprecision": "1"}
"""The session's option. Where the processor has an exact dot product it changes nothing."""

AT_ODDS = ("QDQS8ToU8Transformer",)
"""Optimisers that give constants a second reader, for int8 activations."""


def one_reader_each(model: Model) -> Model:
    """The model, or a copy in which no two places of nodes read the same int8 constant."""
    if not any(count > 1 for count in _readers(model).values()):
        return model
    copy = model.copy()
    names, seen = Names(copy.graph), set[Constant]()
    for scope in copy.scopes():
        for node in scope.nodes:
            for place, value in enumerate(node.inputs):
                if not isinstance(value, Constant) or value.dtype != np.int8:
                    continue
                if value in seen:
                    node.inputs[place] = names.constant(value.name, value.values)
                seen.add(value)
    return copy


def _readers(model: Model) -> dict[Constant, int]:
    """How many places of nodes read each int8 constant."""
    found: dict[Constant, int] = {}
    for scope in model.scopes():
        for node in scope.nodes:
            for value in cast(Node, node).inputs:
                if isinstance(value, Constant) and value.dtype == np.int8:
                    found[value] = found.get(value, 0) + 1
    return found
