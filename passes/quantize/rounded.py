"""The float model with its activations rounded to codes and back; weights stay as they are.

    before:  x -> Conv(w) -> Relu -> y -> Conv ...
    after:   x -> Q -> DQ -> Conv(w) -> Relu -> y -> Q -> DQ -> Conv ...

What it puts out shows what ranges of activations cost, without the noise that rounded weights add.
"""

from collections.abc import Mapping

import numpy as np

from zc.ir.edit import Editor, Names
from zc.ir.graph import Node, Tensor, Variable
from zc.ir.model import Model
from zc.passes.quantize.placement import Placement
from zc.passes.quantize.scheme import Scale

FLOAT_KERNELS = {"session.disable_quant_qdq": "1"}
"""Session configuration under which Q and DQ run as they stand, so that no float weight is rounded on the way."""


def round_activations(model: Model, place: Placement, scales: Mapping[int, Scale]) -> tuple[Model, dict[str, str]]:
    """A copy in which integer operators read rounded activations; and by what name a rounded value is found.

    place: of the model's main graph. scales: of each value with codes, by id.
    """
    copy = model.copy()
    names = Names(copy.graph)
    editor = Editor(copy.graph, names)
    readers = {(id(site.node), 0) for site in place.sites} | {(id(node), i) for node, i in place.residuals}
    weights = {(id(site.node), 1) for site in place.sites}
    outs: dict[int, Variable] = {}
    for node, twin in list(zip(model.graph.nodes, copy.graph.nodes, strict=True)):
        for i, value in enumerate(node.inputs):
            rounds = id(value) in place.native or (id(node), i) in readers
            if id(value) in scales and rounds and (id(node), i) not in weights:
                if id(value) not in outs:
                    outs[id(value)] = _round(editor, names, twin.inputs[i], scales[id(value)])
                twin.inputs[i] = outs[id(value)]
    for value, twin_value in zip(model.graph.outputs, copy.graph.outputs, strict=True):
        if id(value) in scales and id(value) in place.native and id(value) not in outs:
            outs[id(value)] = _round(editor, names, twin_value, scales[id(value)])
    editor.finish()
    known = {id(t): t.name for n in model.graph.nodes for t in n.outputs}
    return copy, {known[key]: out.name for key, out in outs.items() if key in known and key in place.native}


def _round(editor: Editor, names: Names, value: Tensor, scale: Scale) -> Variable:
    parameters = [names.constant(f"{value.name}_scale", np.array(scale.scale)), names.constant("zero", scale.zero)]
    codes = Variable(names.take(f"{value.name}_q"), scale.dtype, value.shape)
    out = names.variable(f"{value.name}_dq", like=value)
    editor.add(Node("QuantizeLinear", names.take("q"), {}, [value, *parameters], [codes]))
    editor.add(Node("DequantizeLinear", names.take("dq"), {}, [codes, *parameters], [out]))
    return out
