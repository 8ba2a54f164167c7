"""Weights stored in 4 bits: they are computed with in 8, and turned once, when a model is loaded."""

from typing import cast

import numpy as np

from zc.ir.edit import make_constant, sweep
from zc.ir.elements import PACKED_BITS, elem_type_of
from zc.ir.graph import Node, fixed_value
from zc.ir.model import Model


def unpack_weights(model: Model) -> None:
    """Compute every Cast of a constant of 4 bits to one of 8, in place, as onnxruntime does when it loads a model.

    before:  w int4 -> Cast -> w8 -> DequantizeLinear
    after:   w8 int8 -> DequantizeLinear
    """
    fed = {id(t) for t in (*model.graph.inputs, *model.graph.outputs)}
    found = False
    for node in model.graph.nodes:
        if node.op != "Cast" or not cast(Node, node).standard or {id(node.inputs[0]), id(node.outputs[0])} & fed:
            continue
        values = fixed_value(node.inputs[0])
        kind = node.outputs[0].dtype
        if values is None or elem_type_of(values.dtype) not in PACKED_BITS or kind not in (np.int8, np.uint8):
            continue
        make_constant(node.outputs[0], values.astype(kind))
        node.inputs.clear()
        found = True
    if found:
        sweep(model.graph)
