"""QuantizeLinear and DequantizeLinear as fake quantisation with a straight-through gradient.

Codes are floats on the grid of the integer type. Rounding passes the gradient on; where a code is clamped it is stopped
(Jacob et al., Quantization and Training of Neural Networks, 2018). What is left is the gradient of the formula, which
for a scale is that of learned step sizes (Esser et al., Learned Step Size Quantization, 2020).
"""

from typing import Any

import torch

from zc.training.ops.call import Call, NotTrained, Op, Tensor

_REACH = {
    "uint2": (0, 3),
    "int2": (-2, 1),
    "uint4": (0, 15),
    "int4": (-8, 7),
    "uint8": (0, 255),
    "int8": (-128, 127),
    "uint16": (0, 65535),
    "int16": (-32768, 32767),
    "int32": (-(2**31), 2**31 - 128),  # the largest float32 that is an int32
}


def reach_of(type_name: str) -> tuple[int, int]:
    """The least and largest code of an integer type. NotTrained for others (8-bit floats)."""
    if type_name not in _REACH:
        raise NotTrained(f"codes of type {type_name}")
    return _REACH[type_name]


class _Grid(torch.autograd.Function):
    """Round half to even and clamp; the gradient passes where nothing was clamped."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, low: Any, high: Any) -> Tensor:
        ctx.save_for_backward((values >= low) & (values <= high))
        return torch.clamp(torch.round(values), low, high)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return grad * inside, None, None


def to_codes(x: Tensor, scale: Tensor, zero: Tensor | None, reach: tuple[int, int]) -> Tensor:
    """Clamp(round(x / scale) + zero) as floats; scale and zero have a shape that fits x.

    The zero point is added after rounding, as onnxruntime does it.
    """
    low, high = reach
    if zero is None:
        return _Grid.apply(x / scale, low, high)
    if zero.numel() == 1:
        shift = float(zero)
        codes = _Grid.apply(x / scale, low - shift, high - shift)
        return codes + shift if shift else codes
    return _Grid.apply(x / scale, low - zero, high - zero) + zero


def shift_of(zero: Tensor | None, scale: Tensor, like: Tensor) -> Tensor | None:
    """Zero points as numbers to add to codes; many of them where the codes are, one on the host."""
    if zero is None:
        return None
    return zero.to(device=like.device, dtype=scale.dtype) if zero.numel() > 1 else zero.to(scale.dtype)


def fitted(scale: Tensor, x: Tensor, axis: int, block: int = 0) -> Tensor:
    """A scale or zero point, one of all, one a slice along `axis` or one a block of it, shaped to go with x."""
    if scale.numel() == 1:
        return scale.reshape(())
    if block:
        return scale.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    if scale.dim() == x.dim():
        return scale
    return scale.reshape([-1 if i == axis % x.dim() else 1 for i in range(x.dim())])


def _type_of(call: Call, zero: Tensor | None) -> str:
    if "code_type" in call.attrs:  # of the file; torch has no types below 8 bits
        return str(call.attrs["code_type"])
    return "uint8" if zero is None else str(zero.dtype).removeprefix("torch.")


def _quantize(call: Call, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    axis, block = call.get("axis", 1), call.get("block_size", 0)
    found = shift_of(zero, scale, x)
    shift = None if found is None else fitted(found, x, axis, block)
    return to_codes(x, fitted(scale, x, axis, block), shift, reach_of(_type_of(call, zero)))


def _dequantize(call: Call, codes: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    axis, block = call.get("axis", 1), call.get("block_size", 0)
    codes = codes if codes.is_floating_point() else codes.to(scale.dtype)
    shift = shift_of(zero, scale, codes)
    if shift is not None:
        codes = codes - fitted(shift, codes, axis, block)
    return codes * fitted(scale, codes, axis, block)


def _quantize_dynamically(call: Call, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, scale and zero point of the range that the values take, with zero in it; the gradient sees the codes."""
    with torch.no_grad():
        least, most = x.amin().clamp(max=0), x.amax().clamp(min=0)
        scale = torch.where(most > least, (most - least) / 255, 1.0)
        zero = torch.round(-least / scale).clamp(0, 255)
    codes = _Grid.apply(x / scale, -zero - 1, 256 - zero) + zero  # the ends of the range lie within half a code
    return codes.clamp(0, 255), scale, zero


def centred(codes: Tensor, zero: Tensor | None, axis: int, dtype: torch.dtype) -> Tensor:
    """Codes as floats less their zero point, of which there is one, or one a slice along `axis`."""
    codes = codes if codes.is_floating_point() else codes.to(dtype)
    return codes if zero is None else codes - fitted(zero.to(codes), codes, axis)


OPS: dict[str, Op] = {
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _quantize_dynamically,
    "QuantizeLinear": _quantize,
}
