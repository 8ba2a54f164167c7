"""Sizes of weights, and an Adam that steps in units of them."""

import math
from collections.abc import Iterable
from typing import Any

import torch

from zc.training.ops.call import Tensor

LEAST_SIZE = 0.02
"""What weights count as that are all zero, such as new biases."""
_TINY = 1e-12
_LEAST_PART = 0.01
"""What a filter near zero counts as, in units of its tensor's size."""


def units(weight: Tensor) -> Tensor:
    """The size of each weight as steps should see it, of a shape that broadcasts with the weight's.

    Of a matrix or filters [O, I, ...] the root mean square of the row times that of the column, over that of the whole
    (Shazeer and Stern, Adafactor, 2018, factor second moments so); of a vector its own. Folded BatchNormalization
    spreads the scales of channels widely, in depthwise filters a hundredfold: a step that fits the large ones ruins the
    small. Steps in these units change a net alike however scales are shared out between its layers.
    """
    square = weight.detach().double().square()
    if weight.dim() < 2:
        whole = square.mean().sqrt().to(weight.dtype)
        return torch.where(whole > 0, whole, LEAST_SIZE)
    rest = tuple(range(2, weight.dim()))
    table = square.mean(rest) if rest else square
    whole = float(table.mean())
    if whole == 0:
        return torch.full((), LEAST_SIZE, dtype=weight.dtype)
    least = whole * _LEAST_PART**2
    rows, columns = table.mean(1, keepdim=True).clamp(min=least), table.mean(0, keepdim=True).clamp(min=least)
    size = (rows * columns / whole).sqrt()
    return size.reshape(*size.shape, *(1 for _ in rest)).to(weight.dtype)


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
                    if weight.grad is not None:
                        self._move(weight, group["lr"], group["weight_decay"])

    def _move(self, weight: Tensor, rate: float, decay: float) -> None:
        (first, second), state = self.betas, self.state[weight]
        if not state:
            state.update(step=0, mean=torch.zeros_like(weight), square=torch.zeros_like(weight))
        state["step"] += 1
        state["mean"].lerp_(weight.grad, 1 - first)
        state["square"].mul_(second).addcmul_(weight.grad, weight.grad, value=1 - second)
        noise = state["square"].sqrt().div_(math.sqrt(1 - second ** state["step"])).add_(_TINY)
        if decay:
            weight.mul_(1 - rate * decay)
        weight.add_((state["mean"] / noise).mul_(self.sizes[weight]), alpha=-rate / (1 - first ** state["step"]))
