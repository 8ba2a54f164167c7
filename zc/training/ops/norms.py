"""Normalisations and Softmax."""

import math

import torch
from torch.nn import functional as nnf

from zc.training.ops.call import Call, NotTrained, Op, Tensor


def _batch_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """With the statistics of the batch, `mean` and `var` are moved in place (torch's unbiased variance)."""
    if call.outputs > 1:
        raise NotTrained("BatchNormalization with more outputs than one")
    train = call.mode.batch_statistics
    momentum, eps = 1 - call.get("momentum", 0.9), call.get("epsilon", 1e-5)
    return nnf.batch_norm(x, mean, var, scale, bias, train, momentum, eps)


def _instance_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return nnf.instance_norm(x, weight=scale, bias=bias, eps=call.get("epsilon", 1e-5))


def _layer_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    if call.outputs > 1:
        raise NotTrained("LayerNormalization with more outputs than one")
    shape = x.shape[call.get("axis", -1) % x.dim() :]
    if scale.shape == shape and (bias is None or bias.shape == shape):
        return nnf.layer_norm(x, shape, scale, bias, call.get("epsilon", 1e-5))
    out = nnf.layer_norm(x, shape, eps=call.get("epsilon", 1e-5)) * scale
    return out if bias is None else out + bias


def _rms_norm(call: Call, x: Tensor, scale: Tensor) -> Tensor:
    axes = tuple(range(call.get("axis", -1) % x.dim(), x.dim()))
    return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + call.get("epsilon", 1e-5)) * scale


def _group_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups, eps = call.attrs["num_groups"], call.get("epsilon", 1e-5)
    if call.opset < 21 and scale.shape[0] == groups != x.shape[1]:  # one of each group
        scale, bias = (t.repeat_interleave(x.shape[1] // groups) for t in (scale, bias))
    return nnf.group_norm(x, groups, scale, bias, eps)


def _lrn(call: Call, x: Tensor) -> Tensor:
    size, alpha, beta = call.attrs["size"], call.get("alpha", 1e-4), call.get("beta", 0.75)
    squares = x.square().reshape(x.shape[0], 1, x.shape[1], -1)
    around = nnf.pad(squares, (0, 0, (size - 1) // 2, size - 1 - (size - 1) // 2))
    mean = nnf.avg_pool2d(around, (size, 1), stride=1).reshape(x.shape)
    return x / (call.get("bias", 1.0) + alpha * mean).pow(beta)


def _lp_norm(call: Call, x: Tensor) -> Tensor:
    axis, p = call.get("axis", -1), call.get("p", 2)
    size = x.norm(p=p, dim=axis, keepdim=True)
    return torch.where(size == 0, torch.zeros_like(x), x / torch.where(size == 0, torch.ones_like(size), size))


def _mean_variance(call: Call, x: Tensor) -> Tensor:
    axes = call.get("axes") or [0, 2, 3]
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)


def _softmax(call: Call, x: Tensor) -> Tensor:
    function = nnf.log_softmax if call.op == "LogSoftmax" else nnf.softmax
    if call.opset >= 13:
        return function(x, call.get("axis", -1))
    axis = call.get("axis", 1) % max(x.dim(), 1)  # of old operator sets: over all axes from this one on
    return function(x.reshape(math.prod(x.shape[:axis]), -1), -1).reshape(x.shape)


OPS: dict[str, Op] = {
    "BatchNormalization": _batch_norm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LRN": _lrn,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _softmax,
    "LpNormalization": _lp_norm,
    "MeanVarianceNormalization": _mean_variance,
    "RMSNormalization": _rms_norm,
    "Softmax": _softmax,
}
