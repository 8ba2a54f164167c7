"""Optimisers whose steps are in units of the sizes of weights."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from zc.training.ops.call import Tensor
from zc.training.roles import Matrices

_TINY = 1e-12
_FEWEST, _MOST = 8, 256
"""Least and largest number of the rows or columns, whichever are fewer, of a matrix that is stepped as a whole. Smaller
ones have no weak directions to bring up; larger ones cost more to make orthogonal than most layers cost to train."""
_LARGEST = 2**20
"""Numbers in such a matrix at most, for the same reason."""
_MOMENTUM = 0.95
_ITERATIONS = 5
_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Takes singular values between 0 and 1 to about 1 in five turns (Jordan et al., Muon, 2024)."""


class UnitAdam(torch.optim.Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019) whose steps are in units of each weight's size."""

    def __init__(
        self, groups: Iterable[dict[str, Any]], sizes: dict[Tensor, Tensor], betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        """groups: of `params`, with a `weight_decay`; the rate is set in each as `lr`. sizes: units of each weight."""
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})
        self.sizes, self.betas = sizes, betas

    def step(self, closure: Any = None) -> None:
        """One step along the gradients."""
        with torch.no_grad():
            for group in self.param_groups:
                for weight in group["params"]:
                    if weight.grad is None:
                        continue
                    if group["weight_decay"]:
                        weight.mul_(1 - group["lr"] * group["weight_decay"])
                    self._move(weight, group["lr"])

    def _move(self, weight: Tensor, rate: float) -> None:
        (first, second), state = self.betas, self.state[weight]
        if not state:
            state.update(step=0, mean=torch.zeros_like(weight), square=torch.zeros_like(weight))
        state["step"] += 1
        state["mean"].lerp_(weight.grad, 1 - first)
        state["square"].mul_(second).addcmul_(weight.grad, weight.grad, value=1 - second)
        noise = state["square"].sqrt().div_(math.sqrt(1 - second ** state["step"])).add_(_TINY)
        weight.add_((state["mean"] / noise).mul_(self.sizes[weight]), alpha=-rate / (1 - first ** state["step"]))


class UnitMuon(UnitAdam):
    """Muon for matrices, `UnitAdam` for the rest.

    A step of a matrix is its gradient's momentum with all singular values made alike, so that directions with small
    gradients are learned as fast as those with large ones: in a net that was cut, most of what is missing lies there.
    Gradient and step are taken in units of rows and columns, so the result does not depend on how scales are shared out
    between layers, and the root mean square of a step is the rate times the unit.
    (Jordan et al., Muon: An Optimizer for Hidden Layers in Neural Networks, 2024; Liu et al., Muon is Scalable for LLM
    Training, 2025.)
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], sizes: dict[Tensor, Tensor], matrices: Mapping[Tensor, Matrices]
    ) -> None:
        """See `UnitAdam`. matrices: which weights are matrices, and of what size; too small or large ones are left."""
        super().__init__(groups, sizes)
        self.matrices = {w: shape for w, shape in matrices.items() if _as_a_whole(shape)}

    def _move(self, weight: Tensor, rate: float) -> None:
        shape = self.matrices.get(weight)
        if shape is None:
            super()._move(weight, rate)
            return
        state, size = self.state[weight], self.sizes[weight]
        if not state:
            state.update(mean=torch.zeros_like(weight))
        slope = weight.grad * size
        state["mean"].lerp_(slope, 1 - _MOMENTUM)
        ahead = slope.lerp_(state["mean"], _MOMENTUM)
        step = orthogonal(ahead.reshape(shape)).mul_(math.sqrt(max(shape[1:])))
        weight.add_(step.reshape(weight.shape).mul_(size), alpha=-rate)


def _as_a_whole(shape: Matrices) -> bool:
    return _FEWEST <= min(shape[1:]) <= _MOST and shape[1] * shape[2] <= _LARGEST


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices [N, R, C] with singular values near 1 and the same singular vectors, by Newton-Schulz iteration."""
    a, b, c = _QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + _TINY)
    for _ in range(_ITERATIONS):
        square = x @ x.transpose(1, 2)
        x = a * x + (b * square + c * square @ square) @ x
    return x.transpose(1, 2) if tall else x
