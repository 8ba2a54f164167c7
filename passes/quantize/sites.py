"""Sites: the weighted operators that can run in integers, with what an int8 kernel needs to know of each."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from zc.errors import ZcError
from zc.ir.graph import Array, Constant, Graph, Node, Tensor, attribute, describe, fixed_value
from zc.target import Target


@dataclass(frozen=True, eq=False)
class Site:
    """A Conv, Gemm or MatMul with a constant weight, written as one: y = op(x, factor * weight) + bias."""

    node: Node
    weight: Tensor
    axis: int
    """Axis of the weight that is the output channel."""
    factor: float = 1.0
    """Gemm's alpha, folded into the weight's scale."""
    bias: Array | None = None
    """float32[channels], Gemm's beta applied."""
    channel_axis: int = 1
    """Axis of the output that is the channel."""
    takes_bias: bool = True
    """Has the operator an input for a bias?"""

    @property
    def source(self) -> Tensor:
        """The value whose codes it reads."""
        return self.node.inputs[0]

    @property
    def output(self) -> Tensor:
        """What it puts out, before any activation."""
        return self.node.outputs[0]

    def weight_values(self) -> Array:
        """The weight with `factor` applied, float32."""
        values = fixed_value(self.weight)
        assert values is not None
        return values if self.factor == 1.0 else (values * np.float32(self.factor)).astype(np.float32)


def match_site(node: Node, graph: Graph, target: Target) -> Site | str:
    """The site that a node of `target.weighted_ops` is, or the reason why it must stay float.

    ZcError when its weight holds NaN or infinite numbers.
    """
    match: dict[str, Any] = {
        "Conv": _match_conv,
        "ConvTranspose": _match_transposed,
        "Gemm": _match_gemm,
        "MatMul": _match_matmul,
    }
    if node.op not in match:
        return f"zc knows no int8 form of {node.op}"
    if len(node.inputs) < 2:
        return "it has no weight"
    if isinstance(node.inputs[0], Constant):
        return "its data input is a constant"
    weight = fixed_value(node.inputs[1], graph)
    if weight is None:
        return _not_constant(node, graph)
    if weight.dtype != np.float32:
        return f"its weight is {weight.dtype}, not float32"
    if not np.isfinite(weight).all():
        raise ZcError(
            f"node '{describe(node)}': weight '{node.inputs[1].name}' holds NaN or infinite numbers; "
            f"mend the model, or leave the node in float with quantize:skip={describe(node)}"
        )
    if weight.size == 0:
        return "its weight is empty"
    if node.op in {"Gemm", "MatMul"} and weight.ndim == 2:
        if min(weight.shape) < target.least_product:
            return f"{target.name} gains nothing by products of depth or width below {target.least_product}"
        if target.least_product > 1 and rows_of(node.inputs[0]) == 1:
            return f"{target.name} gains nothing by products of one row"
    return cast("Site | str", match[node.op](node, weight, graph))


def rows_of(tensor: Tensor) -> int | None:
    """The rows of a product's left factor: its elements but for the last axis; None where a size is open."""
    shape = tensor.shape
    if shape is None or not all(isinstance(d, int) for d in shape[:-1]):
        return None
    return int(np.prod(shape[:-1], dtype=np.int64))


def _not_constant(node: Node, graph: Graph) -> str:
    weight = node.inputs[1]
    if isinstance(weight, Constant):
        return f"weight '{weight.name}' is a graph input, so its values can change at run time; make it an initializer"
    if fixed_value(node.inputs[0], graph) is not None:
        return "its weight stands on the left, where the int8 kernel has no scale for each channel"
    return "both factors are computed at run time; only constant ones become int8"


def _bias(tensor: Tensor | None, channels: int, graph: Graph) -> Array | str | None:
    """The bias as float32[channels], None without one, or the reason why it cannot be integer."""
    if tensor is None or tensor.is_empty():
        return None
    values = fixed_value(tensor, graph)
    if values is None:
        return f"its bias '{tensor.name}' is not constant"
    if values.dtype != np.float32 or not np.isfinite(values).all():
        return f"its bias '{tensor.name}' is not finite float32"
    if values.size not in {1, channels} or (values.ndim > 0 and values.shape[-1] != values.size):
        return f"its bias '{tensor.name}' has shape {list(values.shape)}, not one number for each channel"
    return np.broadcast_to(values.reshape(-1), (channels,))


def _match_conv(node: Node, weight: Array, graph: Graph) -> Site | str:
    bias = _bias(node.inputs[2] if len(node.inputs) > 2 else None, weight.shape[0], graph)
    return bias if isinstance(bias, str) else Site(node, node.inputs[1], axis=0, bias=bias)


def _match_transposed(node: Node, weight: Array, graph: Graph) -> Site | str:
    if attribute(node, "group", 1) != 1:
        return "its channels are in groups, which no single axis of the weight tells apart"
    bias = _bias(node.inputs[2] if len(node.inputs) > 2 else None, weight.shape[1], graph)
    return bias if isinstance(bias, str) else Site(node, node.inputs[1], axis=1, bias=bias)


def _match_gemm(node: Node, weight: Array, graph: Graph) -> Site | str:
    if attribute(node, "transA", 0):
        return "its activations are transposed (transA)"
    alpha, beta = float(attribute(node, "alpha", 1.0)), float(attribute(node, "beta", 1.0))
    if alpha <= 0:
        return f"alpha is {alpha:g}"
    axis = 0 if attribute(node, "transB", 0) else 1
    bias = _bias(node.inputs[2] if len(node.inputs) > 2 else None, weight.shape[axis], graph)
    if isinstance(bias, str):
        return bias
    if bias is not None and beta != 1.0:
        bias = (bias * np.float32(beta)).astype(np.float32)
    return Site(node, node.inputs[1], axis=axis, factor=alpha, bias=bias)


def _match_matmul(node: Node, weight: Array, graph: Graph) -> Site | str:
    if weight.ndim != 2:
        return f"its weight has {weight.ndim} dimensions; the int8 kernel takes 2"
    return Site(node, node.inputs[1], axis=1, channel_axis=-1, takes_bias=False)
