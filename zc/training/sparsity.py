"""Group sparsity: whole groups of weights are drawn to zero together, so that pruning them costs little.

(Wen et al., Learning Structured Sparsity in Deep Neural Networks, 2016.) Membership is by number: every position along
some axes of a weight belongs to one group, or to none (-1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from zc.ir.graph import Array
from zc.training.graph import GraphModule
from zc.training.ops.call import Tensor


@dataclass(frozen=True, eq=False)
class Place:
    """Where groups lie in a weight."""

    weight: str
    axes: tuple[int, ...]
    groups: Array
    """int64, of the sizes of those axes: the number of the group, or -1."""


class GroupPenalty:
    """Strength times the mean over groups of the norm of each, in units of the mean norm at the start."""

    def __init__(self, module: GraphModule, places: Sequence[Place], strength: float) -> None:
        self.strength = strength
        self.count = 1 + max((int(p.groups.max()) for p in places), default=-1)
        self._places = []
        for place in places:
            weight = module.weights.get(place.weight)
            if weight is not None:
                index = torch.from_numpy(np.where(place.groups < 0, self.count, place.groups).ravel())
                self._places.append((weight.parameter, place.axes, index))
        with torch.no_grad():
            self._unit = float(self._norms().mean()) if self._places else 1.0

    def _norms(self) -> Tensor:
        """The norm of each group, [count]."""
        device = self._places[0][0].device
        energy = torch.zeros(self.count + 1, device=device)
        for parameter, axes, index in self._places:
            others = [a for a in range(parameter.dim()) if a not in axes]
            power = parameter.square().sum(others) if others else parameter.square()
            energy = energy.index_add(0, index.to(device), power.reshape(-1))
        return (energy[:-1] + 1e-12).sqrt()

    def __call__(self) -> Tensor:
        """The penalty, a scalar with a gradient."""
        return self.strength * self._norms().mean() / self._unit
