"""Half precision as the type of storage alone: weights take half the bytes, all is computed in float32.

    before:  x -> Conv(w) -> y
    after:   x -> Conv(Cast(w half)) -> y

onnxruntime computes the Cast once, when it opens the model.
"""

from typing import cast

import numpy as np
from onnx import TensorProto

from zc.ir.edit import Editor, Names, replace_uses
from zc.ir.graph import Constant, Graph, Node, Variable
from zc.ir.model import Model
from zc.passes.cleanup.operands import computing_scopes
from zc.passes.precision.kinds import Kind
from zc.passes.precision.plan import FITS

SMALLEST = 64
"""Elements below which a Cast takes as many bytes as it saves."""


def store(model: Model, kind: Kind) -> tuple[int, list[tuple[str, str]]]:
    """Store float32 initializers of all scopes in half precision; how many, and which did not fit and why."""
    names, stored, left = Names(model.graph), 0, list[tuple[str, str]]()
    editors: dict[int, Editor] = {}
    for constant, scope in _weights(model):
        loss = kind.loss(constant.values)
        if loss > FITS * 2.0 ** -(kind.digits + 1):
            left.append((constant.name, f"stays in float32: it does not fit {kind.name} (error {100 * loss:.2g} %)"))
            continue
        half = names.constant(f"{constant.name}_{kind.name}", kind.round(constant.values))
        real = Variable(names.take(f"{constant.name}_float32"), np.float32, list(constant.shape))
        replace_uses(constant, real)
        node = Node("Cast", names.take(f"{real.name}_Cast"), {"to": TensorProto.FLOAT}, [half], [real])
        editors.setdefault(id(scope), Editor(scope, names)).add(node)
        stored += 1
    for scope in computing_scopes(model):
        scope.declared = [c for c in scope.declared if c.outputs or c.spare]
        if id(scope) in editors:
            editors[id(scope)].finish()
    return stored, left


def _weights(model: Model) -> list[tuple[Constant, Graph]]:
    """The float32 initializers that nodes read, big enough, each once, and the scope where its Cast belongs."""
    fixed_ends = {id(t) for scope in model.scopes() for t in (*scope.inputs, *scope.outputs)}
    home = {id(c): scope for scope in model.scopes() for c in scope.declared}
    found: dict[int, tuple[Constant, Graph]] = {}
    for scope in computing_scopes(model):
        for node in scope.nodes:
            for tensor in node.inputs:
                big = isinstance(tensor, Constant) and tensor.dtype == np.float32 and tensor.size >= SMALLEST
                if big and id(tensor) not in fixed_ends:
                    # What two scopes read is declared around both; what a pass made stands where it is read.
                    found.setdefault(id(tensor), (cast(Constant, tensor), home.get(id(tensor), scope)))
    return list(found.values())
