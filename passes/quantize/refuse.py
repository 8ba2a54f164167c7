"""Models that are not float32 models: what is said of them instead of quantising them."""

import numpy as np

from zc.ir.elements import as_dtype
from zc.ir.graph import describe
from zc.ir.model import Model
from zc.ir.quantised import quantised_node

HALVES = frozenset({np.dtype(np.float16), as_dtype("bfloat16")})

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"})


def refusal(model: Model) -> tuple[str, str] | None:
    """Where and why a model cannot be quantised at all; None for one with float32 weights."""
    present = quantised_node(model)
    if present is not None:
        return describe(present), f"the model is already quantised ({present.op}); give the float model"
    weighted = [node for scope in model.scopes() for node in scope.nodes if node.op in _WEIGHTED]
    types = {np.dtype(t.dtype) for node in weighted for t in node.inputs[1:2] if t.dtype is not None}
    if types and types <= HALVES:
        kind = " and ".join(sorted(t.name for t in types))
        return model.name, f"the weights are {kind}; give the float32 model that it was made of"
    return None
