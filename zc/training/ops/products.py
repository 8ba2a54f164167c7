"""Convolutions and matrix products."""

from collections.abc import Sequence

import torch
from torch.nn import functional as nnf

from zc.training.ops.call import Call, NotTrained, Op, Tensor, together
from zc.training.ops.codes import centred

_CONV = {1: nnf.conv1d, 2: nnf.conv2d, 3: nnf.conv3d}
_TRANSPOSED = {1: nnf.conv_transpose1d, 2: nnf.conv_transpose2d, 3: nnf.conv_transpose3d}


def window_pads(
    call: Call, size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Padding before and after each spatial axis of a window operator, `auto_pad` resolved."""
    rank, mode = len(kernel), call.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        before, after = [], []
        for i in range(rank):
            reach = (kernel[i] - 1) * dilations[i] + 1
            total = max((-(-size[i] // strides[i]) - 1) * strides[i] + reach - size[i], 0)
            less, more = total // 2, total - total // 2
            before.append(less if mode == "SAME_UPPER" else more)
            after.append(total - before[-1])
        return before, after
    pads = [0] * (2 * rank) if mode == "VALID" else list(call.get("pads") or [0] * (2 * rank))
    return pads[:rank], pads[rank:]


def torch_pads(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """Paddings in torch's order: the last axis first."""
    return [v for i in reversed(range(len(before))) for v in (before[i], after[i])]


def _conv(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = weight.dim() - 2
    strides, dilations = call.get("strides") or [1] * rank, call.get("dilations") or [1] * rank
    before, after = window_pads(call, x.shape[2:], weight.shape[2:], strides, dilations)
    if before != after:
        x, before = nnf.pad(x, torch_pads(before, after)), [0] * rank
    return _CONV[rank](x, weight, bias, strides, before, dilations, call.get("group", 1))


def _conv_transpose(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Unpadded, then cut: ONNX allows other pads at the end than at the beginning."""
    rank = weight.dim() - 2
    strides, dilations = call.get("strides") or [1] * rank, call.get("dilations") or [1] * rank
    extra = list(call.get("output_padding") or [0] * rank)
    reach = [(weight.shape[2 + i] - 1) * dilations[i] + 1 for i in range(rank)]
    full = [(x.shape[2 + i] - 1) * strides[i] + reach[i] + extra[i] for i in range(rank)]
    shape, mode = call.get("output_shape"), call.get("auto_pad", "NOTSET")
    if shape is None and mode in ("SAME_UPPER", "SAME_LOWER"):
        shape = [x.shape[2 + i] * strides[i] for i in range(rank)]
    if shape is not None:
        total = [max(full[i] - int(shape[i]), 0) for i in range(rank)]
        half = [t // 2 for t in total]
        rest = [t - h for t, h in zip(total, half, strict=True)]
        before, after = (half, rest) if mode == "SAME_UPPER" else (rest, half)
    else:
        pads = list(call.get("pads") or [0] * (2 * rank)) if mode != "VALID" else [0] * (2 * rank)
        before, after = pads[:rank], pads[rank:]
    same = before == after and all(e < s or e < d for e, s, d in zip(extra, strides, dilations, strict=True))
    group = call.get("group", 1)
    if same:
        return _TRANSPOSED[rank](x, weight, bias, strides, before, extra, group, dilations)
    out = _TRANSPOSED[rank](x, weight, bias, strides, [0] * rank, [0] * rank, group, dilations)
    if any(extra):
        out = nnf.pad(out, torch_pads([0] * rank, extra))
        if bias is not None:
            raise NotTrained("uneven pads together with output_padding and a bias")
    for i in range(rank):
        out = out.narrow(2 + i, before[i], full[i] - before[i] - after[i])
    return out


def _gemm(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    left = x.t() if call.get("transA", 0) else x
    right = weight.t() if call.get("transB", 0) else weight
    if bias is not None and alpha == beta == 1 and bias.dim() == 1:
        return torch.addmm(bias, left, right)
    out = left @ right
    out = out if alpha == 1 else out * alpha
    return out if bias is None else out + (bias if beta == 1 else bias * beta)


def _matmul(call: Call, x: Tensor, y: Tensor) -> Tensor:
    return torch.matmul(*together((x, y)))


def _fused_matmul(call: Call, x: Tensor, y: Tensor) -> Tensor:
    x = x.transpose(-1, -2) if call.get("transA", 0) else x
    y = y.transpose(-1, -2) if call.get("transB", 0) else y
    return torch.matmul(x, y) * call.get("alpha", 1.0)


def _of_codes(call: Call, x: Tensor, y: Tensor, x_zero: Tensor | None, y_zero: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both operands of a product of integers as floats; their zero points are of rows, columns or filters."""
    dtype = x.dtype if x.is_floating_point() else torch.float64 if call.mode.wide else torch.float32
    matrices = call.op == "MatMulInteger"
    return centred(x, x_zero, -2 if matrices else 1, dtype), centred(y, y_zero, -1 if matrices else 0, dtype)


def _matmul_integer(
    call: Call, x: Tensor, y: Tensor, x_zero: Tensor | None = None, y_zero: Tensor | None = None
) -> Tensor:
    return torch.matmul(*_of_codes(call, x, y, x_zero, y_zero))


def _conv_integer(
    call: Call, x: Tensor, w: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None
) -> Tensor:
    return _conv(call, *_of_codes(call, x, w, x_zero, w_zero))


def _einsum(call: Call, *values: Tensor) -> Tensor:
    return torch.einsum(call.attrs["equation"].replace(" ", ""), *together(values))


def _attention(call: Call, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *past: Tensor | None) -> Tensor:
    """ONNX Attention (opset 23) on [B, heads, L, D] without a cache, or on [B, L, heads * D] with head counts."""
    if (
        any(p is not None for p in past)
        or call.outputs > 1
        or call.get("softcap", 0.0)
        or call.get("qk_matmul_output_mode", 0)
    ):
        raise NotTrained("Attention with a cache, a soft cap or more outputs than one")
    flat = q.dim() == 3
    if flat:
        heads, groups = call.attrs["q_num_heads"], call.attrs["kv_num_heads"]
        q = q.unflatten(-1, (heads, -1)).transpose(1, 2)
        k, v = (t.unflatten(-1, (groups, -1)).transpose(1, 2) for t in (k, v))
    repeat = q.shape[1] // k.shape[1]
    if repeat > 1:
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
    causal = bool(call.get("is_causal", 0))
    out = nnf.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=call.get("scale"))
    return out.transpose(1, 2).flatten(2) if flat else out


OPS: dict[str, Op] = {
    "Attention": _attention,
    "Conv": _conv,
    "ConvInteger": _conv_integer,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MatMulInteger": _matmul_integer,
    "com.microsoft.FusedMatMul": _fused_matmul,
}
