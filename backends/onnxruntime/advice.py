"""What onnxruntime's session wants of a model, and what keeps Q/DQ from fusing into its int8 kernels."""

from collections.abc import Iterator
from typing import cast

import numpy as np

from zc.backends.qdq import codes_type, dequantised, nodes_of, quantisers, scale_of, stored_codes
from zc.backends.rules import Found, Rule, at_nodes
from zc.ir.graph import Constant, Node, describe, fixed_value
from zc.ir.model import Model
from zc.passes.quantize.saturation import could_saturate
from zc.pipeline.base import Note
from zc.target import Target

_GUIDE = "onnxruntime documentation, 'Quantize ONNX models'"
_FUSION = "onnxruntime, core/optimizer/qdq_transformer/selectors_actions"
_WEIGHTED = ("Conv", "Gemm", "MatMul")


def session_wishes(model: Model, target: Target) -> dict[str, str]:
    """Session configuration entries under which onnxruntime runs this model as it was meant."""
    wishes = {}
    if any(True for _ in _signed(model)):
        wishes.update(target.session)
    if target.slow_subnormals and any(_subnormal(c) for c in model.constants()):
        wishes["session.set_denormal_as_zero"] = "1"
    return wishes


def wishes_told(name: str, wishes: dict[str, str]) -> tuple[Note, ...]:
    """How to ask for them, a note each."""
    return tuple(
        Note("info", name, f"its session wants SessionOptions.add_session_config_entry({key!r}, {value!r})")
        for key, value in wishes.items()
    )


def saturates_told(model: Model, name: str, target: Target) -> tuple[Note, ...]:
    """A warning where codes that were made for another kind of x86 processor would saturate on this machine's."""
    from zc.kernels.cpu import dot_product  # it brings Numba along

    if not target.saturates_on or dot_product():
        return ()
    layers = [n for n in nodes_of(model, *_WEIGHTED) if len(n.inputs) > 1 and dequantised(n.inputs[0])]
    stored = [(node, stored_codes(node.inputs[1])) for node in layers]
    coded = [(node, found[1]) for node, found in stored if found is not None and found[1].dtype == np.int8]
    count = sum(could_saturate(node, codes) for node, codes in coded)
    if not count:
        return ()
    what = (
        f"{count} of {len(coded)} layers could saturate on this machine's processor, which has no VNNI: what runs here "
        "may be far from what the codes say; --target ort-cpu:cpu=auto makes weights that cannot, and with the option "
        "session.x64quantprecision=1 a session adds up exactly, in more time"
    )
    return (Note("warning", name, what),)


def _subnormal(constant: Constant) -> bool:
    if constant.dtype != np.float32:
        return False
    sizes = np.abs(constant.values)
    return bool(((sizes > 0) & (sizes < np.finfo(np.float32).tiny)).any())


def _signed(model: Model) -> Iterator[Found]:
    for node in quantisers(model):
        if codes_type(node) == np.int8 and fixed_value(node.inputs[0]) is None:
            yield describe(node), "its activations become int8"


def _scale(node: Node) -> str | None:
    scale = scale_of(node)
    if scale is None or scale.dtype == np.uint8:
        return None
    values = np.asarray(scale, np.float64)
    if not np.isfinite(values).all() or (values < np.finfo(np.float32).tiny).any():
        return f"scale '{node.inputs[1].name}' is {values.min():g}; it must be positive, finite and normal"
    return None


def _float_output(node: Node) -> str | None:
    if not dequantised(node.inputs[0]) or not dequantised(node.inputs[1]):
        return None
    value = node.outputs[0]
    while len(value.outputs) == 1 and value.outputs[0].op in {"Relu", "Clip"}:
        value = value.outputs[0].outputs[0]
    readers = {n.op for n in value.outputs}
    return None if readers == {"QuantizeLinear"} else "nothing rounds its output to codes, so it runs in float"


def _float_bias(node: Node) -> str | None:
    if len(node.inputs) < 3 or node.inputs[2].is_empty() or not dequantised(node.inputs[0]):
        return None
    bias = node.inputs[2]
    return None if dequantised(bias) else f"its bias '{bias.name}' is float, so it runs in float"


def _half_coded(node: Node) -> str | None:
    if len(node.inputs) < 2:
        return None
    data, weight = (dequantised(t) for t in node.inputs[:2])
    if data == weight:
        return None
    bare = node.inputs[1 if data else 0].name
    return f"one factor comes from codes and '{bare}' does not, so it runs in float"


def _moved_floats(node: Node) -> str | None:
    maker = node.inputs[0].inputs[0] if node.inputs[0].inputs else None
    if maker is None or maker.op not in {"Flatten", "Reshape", "Transpose", "Squeeze"}:
        return None
    if len(node.inputs) < 2 or not dequantised(node.inputs[1]) or not dequantised(maker.inputs[0]):
        return None
    return f"{maker.op} '{describe(cast(Node, maker))}' stands between DequantizeLinear and it, so it runs in float"


RULES: tuple[Rule, ...] = (
    Rule(
        "scale-normal",
        "Scales are positive, finite and normal.",
        "ONNX operator QuantizeLinear",
        "quantise again with zc, which gives dead channels scale 1",
        at_nodes(_scale, "QuantizeLinear", "DequantizeLinear"),
    ),
    Rule(
        "conv-rounds-output",
        "What a quantised Conv puts out goes into QuantizeLinear.",
        _FUSION,
        "quantise with zc, or put QuantizeLinear and DequantizeLinear behind it",
        at_nodes(_float_output, "Conv"),
        "slow",
    ),
    Rule(
        "bias-in-integers",
        "The bias of a quantised layer is int32 behind a DequantizeLinear, with the scale sx * sw.",
        _FUSION,
        "quantise with zc for this target",
        at_nodes(_float_bias, "Conv", "Gemm"),
        "slow",
    ),
    Rule(
        "both-factors-coded",
        "Data and weight both come out of DequantizeLinear.",
        _FUSION,
        "quantise both, or leave both float (quantize:skip=NODE)",
        at_nodes(_half_coded, *_WEIGHTED),
        "slow",
    ),
    Rule(
        "moves-on-codes",
        "Flatten, Reshape and Transpose stand on the codes, not between DequantizeLinear and a product.",
        _FUSION,
        "put the operator in front of DequantizeLinear, as quantize does",
        at_nodes(_moved_floats, "Gemm", "MatMul"),
        "slow",
    ),
    Rule(
        "no-conv-integer",
        "ConvInteger has no fast kernel.",
        _GUIDE + ", 'Method selection'",
        "use quantize (static) for convolutions",
        at_nodes(lambda node: "it takes several times as long as a float Conv", "ConvInteger"),
        "slow",
    ),
)

X86_RULES: tuple[Rule, ...] = (
    *RULES,
    Rule(
        "activations-uint8",
        "Activations are uint8: the kernels for int8 ones are slow on x86-64, and only half of the layers fuse.",
        _GUIDE + ", 'Data type selection'",
        "quantise with --target ort-cpu",
        _signed,
        "slow",
    ),
)
