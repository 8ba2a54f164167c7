"""What a model computes of constants alone is computed once, when it is loaded, as onnxruntime does."""

import numpy as np

from zc.execute import Runner
from zc.ir.edit import make_constant, sweep
from zc.ir.elements import PACKED_BITS, elem_type_of
from zc.ir.graph import Constant, Node, Tensor, fixed_value
from zc.ir.model import Model
from zc.runtime.islands import cut_out


def settle_constants(model: Model) -> None:
    """Make initializers of constants that nodes of the main graph make, in place.

    before:  Constant -> x                 w int4 -> Cast -> w8 -> DQ        w float -> Q -> w8 -> DQ
    after:   x                                       w8 int8 -> DQ                     w8 int8 -> DQ

    Weights of 4 bits are computed with in 8. Weights that a tool left in float, with their rounding as nodes, become
    codes; onnxruntime itself rounds them.
    """
    kept = {id(t) for t in (*model.graph.inputs, *model.graph.outputs)}
    nodes = [n for n in model.graph.nodes if isinstance(n, Node) and n.standard and not kept & {*map(id, n.outputs)}]
    found = {id(n): n for n in nodes if n.op == "Constant" and _make(n.outputs[0], fixed_value(n.outputs[0]))}
    found |= {id(n): n for n in nodes if n.op == "Cast" and _make(n.outputs[0], _widened(n))}
    rounding = [n for n in nodes if n.op == "QuantizeLinear" and all(_fixed(t, kept) for t in n.inputs if t.name)]
    if rounding:
        codes = Runner(cut_out(model, rounding, [], [n.outputs[0] for n in rounding]), threads=1).run({})
        found |= {id(n): n for n in rounding if _make(n.outputs[0], codes[n.outputs[0].name])}
    if found:
        for node in found.values():
            node.inputs.clear()
        sweep(model.graph)


def _make(tensor: Tensor, values: np.ndarray | None) -> bool:
    if values is None:
        return False
    make_constant(tensor, values)
    return True


def _fixed(tensor: Tensor, kept: set[int]) -> bool:
    return isinstance(tensor, Constant) and id(tensor) not in kept


def _widened(node: Node) -> np.ndarray | None:
    """What a Cast of a constant of 4 bits to one of 8 makes."""
    values, kind = fixed_value(node.inputs[0]), node.outputs[0].dtype
    if values is None or elem_type_of(values.dtype) not in PACKED_BITS or kind not in (np.int8, np.uint8):
        return None
    return values.astype(kind)
