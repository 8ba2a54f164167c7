"""The groups that prune would remove, for a training that draws them to zero."""

from typing import TYPE_CHECKING

import numpy as np

from zc.errors import ZcError
from zc.ir.graph import Constant
from zc.ir.model import Model
from zc.passes.prune.prune import analyse

if TYPE_CHECKING:
    from zc.training.sparsity import Place


def group_places(model: Model) -> "list[Place]":
    """Where the channels that prune removes together lie in the weights.

    Raises:
        ZcError: no channel of the model can be pruned.
    """
    from zc.training.sparsity import Place

    groups = analyse(model.copy())
    atoms = np.concatenate([g.atoms for g in groups.groups]) if groups.groups else np.zeros(0, np.int64)
    if not len(atoms):
        raise ZcError(f"{model.name}: sparsity has nothing to act on: no channel can be pruned")
    number = np.full(groups.flow.labels.count, -1, np.int64)
    number[atoms] = np.arange(len(atoms))
    places = []
    for product in groups.flow.products:
        if not isinstance(product.weight, Constant):
            continue
        for block in groups.flow.of(product.weight):
            own = number[groups.classes.roots[block.labels]]
            if (own >= 0).any():
                places.append(Place(product.weight.name, tuple(block.axes), own))
    return places
