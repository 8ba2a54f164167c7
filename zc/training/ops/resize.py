"""Resize and Upsample: along each axis a product with a matrix of interpolation weights."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from zc.training.ops.call import Call, NotTrained, Op, Tensor, numbers

Floats = npt.NDArray[np.float64]


def _places(call: Call, old: int, new: int, scale: float) -> Floats:
    """Where each output position lies on the input axis (ONNX Resize, coordinate_transformation_mode)."""
    at = np.arange(new, dtype=np.float64)
    mode = call.get("coordinate_transformation_mode", "half_pixel")
    if call.op == "Upsample" or (call.opset < 11):
        mode = "asymmetric"
    if mode == "half_pixel":
        return (at + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return (at + 0.5) / scale - 0.5 if new > 1 else np.zeros(1)
    if mode == "asymmetric":
        return at / scale
    if mode == "align_corners":
        return at * (old - 1) / (new - 1) if new > 1 else np.zeros(1)
    if mode == "half_pixel_symmetric":
        return old / 2 * (1 - new / (scale * old)) + (at + 0.5) / scale - 0.5
    raise NotTrained(f"{call.op} with coordinate_transformation_mode={mode}")


def _nearest(places: Floats, how: str) -> Floats:
    if how == "floor":
        return np.floor(places)
    if how == "ceil":
        return np.ceil(places)
    return np.ceil(places - 0.5) if how == "round_prefer_floor" else np.floor(places + 0.5)


def _matrix(call: Call, old: int, new: int, scale: float) -> Floats:
    """Weights [new, old] of one axis."""
    mode, places = call.get("mode", "nearest"), _places(call, old, new, scale)
    matrix, rows = np.zeros((new, old)), np.arange(new)
    if mode == "nearest":
        how = call.get("nearest_mode", "round_prefer_floor") if call.opset >= 11 and call.op == "Resize" else "floor"
        matrix[rows, np.clip(_nearest(places, how), 0, old - 1).astype(int)] = 1
        return matrix
    base = np.floor(places)
    part = places - base
    if mode == "linear":
        taps = [(0, 1 - part), (1, part)]
    elif mode == "cubic":
        a = call.get("cubic_coeff_a", -0.75)
        taps = [(k, _cubic(part - k, a)) for k in (-1, 0, 1, 2)]
    else:
        raise NotTrained(f"{call.op} with mode={mode}")
    inside = np.zeros(new)
    for offset, weight in taps:
        where = base + offset
        out = (where < 0) | (where > old - 1)
        weight = np.where(out, 0, weight) if call.get("exclude_outside", 0) else weight
        np.add.at(matrix, (rows, np.clip(where, 0, old - 1).astype(int)), weight)
        inside += weight
    return matrix / inside[:, None] if call.get("exclude_outside", 0) else matrix


def _cubic(distance: Floats, a: float) -> Floats:
    x = np.abs(distance)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _resize(call: Call, x: Tensor, *given: Tensor | None) -> Tensor:
    if call.get("antialias", 0) or call.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NotTrained("Resize with antialias or keep_aspect_ratio_policy")
    inputs = [*given, None, None, None]
    if call.op == "Upsample" or call.opset < 11:
        scales, sizes = inputs[0] if inputs[0] is not None else call.get("scales"), None
    else:
        scales, sizes = inputs[1], inputs[2]
    axes = [a % x.dim() for a in call.get("axes") or range(x.dim())]
    factors = numbers(scales) if scales is not None else []
    wanted = _sizes(x, axes, factors, sizes)
    for i, axis in enumerate(axes):
        old, new = x.shape[axis], wanted[i]
        scale = factors[i] if factors else new / old
        if old == new and scale == 1:
            continue
        matrix = torch.from_numpy(_matrix(call, old, new, scale)).to(device=x.device, dtype=x.dtype)
        x = torch.matmul(x.movedim(axis, -1), matrix.t()).movedim(-1, axis)
    return x


def _sizes(x: Tensor, axes: Sequence[int], factors: Sequence[float], sizes: Tensor | None) -> list[int]:
    if factors:
        return [math.floor(x.shape[a] * f) for a, f in zip(axes, factors, strict=True)]
    if sizes is None:
        raise NotTrained("Resize without scales and sizes")
    return [int(v) for v in numbers(sizes)]


OPS: dict[str, Op] = {"Resize": _resize, "Upsample": _resize}
