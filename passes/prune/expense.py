"""What the atoms of each group cost in multiply-accumulates."""

import numpy as np

from zc.ir.graph import describe
from zc.measure.cost import Cost
from zc.passes.prune.groups import Groups
from zc.passes.prune.labels import Ints


def macs_of_atoms(groups: Groups, cost: Cost) -> list[float]:
    """Multiply-accumulates that leave with one atom of each group, as long as nothing else left before.

    A node costs in proportion to the channels that it makes and to those that it takes. Nodes of unknown cost count
    as none.

    cost: of the model that was analysed (`zc.measure.cost.count`).
    """
    macs = {layer.name: layer.macs or 0 for layer in cost.layers}
    result = np.zeros(len(groups.groups))
    for product in groups.flow.products:
        result += macs.get(describe(product.node), 0) * _share(groups, product.labels)
    for one in groups.flow.contractions:
        result += macs.get(describe(one.node), 0) * _share(groups, one.labels)
    return [float(m) / group.size for m, group in zip(result, groups.groups, strict=True)]


def _share(groups: Groups, labels: Ints) -> np.ndarray:
    """Which part of an axis is of each group."""
    owners = groups.group_of[groups.classes.roots[labels]]
    return np.bincount(owners[owners >= 0], minlength=len(groups.groups)) / len(labels)
