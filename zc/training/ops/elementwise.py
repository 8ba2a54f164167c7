"""Element-wise operators and activations."""

from functools import reduce
from typing import Any

import numpy as np
import torch
from torch.nn import functional as nnf

from zc.ir.elements import dtype_of
from zc.training.ops.call import Call, NotTrained, Op, Tensor, plain, together


def torch_type(elem_type: int) -> Any:
    """The torch type of an ONNX element type. NotTrained where there is none."""
    name = dtype_of(elem_type).name
    if name == "bool":
        return torch.bool
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise NotTrained(f"element type {name} has no torch form")
    return found


def _divide(call: Call, x: Tensor, y: Tensor) -> Tensor:
    x, y = together((x, y))
    return torch.div(x, y) if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def _power(call: Call, x: Tensor, y: Tensor) -> Tensor:
    x, y = together((x, y))
    return torch.pow(x, y).to(x.dtype)


def _modulo(call: Call, x: Tensor, y: Tensor) -> Tensor:
    x, y = together((x, y))
    return torch.fmod(x, y) if call.get("fmod", 0) else torch.remainder(x, y)


def _smallest(call: Call, *values: Tensor) -> Tensor:
    return reduce(torch.minimum, together(values))


def _largest(call: Call, *values: Tensor) -> Tensor:
    return reduce(torch.maximum, together(values))


def _sum(call: Call, *values: Tensor) -> Tensor:
    return reduce(torch.add, together(values))


def _mean(call: Call, *values: Tensor) -> Tensor:
    return _sum(call, *values) / len(values)


def _where(call: Call, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    condition, x, y = together((condition, x, y))
    return torch.where(condition, x, y)


def _number(bound: Any) -> Any:
    """A bound as a number, where reading it does not wait for a device and no gradient is lost."""
    if torch.is_tensor(bound) and bound.device.type == "cpu" and not bound.requires_grad:
        return bound.item()
    return bound


def _clip(call: Call, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    bounds: tuple[Any, Any] = (call.get("min"), call.get("max")) if call.opset < 11 else (low, high)
    least, most = (_number(bound) for bound in bounds)
    if least is None and most is None:
        return x
    if torch.is_tensor(least) or torch.is_tensor(most):
        x = x if least is None else torch.maximum(x, torch.as_tensor(least, dtype=x.dtype, device=x.device))
        return x if most is None else torch.minimum(x, torch.as_tensor(most, dtype=x.dtype, device=x.device))
    if least is not None and most is not None and x.is_floating_point() and least < most:
        return nnf.hardtanh(x, least, most)  # its backward is one loop, that of clamp three
    return torch.clamp(x, least, most)


def _cast(call: Call, x: Tensor) -> Tensor:
    wanted = torch_type(int(call.attrs["to"]))
    return x.to(torch.float64 if call.mode.wide and wanted == torch.float32 else wanted)


def _cast_like(call: Call, x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)


def _gelu(call: Call, x: Tensor) -> Tensor:
    return nnf.gelu(x, approximate=call.get("approximate", "none"))


def _prelu(call: Call, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x >= 0, x, x * slope)


def _hard_sigmoid(call: Call, x: Tensor) -> Tensor:
    return torch.clamp(x * call.get("alpha", 0.2) + call.get("beta", 0.5), 0, 1)


def _hard_swish(call: Call, x: Tensor) -> Tensor:
    return x * torch.clamp(x / 6 + 0.5, 0, 1)


def _selu(call: Call, x: Tensor) -> Tensor:
    alpha, gamma = call.get("alpha", 1.6732632423543772), call.get("gamma", 1.0507009873554805)
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(torch.clamp(x, max=0)))


def _celu(call: Call, x: Tensor) -> Tensor:
    return nnf.celu(x, call.get("alpha", 1.0))


def _thresholded(call: Call, x: Tensor) -> Tensor:
    return torch.where(x > call.get("alpha", 1.0), x, torch.zeros_like(x))


def _shrink(call: Call, x: Tensor) -> Tensor:
    bias, limit = call.get("bias", 0.0), call.get("lambd", 0.5)
    zero = torch.zeros_like(x)
    return torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, zero))


def _swish(call: Call, x: Tensor) -> Tensor:
    return x * torch.sigmoid(x * call.get("alpha", 1.0))


def _is_inf(call: Call, x: Tensor) -> Tensor:
    below, above = bool(call.get("detect_negative", 1)), bool(call.get("detect_positive", 1))
    return (torch.isinf(x) & (x > 0) & above) | (torch.isinf(x) & (x < 0) & below)


def constant_of(call: Call) -> Tensor:
    """What a Constant node says."""
    if "value" in call.attrs:
        return as_tensor(call.attrs["value"])
    for key in ("value_float", "value_floats", "value_int", "value_ints"):
        if key in call.attrs:
            return as_tensor(np.array(call.attrs[key], np.float32 if "float" in key else np.int64))
    raise NotTrained("its value is no tensor of numbers")


def as_tensor(values: Any) -> Tensor:
    """A torch tensor of its own from an array. NotTrained for strings and types that torch has not."""
    values = np.asarray(values)
    if values.dtype.kind in "OUS":
        raise NotTrained("text has no torch form")
    if values.dtype.kind == "V" or values.dtype.name in ("bfloat16", "int4", "uint4", "int2", "uint2"):
        if values.dtype.name == "bfloat16":
            return torch.from_numpy(values.astype(np.float32)).to(torch.bfloat16)
        if "int" in values.dtype.name:
            return torch.from_numpy(values.astype(np.uint8 if values.dtype.name.startswith("u") else np.int8))
        raise NotTrained(f"element type {values.dtype.name} has no torch form")
    return torch.from_numpy(np.array(values))


OPS: dict[str, Op] = {
    "Abs": plain(torch.abs),
    "Acos": plain(torch.acos),
    "Acosh": plain(torch.acosh),
    "Add": plain(torch.add),
    "And": plain(torch.logical_and),
    "Asin": plain(torch.asin),
    "Asinh": plain(torch.asinh),
    "Atan": plain(torch.atan),
    "Atanh": plain(torch.atanh),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Ceil": plain(torch.ceil),
    "Celu": _celu,
    "Clip": _clip,
    "Constant": constant_of,
    "Cos": plain(torch.cos),
    "Cosh": plain(torch.cosh),
    "Div": _divide,
    "Elu": lambda call, x: nnf.elu(x, call.get("alpha", 1.0)),
    "Equal": plain(torch.eq),
    "Erf": plain(torch.erf),
    "Exp": plain(torch.exp),
    "Floor": plain(torch.floor),
    "Gelu": _gelu,
    "Greater": plain(torch.gt),
    "GreaterOrEqual": plain(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Identity": plain(lambda x: x),
    "IsInf": _is_inf,
    "IsNaN": plain(torch.isnan),
    "LeakyRelu": lambda call, x: nnf.leaky_relu(x, call.get("alpha", 0.01)),
    "Less": plain(torch.lt),
    "LessOrEqual": plain(torch.le),
    "Log": plain(torch.log),
    "Max": _largest,
    "Mean": _mean,
    "Min": _smallest,
    "Mish": plain(nnf.mish),
    "Mod": _modulo,
    "Mul": plain(torch.mul),
    "Neg": plain(torch.neg),
    "Not": plain(torch.logical_not),
    "Or": plain(torch.logical_or),
    "PRelu": _prelu,
    "Pow": _power,
    "Reciprocal": plain(torch.reciprocal),
    "Relu": plain(torch.relu),
    "Round": plain(torch.round),
    "Selu": _selu,
    "Shrink": _shrink,
    "Sigmoid": plain(torch.sigmoid),
    "Sign": plain(torch.sign),
    "Sin": plain(torch.sin),
    "Sinh": plain(torch.sinh),
    "Softplus": plain(lambda x: nnf.softplus(x, threshold=30.0)),
    "Softsign": plain(nnf.softsign),
    "Sqrt": plain(torch.sqrt),
    "Sub": plain(torch.sub),
    "Sum": _sum,
    "Swish": _swish,
    "Tan": plain(torch.tan),
    "Tanh": plain(torch.tanh),
    "ThresholdedRelu": _thresholded,
    "Where": _where,
    "Xor": plain(torch.logical_xor),
    "com.microsoft.Gelu": plain(nnf.gelu),
    "com.microsoft.QuickGelu": lambda call, x: x * torch.sigmoid(call.get("alpha", 1.702) * x),
}
