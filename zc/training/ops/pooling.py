"""Pooling."""

import math

import torch
from torch.nn import functional as nnf

from zc.training.ops.call import Call, NotTrained, Op, Tensor
from zc.training.ops.products import torch_pads, window_pads

_MAX = {1: nnf.max_pool1d, 2: nnf.max_pool2d, 3: nnf.max_pool3d}
_MEAN = {1: nnf.avg_pool1d, 2: nnf.avg_pool2d, 3: nnf.avg_pool3d}


def _windows(call: Call, x: Tensor) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    """Kernel, strides, dilations, pads before and after; `ceil_mode` as more padding at the end."""
    kernel = list(call.attrs["kernel_shape"])
    rank = len(kernel)
    strides, dilations = list(call.get("strides") or [1] * rank), list(call.get("dilations") or [1] * rank)
    before, after = window_pads(call, x.shape[2:], kernel, strides, dilations)
    return kernel, strides, dilations, before, after


def _overhang(call: Call, x: Tensor, windows: tuple[list[int], ...]) -> list[int]:
    """How far the last window of each axis reaches over the padded end, which `ceil_mode` allows."""
    kernel, strides, dilations, before, after = windows
    if not call.get("ceil_mode", 0):
        return [0] * len(kernel)
    over = []
    for i, size in enumerate(x.shape[2:]):
        reach, padded = (kernel[i] - 1) * dilations[i] + 1, size + before[i] + after[i]
        count = math.ceil((padded - reach) / strides[i]) + 1
        count -= (count - 1) * strides[i] >= size + before[i]  # a window may not begin in the padding at the end
        over.append(max((count - 1) * strides[i] + reach - padded, 0))
    return over


def _max_pool(call: Call, x: Tensor) -> Tensor:
    if call.outputs > 1:
        raise NotTrained("MaxPool with indices")
    windows = _windows(call, x)
    kernel, strides, dilations, before, after = windows
    over = _overhang(call, x, windows)
    rank = len(kernel)
    if before == after and not any(over) and all(2 * p <= k for p, k in zip(before, kernel, strict=True)):
        return _MAX[rank](x, kernel, strides, before, dilations)
    end = [a + o for a, o in zip(after, over, strict=True)]
    return _MAX[rank](nnf.pad(x, torch_pads(before, end), value=float("-inf")), kernel, strides, 0, dilations)


def _average_pool(call: Call, x: Tensor) -> Tensor:
    windows = _windows(call, x)
    kernel, strides, dilations, before, after = windows
    over, rank = _overhang(call, x, windows), len(windows[0])
    counted = bool(call.get("count_include_pad", 0))
    if any(d != 1 for d in dilations):
        raise NotTrained("AveragePool with dilations")
    if before == after and not any(over) and all(2 * p <= k for p, k in zip(before, kernel, strict=True)):
        return _MEAN[rank](x, kernel, strides, before, False, counted)
    end = [a + o for a, o in zip(after, over, strict=True)]
    sums = _MEAN[rank](nnf.pad(x, torch_pads(before, end)), kernel, strides)
    # Each window is divided by how many of its places count: those of the input, or those of the padding too.
    ones = torch.ones_like(x[:1, :1])
    ones = nnf.pad(ones, torch_pads(before, after), value=1.0 if counted else 0.0)
    share = _MEAN[rank](nnf.pad(ones, torch_pads([0] * rank, over)), kernel, strides)
    return sums / share


def _lp_pool(call: Call, x: Tensor) -> Tensor:
    p = call.get("p", 2)
    kernel, strides, _, before, after = _windows(call, x)
    powers = nnf.pad(x.abs().pow(p), torch_pads(before, after))
    return (_MEAN[len(kernel)](powers, kernel, strides) * math.prod(kernel)).pow(1 / p)


def _spatial(x: Tensor) -> list[int]:
    return list(range(2, x.dim()))


OPS: dict[str, Op] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda call, x: x.mean(dim=_spatial(x), keepdim=True),
    "GlobalLpPool": lambda call, x: x.norm(p=call.get("p", 2), dim=_spatial(x), keepdim=True),
    "GlobalMaxPool": lambda call, x: x.amax(dim=_spatial(x), keepdim=True),
    "LpPool": _lp_pool,
    "MaxPool": _max_pool,
}
