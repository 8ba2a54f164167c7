"""What onnxruntime makes of a model: read from the graph that a default session on this processor really runs."""

import tempfile
from pathlib import Path
from typing import cast

from zc.backends.base import Prediction
from zc.backends.qdq import dequantised
from zc.execute import Runner
from zc.ir.graph import Constant, Node, describe
from zc.ir.model import Model, load
from zc.target import Target

_FLOAT = frozenset({"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "ConvTranspose", "LSTM", "GRU"})


def predict(model: Model, target: Target) -> Prediction:
    """Layers in integers, layers in float, and what vanished. ZcError when no session opens on the model."""
    with tempfile.TemporaryDirectory(prefix="zc-") as folder:
        path = Path(folder) / "optimized.onnx"
        # Blocks of channels would change names, and nothing of what is told here.
        Runner(model, save_optimized=path, config=target.session, without=("NchwcTransformer",))
        ran = [cast(Node, n) for scope in load(path).scopes() for n in scope.nodes]
    integer = tuple(f"{describe(n)} ({n.op})" for n in ran if n.op in target.integer_runtime_ops or _quantised(n))
    readers = {t.name: describe(cast(Node, n)) for s in model.scopes() for n in s.nodes for t in n.inputs[1:2]}
    floats = tuple((_original(n, readers), _why(n)) for n in ran if n.op in _FLOAT)
    left = {n.name for n in ran if n.name}
    before = [cast(Node, n) for scope in model.scopes() for n in scope.nodes]
    names = {t.name: describe(n) for n in ran for t in n.outputs}
    fused = tuple(
        (n.name, _into(n, names)) for n in before if n.name and n.name not in left and n.op not in _FLOAT | _CODES
    )
    return Prediction(integer, tuple(f for f in fused if f[1]), floats)


def blocked_convolutions(model: Model) -> int:
    """Float convolutions that a default session on this machine lays out in blocks of channels."""
    with tempfile.TemporaryDirectory(prefix="zc-") as folder:
        path = Path(folder) / "optimized.onnx"
        Runner(model, save_optimized=path)
        return sum(n.domain == _BLOCKS and n.op == "Conv" for scope in load(path).scopes() for n in scope.nodes)


_BLOCKS = "com.microsoft.nchwc"
_CODES = frozenset({"QuantizeLinear", "DequantizeLinear", "Constant", "Identity"})


def _original(node: Node, readers: dict[str, str]) -> str:
    """The node of the model that a layer was made of: it reads the same weight, whatever it is called now."""
    return readers.get(node.inputs[1].name, describe(node)) if len(node.inputs) > 1 else describe(node)


def _into(node: Node, makers: dict[str, str]) -> str:
    """The node that now makes what this one did, or the value behind the Q/DQ that follows it."""
    values = [*node.outputs]
    while values:
        value = values.pop()
        if value.name in makers:
            return makers[value.name]
        values += [t for n in value.outputs if n.op in _CODES for t in n.outputs]
    return ""


def _quantised(node: Node) -> bool:
    return node.op.startswith("QLinear") and node.op not in {"QLinearConcat"}


def _why(node: Node) -> str:
    if any(dequantised(t) for t in node.inputs[:2]):
        return f"runs as {node.op}: its codes are turned back into floats at every run"
    if len(node.inputs) > 1 and not isinstance(node.inputs[1], Constant):
        return f"runs as {node.op}: both factors are computed"
    return f"runs as {node.op}: its weight is float"
