"""Models that are not float32 models: what is said of them instead of quantising them."""

from typing import cast

import numpy as np

from zc.ir.elements import as_dtype
from zc.ir.graph import Node, describe
from zc.ir.model import Model

QUANTISED_OPS = frozenset(
    {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"),
        *("QGemm", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulNBits"),
    }
)
"""Operators of quantised models, beside those whose name begins with QLinear."""

HALVES = frozenset({np.dtype(np.float16), as_dtype("bfloat16")})

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"})


def is_quantised(op: str) -> bool:
    """Is it an operator of a quantised model?"""
    return op in QUANTISED_OPS or op.startswith("QLinear")


def refusal(model: Model) -> tuple[str, str] | None:
    """Where and why a model cannot be quantised at all; None for one with float32 weights."""
    weighted: list[Node] = []
    for scope in model.scopes():
        for node in scope.nodes:
            if is_quantised(node.op):
                return describe(node), f"the model is already quantised ({node.op}); give the float model"
            if node.op in _WEIGHTED:
                weighted.append(cast(Node, node))
    types = {np.dtype(t.dtype) for node in weighted for t in node.inputs[1:2] if t.dtype is not None}
    if types and types <= HALVES:
        kind = " and ".join(sorted(t.name for t in types))
        return model.name, f"the weights are {kind}; give the float32 model that it was made of"
    return None
