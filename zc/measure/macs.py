"""Multiply-accumulates of one node, from the shapes of its inputs and outputs: one rule an operator.

A multiply-accumulate is one multiplication and one addition in a convolution, matrix product, recurrence or attention.
Biases, activations, normalisations and element-wise operators count as none, as is usual in the literature.
"""

import math
from collections.abc import Callable, Sequence

from zc.errors import ZcError
from zc.ir.graph import Node, Tensor, attribute, describe
from zc.ir.shapes import made_up, static_shape


def macs_of(node: Node) -> int:
    """Multiply-accumulates of one run of the node; 0 for operators that have none.

    Raises:
        ZcError: a needed shape is not known in full, or the form is one that the rule does not cover.
    """
    rule = _RULES.get((node.domain or "") if not node.standard else "", {}).get(node.op)
    if rule is None:
        return 0
    try:
        return rule(node)
    except (IndexError, ValueError) as err:
        raise ZcError(f"its inputs do not have the shapes that {node.op} takes") from err


def counts(node: Node) -> bool:
    """Does this operator have multiply-accumulates at all?"""
    return node.op in _RULES.get((node.domain or "") if not node.standard else "", {})


def _why(tensor: Tensor) -> str:
    if tensor.shape is None:
        return f"the rank of '{tensor.name}' is not known"
    sizes = ["?" if d is None or made_up(d) else str(d) for d in tensor.shape]
    return f"'{tensor.name}' is [{','.join(sizes)}], without a size for each dimension"


def _shape(tensor: Tensor) -> tuple[int, ...]:
    shape = static_shape(tensor)
    if shape is None:
        raise ZcError(_why(tensor))
    return shape


def _size(tensor: Tensor) -> int:
    return math.prod(_shape(tensor))


def _conv(weight: int) -> Callable[[Node], int]:
    """Outputs x (channels of the group x kernel)."""
    return lambda node: _size(node.outputs[0]) * math.prod(_shape(node.inputs[weight])[1:])


def _conv_transpose(node: Node) -> int:
    return _size(node.inputs[0]) * math.prod(_shape(node.inputs[1])[1:])


def _matmul(node: Node) -> int:
    """Outputs x length of the reduction, which is the last axis of A."""
    return _size(node.outputs[0]) * _shape(node.inputs[0])[-1]


def _fused_matmul(node: Node) -> int:
    if attribute(node, "transBatchA", 0):
        raise ZcError("transBatchA is not covered")
    return _size(node.outputs[0]) * _shape(node.inputs[0])[-2 if attribute(node, "transA", 0) else -1]


def _gemm(node: Node) -> int:
    return _size(node.outputs[0]) * _shape(node.inputs[0])[0 if attribute(node, "transA", 0) else 1]


def _matmul_nbits(node: Node) -> int:
    return _size(node.inputs[0]) * int(attribute(node, "N", 0))


def _recurrent(node: Node) -> int:
    """Steps x batch x all gates of all directions: each element of W and R is used once a step."""
    steps, batch = _shape(node.inputs[0])[:2]
    return steps * batch * (_size(node.inputs[1]) + _size(node.inputs[2]))


def _einsum(node: Node) -> int:
    """The product of the sizes of all labels, for two operands; one operand multiplies nothing."""
    if len(node.inputs) > 2:
        raise ZcError(f"an Einsum of {len(node.inputs)} operands has no fixed order")
    if len(node.inputs) < 2:
        return 0
    equation = attribute(node, "equation", "")
    text = equation.decode() if isinstance(equation, bytes) else str(equation)
    terms = text.replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms, node.inputs, strict=True):
        shape = _shape(tensor)
        for label, size in zip(_labels(term, len(shape)), shape, strict=True):
            sizes[label] = max(sizes.get(label, 1), size)
    return math.prod(sizes.values())


def _labels(term: str, rank: int) -> Sequence[str]:
    """A label an axis; the axes of an ellipsis are counted from the right, as they broadcast."""
    before, dots, after = term.partition("...")
    hidden = rank - len(before) - len(after) if dots else 0
    return [*before, *(f"...{i}" for i in range(hidden, 0, -1)), *after]


def _attention(node: Node) -> int:
    """Q K^T and the weighted sum of V (ONNX Attention, opset 23), on [B,heads,S,D], or [B,S,heads*D]."""
    q, k, v = (_shape(t) for t in node.inputs[:3])
    if len(q) == 4:
        batch, heads, steps, width = q
        total, value_width = k[2], v[3]
    else:
        heads, kv_heads = int(attribute(node, "q_num_heads", 0)), int(attribute(node, "kv_num_heads", 0))
        if not heads or not kv_heads:
            raise ZcError("q_num_heads and kv_num_heads are missing")
        batch, steps, width = q[0], q[1], q[2] // heads
        total, value_width = k[1], v[2] // kv_heads
    if len(node.inputs) > 4 and node.inputs[4].name:
        total += _shape(node.inputs[4])[2]
    return batch * heads * steps * total * (width + value_width)


def _ms_attention(node: Node) -> int:
    """Projections to Q, K and V, then attention of every step to every step (com.microsoft Attention)."""
    if len(node.inputs) > 4 and node.inputs[4].name:
        raise ZcError("a past state is not covered")
    batch, steps, width = _shape(node.inputs[0])
    columns = _shape(node.inputs[1])[1]
    return batch * steps * width * columns + 2 * batch * steps * steps * (columns // 3)


def _ms_multi_head(node: Node) -> int:
    """Attention without projections (com.microsoft MultiHeadAttention), Q, K and V apart as [B,S,heads*D]."""
    if len(node.inputs) < 3 or not node.inputs[1].name or not node.inputs[2].name:
        raise ZcError("packed Q, K and V are not covered")
    q, k, v = (_shape(t) for t in node.inputs[:3])
    if len(k) != 3 or len(v) != 3:
        raise ZcError("a past state is not covered")
    return q[0] * q[1] * k[1] * (q[2] + v[2])


_RULES: dict[str, dict[str, Callable[[Node], int]]] = {
    "": {
        "Conv": _conv(1),
        "ConvInteger": _conv(1),
        "QLinearConv": _conv(3),
        "DeformConv": _conv(1),
        "ConvTranspose": _conv_transpose,
        "Gemm": _gemm,
        "MatMul": _matmul,
        "MatMulInteger": _matmul,
        "QLinearMatMul": _matmul,
        "Einsum": _einsum,
        "LSTM": _recurrent,
        "GRU": _recurrent,
        "RNN": _recurrent,
        "Attention": _attention,
    },
    "com.microsoft": {
        "FusedConv": _conv(1),
        "FusedGemm": _gemm,
        "QGemm": _gemm,
        "FusedMatMul": _fused_matmul,
        "TransposeMatMul": _fused_matmul,
        "MatMulIntegerToFloat": _matmul,
        "DynamicQuantizeMatMul": _matmul,
        "MatMulNBits": _matmul_nbits,
        "DynamicQuantizeLSTM": _recurrent,
        "Attention": _ms_attention,
        "MultiHeadAttention": _ms_multi_head,
    },
}


def place(node: Node) -> str:
    """How a report names the node: `node 'x' (Conv)`."""
    return f"node '{describe(node)}' ({node.op})"
