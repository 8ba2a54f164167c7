"""Both ways of every If, whatever the samples of a proof would choose."""

import numpy as np

from zc.ir.edit import Names
from zc.ir.model import Model


def count_branches(model: Model) -> int:
    """How many If nodes there are, in all scopes."""
    return sum(node.op == "If" for scope in model.scopes() for node in scope.nodes)


def forced(model: Model, taken: bool | None) -> Model:
    """A copy in which every If takes its then branch, or its else branch; the model itself for None."""
    if taken is None:
        return model
    copy = model.copy()
    names = Names(copy.graph)
    for scope in copy.scopes():
        for node in scope.nodes:
            if node.op == "If":
                node.inputs[0] = names.constant("taken", np.array(taken))
    return copy
