"""How many MACs, parameters and bytes are left when so many atoms of each group have gone, without cutting anything."""

from dataclasses import dataclass

import numpy as np

from zc.ir.graph import Array, describe
from zc.measure.cost import Cost
from zc.passes.prune.groups import Groups
from zc.passes.prune.labels import Ints
from zc.passes.prune.rules.recurrent import GATES


@dataclass(eq=False)
class Resource:
    """A quantity as a sum of terms; each shrinks with what leaves along its axes.

    total(share) = rest + sum over terms of size * product over axes of (1 - shares of the axis @ gone)
    """

    name: str
    rest: float
    sizes: Array
    """[terms]."""
    axes: tuple[Array, ...]
    """For each axis, [terms, groups]: the part of it that each group holds."""

    def left(self, gone: Array) -> float:
        """What is left; gone: float [groups], the share of each group that has left."""
        product = self.sizes.copy()
        for axis in self.axes:
            product *= 1 - axis @ gone
        return self.rest + float(product.sum())

    def saved(self, gone: Array) -> Array:
        """By group, how fast the quantity falls with the share that leaves, [groups]."""
        factors = [1 - axis @ gone for axis in self.axes]
        result = np.zeros(len(gone))
        for place, axis in enumerate(self.axes):
            others = self.sizes.copy()
            for other, factor in enumerate(factors):
                if other != place:
                    others *= factor
            result += others @ axis
        return result


def macs(groups: Groups, cost: Cost) -> Resource:
    """Multiply-accumulates; nodes of unknown cost count as none.

    cost: of the model that was analysed.
    """
    nodes = {layer.name: float(layer.macs or 0) for layer in cost.layers if layer.macs}
    place = {name: i for i, name in enumerate(nodes)}
    made, taken = (np.zeros((len(nodes), len(groups.groups))) for _ in range(2))
    for product in groups.flow.products:
        if describe(product.node) in place:
            made[place[describe(product.node)]] = share_of(groups, product.labels)
    sizes = np.array(list(nodes.values()))
    for one in groups.flow.contractions:
        if describe(one.node) in place:
            share = share_of(groups, one.labels)
            if one.node.op in GATES:  # sums over inputs and over units, in proportion to their numbers
                inputs, units = (int(t.shape[-1]) for t in one.node.inputs[1:3])
                share = share * (inputs if one.place == 0 else units) / (inputs + units)
            taken[place[describe(one.node)]] += share
    return Resource("macs", 0.0, sizes, (made, taken))


def parameters(groups: Groups, cost: Cost) -> Resource:
    """Elements of weights."""
    return _stored(groups, "params", cost.params, sizes=False)


def stored_bytes(groups: Groups, cost: Cost) -> Resource:
    """Bytes of all constants."""
    return _stored(groups, "bytes", cost.bytes, sizes=True)


def _stored(groups: Groups, name: str, total: int, *, sizes: bool) -> Resource:
    terms: list[float] = []
    shares: list[tuple[Array, Array]] = []
    none = np.zeros(len(groups.groups))
    for constant in groups.flow.constants:
        parts = [share_of(groups, block.labels.ravel()) for block in groups.flow.of(constant)]
        parts = [part for part in parts if part.any()]
        if parts and len(parts) < 3:
            terms.append(float(constant.nbytes if sizes else constant.size))
            shares.append((parts[0], parts[1] if len(parts) > 1 else none))
    rest = total - sum(terms)
    axes = tuple(np.array([s[i] for s in shares]).reshape(len(terms), len(none)) for i in range(2))
    return Resource(name, rest, np.array(terms), axes)


def share_of(groups: Groups, labels: Ints) -> Array:
    """Which part of an axis is of each group."""
    owners = groups.group_of[groups.classes.roots[labels]]
    return np.bincount(owners[owners >= 0], minlength=len(groups.groups)) / len(labels)
