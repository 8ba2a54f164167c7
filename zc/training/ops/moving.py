"""Operators that move values about, and those that compute sizes."""

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional as nnf

from zc.training.ops.call import Call, Op, Tensor, axes_of, numbers, together
from zc.training.ops.elementwise import as_tensor, torch_type
from zc.training.ops.products import torch_pads


def _flatten(call: Call, x: Tensor) -> Tensor:
    axis = call.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _reshape(call: Call, x: Tensor, shape: Tensor | None = None) -> Tensor:
    sizes = numbers(call.attrs["shape"] if shape is None else shape)
    keep = not call.get("allowzero", 0)
    return x.reshape(tuple(x.shape[i] if size == 0 and keep else size for i, size in enumerate(sizes)))


def _transpose(call: Call, x: Tensor) -> Tensor:
    return x.permute(call.get("perm") or list(range(x.dim()))[::-1])


def _concat(call: Call, *values: Tensor) -> Tensor:
    return torch.cat(together(values), call.get("axis", 1))


def _split(call: Call, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = call.get("axis", 0)
    given = call.get("split") if sizes is None else numbers(sizes)
    step = -(-x.shape[axis] // call.outputs)
    return tuple(torch.split(x, list(given) if given else step, axis))


def _unsqueeze(call: Call, x: Tensor, given: Tensor | None = None) -> Tensor:
    axes = axes_of(call, given) or []
    rank = x.dim() + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = x.unsqueeze(axis)
    return x


def _squeeze(call: Call, x: Tensor, given: Tensor | None = None) -> Tensor:
    axes = axes_of(call, given)
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _shape(call: Call, x: Tensor) -> Tensor:
    return torch.tensor(list(x.shape)[call.get("start", 0) : call.get("end")], dtype=torch.int64)


def _constant_of_shape(call: Call, shape: Tensor) -> Tensor:
    value = as_tensor(np.asarray(call.attrs["value"])) if "value" in call.attrs else torch.zeros(1)
    return value.reshape(()).expand(tuple(numbers(shape))).clone()


def _expand(call: Call, x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(tuple(numbers(shape)), x.shape))


def _tile(call: Call, x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(*numbers(repeats))


def _range(call: Call, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def _eye_like(call: Call, x: Tensor) -> Tensor:
    dtype = torch_type(call.attrs["dtype"]) if "dtype" in call.attrs else x.dtype
    rows, columns = x.shape
    at = torch.arange(rows, device=x.device)[:, None] + call.get("k", 0)
    return (at == torch.arange(columns, device=x.device)[None]).to(dtype)


def _slice(call: Call, x: Tensor, *given: Tensor | None) -> Tensor:
    if call.opset < 10:
        starts, ends = call.attrs["starts"], call.attrs["ends"]
        axes, steps = call.get("axes"), None
    else:
        starts, ends = numbers(given[0]), numbers(given[1])
        axes = numbers(given[2]) if len(given) > 2 and given[2] is not None else None
        steps = numbers(given[3]) if len(given) > 3 and given[3] is not None else None
    axes = list(range(len(starts))) if axes is None else axes
    for start, end, axis, step in zip(starts, ends, axes, steps or [1] * len(axes), strict=True):
        size = x.shape[axis]
        if step < 0:
            picked = list(range(*slice(start, None if end < -size else end, step).indices(size)))
            x = x.index_select(axis % x.dim(), torch.tensor(picked, dtype=torch.int64, device=x.device))
            continue
        first, last, _ = slice(start, end, step).indices(size)
        at: list[Any] = [slice(None)] * x.dim()
        at[axis] = slice(first, max(first, last), step)
        x = x[tuple(at)]
    return x


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _pad(
    call: Call, x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None
) -> Tensor:
    sizes = numbers(call.attrs["pads"] if pads is None else pads)
    chosen = [a % x.dim() for a in numbers(axes)] if axes is not None else list(range(x.dim()))
    before, after, count = [0] * x.dim(), [0] * x.dim(), len(sizes) // 2
    for i, axis in enumerate(chosen):
        before[axis], after[axis] = sizes[i], sizes[i + count]
    mode = _PAD_MODES[call.get("mode", "constant")]
    if mode == "constant":
        fill = value.item() if value is not None else call.get("value", 0.0)
        if x.dtype == torch.bool:
            return nnf.pad(x.to(torch.uint8), torch_pads(before, after), value=int(fill)).bool()
        return nnf.pad(x, torch_pads(before, after), value=fill)
    used = [i for i in range(x.dim()) if before[i] or after[i]]
    if not used:
        return x
    for axis in used:  # one at a time, as the last axis of three: what torch's modes take
        rows = x.movedim(axis, -1)
        flat = rows.reshape(1, -1, rows.shape[-1])
        x = nnf.pad(flat, (before[axis], after[axis]), mode=mode).reshape(*rows.shape[:-1], -1).movedim(-1, axis)
    return x


def _depth_to_space(call: Call, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = call.attrs["blocksize"]
    if call.get("mode", "DCR") == "CRD":
        return nnf.pixel_shuffle(x, b)
    return x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // (b * b), h * b, w * b)


def _space_to_depth(call: Call, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = call.attrs["blocksize"]
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


def _dropout(call: Call, x: Tensor, *_: Tensor | None) -> Any:
    """As at inference: what is put out is what came in."""
    return (x, torch.ones_like(x, dtype=torch.bool)) if call.outputs > 1 else x


def _trilu(call: Call, x: Tensor, k: Tensor | None = None) -> Tensor:
    function = torch.triu if call.get("upper", 1) else torch.tril
    return function(x, 0 if k is None else int(k.item()))


OPS: dict[str, Op] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Dropout": _dropout,
    "Expand": _expand,
    "EyeLike": _eye_like,
    "Flatten": _flatten,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": lambda call, x: torch.tensor(x.numel()),
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}
