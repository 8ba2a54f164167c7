"""Does a model stand on integer codes? Told by its operators."""

from typing import cast

from zc.ir.graph import Node
from zc.ir.model import Model

_OPS = frozenset(
    {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"),
        *("QGemm", "QAttention", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulNBits"),
    }
)


def quantised_node(model: Model) -> Node | None:
    """The first node of any scope that reads or writes codes, or None."""
    nodes = (cast(Node, node) for scope in model.scopes() for node in scope.nodes)
    return next((node for node in nodes if node.op in _OPS or node.op.startswith("QLinear")), None)


def is_quantised(model: Model) -> bool:
    """Does anything in the model read or write codes?"""
    return quantised_node(model) is not None
