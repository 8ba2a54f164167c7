"""Reductions over axes."""

from collections.abc import Callable
from typing import Any

import torch

from zc.training.ops.call import Call, Op, Tensor, axes_of


def _reduction(function: Callable[[Tensor, list[int], bool], Any]) -> Op:
    def run(call: Call, x: Tensor, given: Tensor | None = None) -> Tensor:
        axes = axes_of(call, given)
        if not axes and call.get("noop_with_empty_axes", 0):
            return x
        return function(x, list(axes) if axes else list(range(x.dim())), bool(call.get("keepdims", 1)))

    return run


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((a % x.dim() for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return (
        x.mean(axes, keepdim=keep)
        if x.is_floating_point()
        else x.sum(axes, keepdim=keep).div(_count(x, axes), rounding_mode="trunc")
    )


def _count(x: Tensor, axes: list[int]) -> int:
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    return count


OPS: dict[str, Op] = {
    "ReduceL1": _reduction(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "ReduceL2": _reduction(lambda x, axes, keep: torch.linalg.vector_norm(x, dim=axes, keepdim=keep)),
    "ReduceLogSum": _reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep).log()),
    "ReduceLogSumExp": _reduction(lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep)),
    "ReduceMax": _reduction(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMean": _reduction(_mean),
    "ReduceMin": _reduction(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "ReduceProd": _reduction(_product),
    "ReduceSum": _reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "ReduceSumSquare": _reduction(lambda x, axes, keep: x.square().sum(axes, keepdim=keep)),
}
