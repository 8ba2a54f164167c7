"""Operators that pick values by index, and those that look for indices."""

import torch
from torch.nn import functional as nnf

from zc.training.ops.call import Call, NotTrained, Op, Tensor, numbers, together


def _wrapped(index: Tensor, size: int, device: torch.device) -> Tensor:
    """Indices from the end as indices from the beginning, int64, where the data is."""
    index = index.to(device=device, dtype=torch.int64)
    return torch.where(index < 0, index + size, index)


def _gather(call: Call, x: Tensor, index: Tensor) -> Tensor:
    axis = call.get("axis", 0) % x.dim()
    index = _wrapped(index, x.shape[axis], x.device)
    if axis == 0 and x.dim() == 2 and x.is_floating_point():
        return nnf.embedding(index, x)
    picked = x.index_select(axis, index.reshape(-1))
    return picked.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def _gather_elements(call: Call, x: Tensor, index: Tensor) -> Tensor:
    axis = call.get("axis", 0)
    return torch.gather(x, axis, _wrapped(index, x.shape[axis], x.device))


def _gather_nd(call: Call, x: Tensor, index: Tensor) -> Tensor:
    index = index.to(device=x.device, dtype=torch.int64)
    batch = call.get("batch_dims", 0)
    if batch == 0:
        return x[tuple(index.unbind(-1))]
    lead = index.shape[:batch]
    grids = torch.meshgrid(*[torch.arange(n, device=x.device) for n in lead], indexing="ij")
    more = index.dim() - 1 - batch
    return x[tuple(g.reshape(*lead, *[1] * more) for g in grids) + tuple(index.unbind(-1))]


_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _scatter_elements(call: Call, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    axis, how = call.get("axis", 0), call.get("reduction", "none")
    x, updates = together((x, updates))
    index = _wrapped(index, x.shape[axis], x.device)
    if how == "none":
        return x.scatter(axis, index, updates)
    return x.scatter_reduce(axis, index, updates, _REDUCTIONS[how], include_self=True)


def _scatter_nd(call: Call, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    how = call.get("reduction", "none")
    if how not in ("none", "add"):
        raise NotTrained(f"ScatterND with reduction={how}")
    x, index, updates = together((x, index.to(torch.int64), updates))
    return x.index_put(tuple(index.unbind(-1)), updates, accumulate=how == "add")


def _best(call: Call, x: Tensor) -> Tensor:
    axis, keep = call.get("axis", 0), bool(call.get("keepdims", 1))
    function = torch.argmax if call.op == "ArgMax" else torch.argmin
    if call.get("select_last_index", 0):
        return x.shape[axis] - 1 - function(x.flip(axis), axis, keep)
    return function(x, axis, keep)


def _top_k(call: Call, x: Tensor, k: Tensor | None = None) -> tuple[Tensor, Tensor]:
    count = int(call.attrs["k"]) if k is None else int(k.reshape(()).item())
    values, index = torch.topk(x, count, call.get("axis", -1), bool(call.get("largest", 1)), True)
    return values, index


def _one_hot(call: Call, index: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    size, axis = int(depth.reshape(()).item()), call.get("axis", -1)
    index = _wrapped(index, size, index.device)
    places = torch.arange(size, device=index.device)
    axis = axis + index.dim() + 1 if axis < 0 else axis
    hot = index.unsqueeze(axis) == places.reshape([-1 if i == axis else 1 for i in range(index.dim() + 1)])
    off, on = values.to(index.device).unbind()
    return torch.where(hot, on, off)


def _non_zero(call: Call, x: Tensor) -> Tensor:
    return torch.nonzero(x).t()


def _cum_sum(call: Call, x: Tensor, axis: Tensor) -> Tensor:
    at = int(axis.item())
    x = x.flip(at) if call.get("reverse", 0) else x
    out = x.cumsum(at) - (x if call.get("exclusive", 0) else 0)
    return out.flip(at) if call.get("reverse", 0) else out


def _grid_sample(call: Call, x: Tensor, grid: Tensor) -> Tensor:
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(call.get("mode", "bilinear"), call.get("mode", "bilinear"))
    corners, padding = bool(call.get("align_corners", 0)), call.get("padding_mode", "zeros")
    return nnf.grid_sample(x, grid, mode, padding, corners)


def _reverse_sequence(call: Call, x: Tensor, lengths: Tensor) -> Tensor:
    time, batch = call.get("time_axis", 0), call.get("batch_axis", 1)
    rows = x.movedim((batch, time), (0, 1))
    at = torch.arange(rows.shape[1], device=x.device)[None]
    size = lengths.to(x.device)[:, None]
    index = torch.where(at < size, size - 1 - at, at)
    return rows[torch.arange(rows.shape[0], device=x.device)[:, None], index].movedim((0, 1), (batch, time))


def _compress(call: Call, x: Tensor, condition: Tensor) -> Tensor:
    axis = call.get("axis")
    index = torch.tensor([i for i, keep in enumerate(numbers(condition)) if keep], device=x.device)
    return x.reshape(-1)[index] if axis is None else x.index_select(axis % x.dim(), index)


OPS: dict[str, Op] = {
    "ArgMax": _best,
    "ArgMin": _best,
    "Compress": _compress,
    "CumSum": _cum_sum,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "GridSample": _grid_sample,
    "NonZero": _non_zero,
    "OneHot": _one_hot,
    "ReverseSequence": _reverse_sequence,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TopK": _top_k,
}
