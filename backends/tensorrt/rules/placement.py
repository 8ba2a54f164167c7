"""Rules on where Q/DQ stand: what lets TensorRT fuse into int8 kernels. Breaking one costs time, not numbers."""

from collections.abc import Iterable, Iterator
from typing import cast

from zc.backends.qdq import DEQUANTISE, QUANTISE, dequantised, maker, nodes_of, quantised, scale_of, stored_codes
from zc.backends.rules import Found, Rule, at_nodes
from zc.backends.tensorrt.rules.codes import FOUR_BITS
from zc.backends.tensorrt.target import SMALLEST, TIED, WEIGHTED
from zc.ir.graph import Node, Tensor, attribute, describe, fixed_value
from zc.ir.model import Model

_PLACEMENT = "TensorRT documentation, 'Q/DQ Layer-Placement Recommendations'"
_AGAIN = "quantise the float model with --target tensorrt"
_POINTWISE = frozenset({"Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "Elu", "HardSwish", "HardSigmoid", "Gelu"})
_NORMAL = frozenset({"Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization", "GroupNormalization"})
_MOVES = frozenset({"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "MaxPool", "Identity", "Slice", "Pad"})


def _coded(node: Node) -> bool:
    """Does a weighted operator take codes on both sides?"""
    return len(node.inputs) > 1 and all(dequantised(t) for t in node.inputs[:2])


def _readers(tensor: Tensor) -> Iterator[Node]:
    return (cast(Node, n) for n in tensor.outputs)


def _half(node: Node) -> str | None:
    if len(node.inputs) < 2:
        return None
    data, weight = (dequantised(t) for t in node.inputs[:2])
    if data == weight or (weight and _few_bits(node)):
        return None
    return f"'{node.inputs[1 if data else 0].name}' is float beside codes"


def _few_bits(node: Node) -> bool:
    """Has a layer a weight of 4 bits, or with scales by block? Then its arithmetic is float."""
    stored = stored_codes(node.inputs[1])
    if stored is None:
        return False
    dequantise, codes = stored
    return codes.dtype in FOUR_BITS or bool(attribute(dequantise, "block_size", 0))


def _wanted(tensor: Tensor) -> bool:
    """Does something that runs on codes read a value, at once or behind what only moves it?"""
    stack, seen = [tensor], 0
    while stack and seen < 1000:
        seen += 1
        for node in _readers(stack.pop()):
            if node.op in WEIGHTED | TIED | {"Add", "AveragePool", "GlobalAveragePool"}:
                return True
            if node.op in _MOVES | {QUANTISE, DEQUANTISE}:
                stack += node.outputs
    return False


def _outputs(model: Model) -> Iterable[Found]:
    """QuantizeLinear behind a weighted operator that no one needs in codes."""
    for node in nodes_of(model, QUANTISE):
        made = maker(node.inputs[0])
        while made is not None and made.op in _POINTWISE:
            made = maker(made.inputs[0])
        if made is not None and made.op in WEIGHTED and not _wanted(node.outputs[0]):
            yield describe(node), f"it rounds what {made.op} '{describe(made)}' puts out, and nothing needs codes of it"


def _fusing(tensor: Tensor) -> Node | None:
    """The quantised convolution that could fuse with the Add that alone reads this value."""
    made = maker(tensor)
    if made is None or made.op not in {"Conv", "ConvTranspose"} or not _coded(made) or len(tensor.outputs) != 1:
        return None
    return made


def _behind_codes(tensor: Tensor) -> Node | None:
    """The quantised convolution whose rounded output this is, read by nothing else."""
    if not dequantised(tensor) or len(tensor.outputs) != 1:
        return None
    codes = cast(Node, maker(tensor)).inputs[0]
    made = maker(codes)
    if made is None or made.op != QUANTISE or len(codes.outputs) != 1 or len(made.inputs[0].outputs) != 1:
        return None
    conv = maker(made.inputs[0])
    return conv if conv is not None and conv.op in {"Conv", "ConvTranspose"} and _coded(conv) else None


def _sums(model: Model) -> Iterator[Node]:
    for node in nodes_of(model, "Add"):
        if len(node.inputs) == 2 and all(fixed_value(t) is None for t in node.inputs):
            yield node


def _skip(model: Model) -> Iterable[Found]:
    for node in _sums(model):
        convs = [i for i, t in enumerate(node.inputs) if _fusing(t) is not None]
        if convs and not any(dequantised(t) for t in node.inputs):
            other = node.inputs[1 - convs[0]]
            yield describe(node), f"the skip '{other.name}' comes in float beside a convolution that would fuse"


def _branch(model: Model) -> Iterable[Found]:
    for node in _sums(model):
        if any(_fusing(t) is not None for t in node.inputs) or not all(dequantised(t) for t in node.inputs):
            continue
        conv = next((c for c in map(_behind_codes, node.inputs) if c is not None), None)
        if conv is not None:
            yield describe(node), f"what {conv.op} '{describe(conv)}' puts out for it alone is rounded"


def _scales(model: Model) -> Iterable[Found]:
    for node in nodes_of(model, *TIED):
        around = [scale_of(cast(Node, maker(t))) for t in node.inputs if dequantised(t)]
        around += [scale_of(n) for out in node.outputs[:1] for n in _readers(out) if n.op == QUANTISE]
        values = {float(s.reshape(-1)[0]) for s in around if s is not None and s.size == 1}
        if len(values) > 1:
            yield describe(node), f"around it are the scales {', '.join(f'{v:.6g}' for v in sorted(values))}"


def _parts(node: Node) -> str | None:
    coded = [dequantised(t) for t in node.inputs]
    if any(coded) and not all(coded):
        return f"'{node.inputs[coded.index(False)].name}' is float beside codes"
    if all(coded) and not quantised(node.outputs[0]):
        readers = [n for n in _readers(node.outputs[0]) if n.op in WEIGHTED]
        return f"{readers[0].op} '{describe(readers[0])}' reads it in float" if readers else None
    return None


def _small(node: Node) -> str | None:
    if not _coded(node):
        return None
    shape = node.inputs[1].shape
    if shape is None or len(shape) != 2 or not all(isinstance(d, int) for d in shape):
        return None
    if min(shape) < SMALLEST:
        return f"its weight is {shape[0]} x {shape[1]}"
    rows = node.inputs[0].shape
    if rows is not None and all(d == 1 for d in rows[:-1]):
        return "it multiplies one row"
    return None


def _normal(node: Node) -> str | None:
    return f"it reads codes of '{node.inputs[0].name}'" if node.inputs and dequantised(node.inputs[0]) else None


def _batchnorm(node: Node) -> str | None:
    made = maker(node.inputs[0])
    while made is not None and made.op in {QUANTISE, DEQUANTISE}:
        made = maker(made.inputs[0])
    if made is not None and made.op in {"Conv", "ConvTranspose"} and _coded(made):
        return f"it stands behind the quantised {made.op} '{describe(made)}'"
    return None


def _activation(node: Node) -> str | None:
    """Conv -> Q -> DQ -> Relu: the activation would fuse into the convolution if nothing stood between them."""
    conv = _behind_codes(node.inputs[0]) if node.inputs else None
    return f"codes stand between {conv.op} '{describe(conv)}' and it" if conv is not None else None


PLACEMENT: tuple[Rule, ...] = (
    Rule(
        "both-factors-coded",
        "Data and weight of a layer both come out of DequantizeLinear (weights of 4 bits may stand alone).",
        _PLACEMENT,
        "quantise both, or neither: quantize:skip=NODE",
        at_nodes(_half, *sorted(WEIGHTED)),
        "slow",
    ),
    Rule(
        "inputs-not-outputs",
        "What goes into a weighted layer is quantised, what comes out is not, unless something needs codes of it.",
        _PLACEMENT,
        _AGAIN,
        _outputs,
        "slow",
    ),
    Rule(
        "skip-in-codes",
        "A residual Add takes codes of the skip beside a convolution in float.",
        _PLACEMENT,
        _AGAIN,
        _skip,
        "slow",
    ),
    Rule(
        "branch-in-float",
        "A residual Add takes its convolution in float, to fuse with it; of two, that of the longer branch.",
        _PLACEMENT,
        _AGAIN,
        _branch,
        "slow",
    ),
    Rule(
        "one-scale-around",
        "All that goes into and comes out of a Concat or MaxPool on codes has one scale.",
        _PLACEMENT,
        _AGAIN,
        _scales,
        "slow",
    ),
    Rule(
        "whole-concat",
        "All that is concatenated is in codes, or nothing of it, and so is what reads it.",
        _PLACEMENT,
        _AGAIN,
        at_nodes(_parts, "Concat"),
        "slow",
    ),
    Rule(
        "no-small-products",
        f"Products with depth or columns below {SMALLEST}, or of one row, stay float.",
        "NVIDIA Model Optimizer documentation, ONNX quantisation",
        "quantize:skip=NODE, or quantise with --target tensorrt",
        at_nodes(_small, "Gemm", "MatMul"),
        "slow",
    ),
    Rule(
        "normalisations-in-float",
        "Softmax and normalisations read floats.",
        _PLACEMENT,
        _AGAIN,
        at_nodes(_normal, *sorted(_NORMAL)),
        "slow",
    ),
    Rule(
        "no-batchnorm",
        "BatchNormalization is folded into the convolution in front of it before that is quantised.",
        _PLACEMENT,
        "run the pass fuse on the float model first",
        at_nodes(_batchnorm, "BatchNormalization"),
        "slow",
    ),
    Rule(
        "activation-first",
        "QuantizeLinear stands behind the activation of a convolution, not in front of it.",
        _PLACEMENT,
        _AGAIN,
        at_nodes(_activation, "Relu", "Clip", "LeakyRelu", "Sigmoid"),
        "slow",
    ),
)
