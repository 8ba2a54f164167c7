"""Which constants of a model are weights, and which node each belongs to."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from zc.ir.external import stored_bytes
from zc.ir.graph import Constant, Graph, Node, Tensor, attribute
from zc.ir.model import Model

_CODES = frozenset({"int2", "uint2", "int4", "uint4", "int8", "uint8", "int16", "uint16"})
_RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
)

# Inputs that set how an operator works, rather than being learned: they count as bytes, not as parameters.
_SETTINGS: dict[str, frozenset[int]] = {
    "Clip": frozenset({1, 2}),
    "Pad": frozenset({1, 2}),
    "Resize": frozenset({1, 2, 3}),
    "Upsample": frozenset({1}),
    "Dropout": frozenset({1, 2}),
    "OneHot": frozenset({1, 2}),
    "Range": frozenset({0, 1, 2}),
    "QuantizeLinear": frozenset({1, 2}),
    "DequantizeLinear": frozenset({1, 2}),
    "ConvInteger": frozenset({2, 3}),
    "MatMulInteger": frozenset({2, 3}),
    "MatMulIntegerToFloat": frozenset({2, 3, 4, 5}),
    "DynamicQuantizeMatMul": frozenset({2, 3}),
    "MatMulNBits": frozenset({2, 3, 4}),
    "DynamicQuantizeLSTM": frozenset({8, 9, 10, 11}),
}
# Operators with a scale and a zero point beside each tensor: the inputs that hold data.
_DATA: dict[str, frozenset[int]] = {
    "QLinearConv": frozenset({0, 3, 8}),
    "QGemm": frozenset({0, 3, 6}),
    "QLinearMatMul": frozenset({0, 3}),
    "QLinearAdd": frozenset({0, 3}),
    "QLinearMul": frozenset({0, 3}),
}
_INT32_BIAS = {("DequantizeLinear", 0), ("QLinearConv", 8), ("QGemm", 6)}


@dataclass
class Share:
    """What one node owns: parameters (elements) and bytes as stored in a file."""

    params: int = 0
    bytes: int = 0
    largest_rank: int = field(default=0, repr=False)


def shares(model: Model) -> dict[int, Share]:
    """What each node owns, by the node's id; a weight that several nodes use belongs to the first of them.

    Nodes that only prepare constants (DequantizeLinear or Transpose of a weight) own nothing: theirs goes to the node
    that computes with it.
    """
    weights = _weights(model)
    fixed = _preparers(model)
    found: dict[int, Share] = {}
    claimed: set[int] = set()
    for scope in model.scopes():
        for node in scope.nodes:
            if id(node) in fixed:
                continue
            share = Share()
            for constant in _reached(node, fixed, claimed):
                share.params += weights.get(id(constant), 0)
                share.bytes += bytes_of(constant)
                share.largest_rank = max(share.largest_rank, len(constant.shape) if id(constant) in weights else 0)
            found[id(node)] = share
    return found


def total_params(model: Model) -> int:
    """Elements of all weights, each counted once."""
    return sum(_weights(model).values())


def total_bytes(model: Model) -> int:
    """Bytes of all constants in the file: initializers (used or not) and the values of Constant nodes."""
    inner = (c for scope in model.scopes() for node in scope.nodes if (c := _value_of(node)) is not None)
    return sum(bytes_of(c) for c in {id(c): c for c in (*model.constants(), *inner)}.values())


def disk_bytes(model: Model) -> int:
    """Bytes of the files that a model just read stands in, with its external data."""
    return sum(path.stat().st_size for path in model.files())


def bytes_of(constant: Constant) -> int:
    """Bytes that a constant takes in a file; strings count their UTF-8."""
    if constant.dtype.kind in "OUS":
        return sum(len(s if isinstance(s, bytes) else str(s).encode()) for s in constant.values.reshape(-1).tolist())
    return stored_bytes(constant.dtype, tuple(constant.shape))


def _weights(model: Model) -> dict[int, int]:
    """Elements of every constant that some node uses as a weight, by the constant's id."""
    found: dict[int, int] = {}
    for scope in model.scopes():
        for node in scope.nodes:
            for index, tensor in enumerate(node.inputs):
                constant = _constant(tensor)
                if constant is not None and _as_weight(node, index, constant):
                    found[id(constant)] = constant.size * _packed(node, index)
    return found


def _as_weight(node: gs.Node, index: int, constant: Constant) -> bool:
    if not constant.shape:  # numbers of a formula: sqrt(2), an epsilon
        return False
    if node.op in _DATA or node.op.startswith("QLinear"):
        if index not in _DATA.get(node.op, {0}):
            return False
    elif index in _SETTINGS.get(node.op, ()):
        return False
    kind = np.dtype(constant.dtype).name
    if kind == "int32":
        return (node.op, index) in _INT32_BIAS
    return kind.startswith(("float", "bfloat")) or kind in _CODES


def _packed(node: gs.Node, index: int) -> int:
    """Weights in one stored element: MatMulNBits keeps several in a byte."""
    return 8 // int(attribute(node, "bits", 4)) if node.op == "MatMulNBits" and index == 1 else 1


def _value_of(node: gs.Node) -> Constant | None:
    value = node.attrs.get("value") if node.op == "Constant" else None
    return value if isinstance(value, Constant) else None


def _constant(tensor: Tensor) -> Constant | None:
    """The constant that a tensor is, or that a Constant node gives it."""
    if isinstance(tensor, Constant):
        return tensor
    return _value_of(tensor.inputs[0]) if len(tensor.inputs) == 1 else None


def _preparers(model: Model) -> set[int]:
    """Ids of the nodes whose outputs are the same in every run: all they take is constant."""
    fixed: set[int] = set()
    for scope in model.scopes():
        for node in scope.nodes:
            if node.op in _RANDOM or any(isinstance(v, Graph) for v in node.attrs.values()):
                continue
            named = [t for t in node.inputs if t.name]
            if (named or node.op == "Constant") and all(_is_fixed(t, lambda n: id(n) in fixed) for t in named):
                fixed.add(id(node))
    return fixed


def _is_fixed(tensor: Tensor, is_preparer: Callable[[gs.Node], bool]) -> bool:
    return isinstance(tensor, Constant) or (len(tensor.inputs) == 1 and is_preparer(tensor.inputs[0]))


def _reached(node: Node | gs.Node, fixed: set[int], claimed: set[int]) -> Iterator[Constant]:
    """The constants that a node uses, directly or through preparing nodes, and that no node before it has claimed."""
    stack: list[gs.Node] = [node]
    while stack:
        current = stack.pop()
        for tensor in (_value_of(current), *current.inputs):
            if isinstance(tensor, Constant) and id(tensor) not in claimed:
                claimed.add(id(tensor))
                yield tensor
            elif tensor is not None and len(tensor.inputs) == 1:
                producer = tensor.inputs[0]
                if id(producer) in fixed and id(producer) not in claimed:
                    claimed.add(id(producer))
                    stack.append(producer)
