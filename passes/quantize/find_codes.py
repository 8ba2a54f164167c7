"""Find the codes of a weight in a graph, whatever form they are stored in."""

import numpy as np

from zc.ir.graph import Array, Constant, Node, Tensor, attribute, fixed_value
from zc.passes.quantize.codes import WeightCodes

PASSED = ("Cast", "Identity")
SHAPING = ("Reshape", "Slice")


def stored_weight(node: Node, position: int = 1) -> WeightCodes | None:
    """The weight that an operator reads; None where it reads none that is stored as codes."""
    return _find(node.inputs[position]) if len(node.inputs) > position else None


def weight_codes(node: Node, position: int = 1) -> WeightCodes | str:
    """The codes that an operator reads as its weight, or the reason why they cannot be chosen anew."""
    if node.op == "MatMulInteger":
        return _integer_codes(node)
    real = node.inputs[position]
    found = _find(real)
    if found is None:
        return "its weight is not stored as codes"
    if len(real.outputs) > 1:
        return f"its weight '{real.name}' is shared"
    if len(found.codes.outputs) > 1 or len(found.scale.outputs) > 1:
        return f"its codes '{found.codes.name}' are shared"
    return found


def loaded_codes(codes: Constant) -> Tensor:
    """The value that holds the codes once a model is loaded: behind a Cast, if there is one."""
    first = codes.outputs[0] if codes.outputs else None
    return first.outputs[0] if first is not None and first.op == "Cast" else codes


def _integer_codes(node: Node) -> WeightCodes | str:
    """Of a product whose scales stand behind it: MatMulInteger -> Cast -> Mul(input scale * weight scale)."""
    stored = _stored(node.inputs[1])
    scaled = node.outputs[0].outputs[0].outputs[0].outputs[0]
    both = next((m for t in scaled.inputs if (m := _maker(t)) is not None and m.op == "Mul"), None)
    scale = None if both is None else next((t for t in both.inputs if isinstance(t, Constant)), None)
    if stored is None or scale is None:
        return "its codes are no constants"
    if len(stored.outputs) > 1 or len(scale.outputs) > 1:
        return f"its codes '{stored.name}' are shared"
    return WeightCodes(stored, scale, None, axis=1)


def what_is_read(node: Node) -> Tensor:
    """The value that a quantised operator reads: before its codes where they are made at run time."""
    maker = _maker(node.inputs[0])
    if maker is not None and maker.op == "DynamicQuantizeLinear":
        return maker.inputs[0]
    return node.inputs[0]


def input_scale(node: Node) -> float | None:
    """The scale of the codes that an operator reads, or None where it reads floats."""
    maker = _maker(node.inputs[0])
    if maker is None or maker.op != "DequantizeLinear" or not isinstance(maker.inputs[1], Constant):
        return None
    return float(maker.inputs[1].values.reshape(-1)[0])


def _find(real: Tensor) -> WeightCodes | None:
    """What a value is made of, if it is a weight stored as codes."""
    shaping: list[Node] = []
    maker = _maker(real)
    while maker is not None and maker.op in SHAPING:
        shaping.append(maker)
        maker = _maker(maker.inputs[0])
    if maker is None or not maker.standard:
        return None
    found = _dequantized(maker) if maker.op == "DequantizeLinear" else _multiplied(maker)
    if found is None or not shaping:
        return found
    places = np.arange(found.codes.size).reshape(tuple(found.codes.shape))
    for node in reversed(shaping):
        moved = _reshaped(node, places) if node.op == "Reshape" else _sliced(node, places)
        if moved is None:
            return None
        places = moved
    return WeightCodes(found.codes, found.scale, found.zero, found.axis, found.block, places)


def _dequantized(node: Node) -> WeightCodes | None:
    given = [t for t in node.inputs if t.name]
    parts = [_stored(t) for t in given]
    if any(p is None for p in parts) or len(parts) < 2:
        return None
    codes, scale, zero = (*parts, None)[:3]
    assert codes is not None
    assert scale is not None
    axis = int(attribute(node, "axis", 1)) % max(len(codes.shape), 1)
    return WeightCodes(codes, scale, zero, axis, int(attribute(node, "block_size", 0)))


def _multiplied(node: Node) -> WeightCodes | None:
    """Mul(Cast(codes), scale) or Mul(Sub(Cast(codes), Cast(zero)), scale)."""
    if node.op != "Mul" or not isinstance(node.inputs[1], Constant):
        return None
    maker, zero = _maker(node.inputs[0]), None
    if maker is not None and maker.op == "Sub":
        zero = _stored(maker.inputs[1])
        maker = _maker(maker.inputs[0]) if zero is not None else None
    codes = _stored(maker.inputs[0]) if maker is not None and maker.op == "Cast" else None
    if codes is None or np.dtype(codes.dtype).kind not in "iuV" or node.inputs[1].dtype != np.float32:
        return None
    return WeightCodes(codes, node.inputs[1], zero, 0)


def _reshaped(node: Node, places: Array) -> Array | None:
    shape = fixed_value(node.inputs[1])
    return None if shape is None or (shape == 0).any() else places.reshape([int(d) for d in shape])


def _sliced(node: Node, places: Array) -> Array | None:
    parts = [fixed_value(t) for t in node.inputs[1:4]]
    if len(node.inputs) > 4 or any(p is None or p.size != 1 for p in parts) or len(parts) < 3:
        return None
    start, stop, axis = (int(p.reshape(-1)[0]) for p in parts if p is not None)
    index: list[slice] = [slice(None)] * places.ndim
    index[axis] = slice(start, stop)
    return places[tuple(index)]


def _maker(tensor: Tensor) -> Node | None:
    node = tensor.inputs[0] if len(tensor.inputs) == 1 else None
    return node if isinstance(node, Node) else None


def _stored(tensor: Tensor) -> Constant | None:
    while (node := _maker(tensor)) is not None and node.op in PASSED:
        tensor = node.inputs[0]
    return tensor if isinstance(tensor, Constant) else None
