"""Why a quantised model may be slower than its float form: read from the graph that onnxruntime really runs."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs

from zc.execute import Feeds, Runner
from zc.ir.graph import Constant, Node, attribute
from zc.ir.model import Model, load
from zc.kernels.cpu import dot_product
from zc.measure.profile import profile

_INTEGER = frozenset({"QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat"})
_INTEGER_ONLY = frozenset({"DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QAttention"})
_FLOAT = frozenset({"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "ConvTranspose"})
_CONVERSIONS = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "Transpose",
        "ReorderInput",
        "ReorderOutput",
        "Cast",
    }
)


def slow_causes(model: Model, feeds: Sequence[Feeds] = ()) -> tuple[str, ...]:
    """Where the time of this quantised model goes, and what is likely to make it slow on this machine; never empty.

    feeds: to run it on; without them the time is not told.

    Raises:
        ZcError: onnxruntime does not run the model.
    """
    with tempfile.TemporaryDirectory(prefix="zc-") as folder:
        path = Path(folder) / "optimized.onnx"
        Runner(model, threads=1, save_optimized=path)
        ran = load(path)
    nodes = [node for scope in ran.scopes() for node in scope.nodes if isinstance(node, Node)]
    causes = [
        _longest(model, feeds),
        _signed(model),
        _left_float(nodes),
        _conversions(nodes),
        _depthwise(nodes),
        _no_dot_product(),
    ]
    found = tuple(cause for cause in causes if cause)
    return found or ("its layers are too small for integer kernels to gain what quantising their inputs costs",)


def _longest(model: Model, feeds: Sequence[Feeds]) -> str:
    """The kernels that take most of the time, and what conversions take together."""
    if not feeds:
        return ""
    kernels = profile(model, feeds)
    whole = sum(k.us for k in kernels) or 1.0
    most = sorted(kernels, key=lambda k: -k.us)[:3]
    names = ", ".join(f"{k.op} '{k.name}' {k.us / whole:.0%}" for k in most)
    share = sum(k.us for k in kernels if k.op in _CONVERSIONS) / whole
    return f"of its time {names} and conversions between forms {share:.0%}"


def _signed(model: Model) -> str:
    """Signed activations are slow on x86: the fast kernels take uint8 activations with int8 weights."""
    signed = sum(
        1
        for node in model.nodes("QuantizeLinear")
        if len(node.inputs) > 2 and np.dtype(node.inputs[2].dtype or np.uint8) == np.int8
    )
    if not signed:
        return ""
    return f"{signed} activations are int8; onnxruntime on x86 has its fast kernels for uint8 activations"


def _left_float(nodes: list[Node]) -> str:
    """Layers whose codes are turned back into floats at every run."""
    integer = [n for n in nodes if n.op in _INTEGER | _INTEGER_ONLY]
    floats = [
        n for n in nodes if n.op in _FLOAT and any(_dequantised(t) or isinstance(t, Constant) for t in n.inputs[:2])
    ]
    if not floats:
        return ""
    names = ", ".join(n.name or n.op for n in floats[:3]) + (", ..." if len(floats) > 3 else "")
    return f"{len(floats)} of {len(floats) + len(integer)} layers with weights run in float ({names})"


def _dequantised(tensor: gs.Tensor) -> bool:
    return len(tensor.inputs) == 1 and tensor.inputs[0].op == "DequantizeLinear"


def _conversions(nodes: list[Node]) -> str:
    """Conversions between floats and codes, beyond one at each end."""
    count = sum(n.op in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear") for n in nodes)
    layers = sum(n.op in _INTEGER | _FLOAT for n in nodes)
    if count <= max(4, layers // 2):
        return ""
    return f"{count} QuantizeLinear and DequantizeLinear nodes run on their own beside {layers} layers"


def _depthwise(nodes: list[Node]) -> str:
    """Depthwise convolutions gain nothing: their work is moving data."""
    convs = [n for n in nodes if n.op == "QLinearConv"]
    deep = [n for n in convs if attribute(n, "group", 1) > 1 and n.inputs[3].shape and n.inputs[3].shape[1] == 1]
    if len(deep) * 4 < len(convs) or not deep:
        return ""
    return f"{len(deep)} of {len(convs)} integer convolutions are depthwise, which onnxruntime runs no faster in int8"


def _no_dot_product() -> str:
    """Processors without an int8 dot product gain little."""
    return "" if dot_product() else "this processor has no int8 dot product (VNNI on x86, dotprod on ARM)"
