"""Sizes of weights: the units in which steps are measured."""

import torch

from zc.training.ops.call import Tensor

LEAST_SIZE = 0.02
"""What weights count as that are all zero, such as new biases."""
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
