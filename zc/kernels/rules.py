"""What int8 operators compute, to the bit, as ONNX Runtime does on x86: the specification of the kernels, in NumPy.

`sat` clamps to 0..255, `rne` rounds halves to even; every step is float32 and nothing is fused unless `fma` is written.
Codes are uint8. An int8 code is handled as the uint8 code 128 above it, its zero point likewise: a rule that sees more
of a code than its distance from the zero point takes `offset` = 128 for those, and 0 for uint8.
Sources: onnxruntime's MLAS (requantize, qladd, qlmul), its qlinear_* operators, and experiments on ties.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
F32 = np.float32

LARGEST_PRODUCT = 2.0**31
"""|accumulator * multiplier| must stay below: beyond it the conversion to int32 has no defined result."""


def saturate(values: npt.NDArray[Any]) -> Codes:
    """Clamp rounded values to the codes 0..255."""
    return np.asarray(np.clip(values, 0, 255), np.uint8)


def fma(a: npt.NDArray[Any], b: npt.NDArray[Any], c: npt.NDArray[Any]) -> Floats:
    """float32 a * b + c, rounded once. The product of two float32 is exact in float64.

    The float64 sum may round a second time only beside a float32 tie; its error is then known and breaks the tie.
    """
    product = np.asarray(a, np.float64) * np.asarray(b, np.float64)
    addend = np.asarray(c, np.float64)
    total = np.asarray(product + addend)
    back = total - product
    error = (product - (total - back)) + (addend - back)
    # Round to odd: an inexact float64 sum never looks like a tie of float32.
    bits = total.view(np.int64)
    inexact = (error != 0) & ((bits & 1) == 0)
    away = np.where((error > 0) == (total > 0), bits + 1, bits - 1)
    return np.where(inexact, away, bits).view(np.float64).astype(np.float32)


def quantize(x: Floats, scale: np.float32, zero_point: int) -> Codes:
    """QuantizeLinear: sat(rne(x / scale) + zero_point)."""
    with np.errstate(over="ignore", invalid="ignore"):
        return saturate(np.rint(x / F32(scale)) + F32(zero_point))


def dequantize(x: Codes, scale: np.float32, zero_point: int) -> Floats:
    """DequantizeLinear: (x - zero_point) * scale."""
    return ((x.astype(np.int32) - zero_point).astype(np.float32) * F32(scale)).astype(np.float32)


def multiplier(x_scale: np.float32, w_scale: npt.NDArray[np.float32], y_scale: np.float32) -> Floats:
    """Of accumulators: (x_scale * w_scale) / y_scale, by channel."""
    return ((F32(x_scale) * w_scale.astype(np.float32)).astype(np.float32) / F32(y_scale)).astype(np.float32)


def requantize(acc: Ints, scale: npt.NDArray[np.float32], zero_point: int) -> Codes:
    """Accumulator to code: sat(rne(f32(acc) * scale) + zero_point). `scale` is broadcast."""
    return saturate(np.rint(acc.astype(np.float32) * scale) + zero_point)


def round_bias(bias: Floats, unit: Floats) -> Ints:
    """int32 of a float bias in units of input scale times weight scale; what does not fit saturates."""
    steps = np.rint((bias / unit).astype(np.float32)).astype(np.float64)
    return np.clip(steps, -(2**31), 2**31 - 1).astype(np.int32)


def multiply_accumulate(x: Codes, x_zero: int, w: npt.NDArray[Any], w_zero: int | npt.NDArray[Any]) -> Ints:
    """int32 sums of (x - x_zero) @ (w - w_zero), wrapping. x: [..., m, k]; w: [..., k, n]."""
    left = x.astype(np.int64) - x_zero
    return (left @ (w.astype(np.int64) - w_zero)).astype(np.int32)


def convolve(
    x: Codes,
    x_zero: int,
    w: npt.NDArray[Any],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
) -> Ints:
    """int32 sums of a 2-D convolution; padding contributes nothing. x: [n, c, h, w]; w: [m, c / group, kh, kw]."""
    n = len(x)
    m, cg, kh, kw = w.shape
    top, left, bottom, right = pads
    padded = np.pad(x.astype(np.int64) - x_zero, ((0, 0), (0, 0), (top, bottom), (left, right)))
    ho = (padded.shape[2] - dilations[0] * (kh - 1) - 1) // strides[0] + 1
    wo = (padded.shape[3] - dilations[1] * (kw - 1) - 1) // strides[1] + 1
    acc = np.zeros((n, m, ho, wo), np.int64)
    for i in range(kh):
        for j in range(kw):
            at_h, at_w = i * dilations[0], j * dilations[1]
            part = padded[
                :,
                :,
                at_h : at_h + (ho - 1) * strides[0] + 1 : strides[0],
                at_w : at_w + (wo - 1) * strides[1] + 1 : strides[1],
            ]
            grouped = part.reshape(n, group, cg, ho * wo)
            weight = w[:, :, i, j].astype(np.int64).reshape(group, m // group, cg)
            acc += np.einsum("gmc,ngcp->ngmp", weight, grouped).reshape(n, m, ho, wo)
    return acc.astype(np.int32)


def add_terms(
    a_scale: np.float32,
    a_zero: int,
    b_scale: np.float32,
    b_zero: int,
    y_scale: np.float32,
    y_zero: int,
    offset: int = 0,
) -> tuple[np.float32, np.float32, np.float32]:
    """The three constants of `add`: a_scale / y_scale, b_scale / y_scale, and what the zero points contribute."""
    ra, rb = F32(a_scale) / F32(y_scale), F32(b_scale) / F32(y_scale)
    za, zb, zy = F32(a_zero - offset), F32(b_zero - offset), F32(y_zero - offset)
    fixed = F32(zy - fma(np.asarray(ra), np.asarray(za), np.asarray(F32(rb * zb))))
    return ra, rb, fixed


def add(a: Codes, b: Codes, terms: tuple[np.float32, np.float32, np.float32], offset: int = 0) -> Codes:
    """QLinearAdd on x86: sat(rne(fma(a, ra, fma(b, rb, fixed)))). Without the FMAs some outputs differ."""
    return saturate(np.rint(add_unrounded(a, b, terms, offset)) + offset)


def add_unrounded(a: Codes, b: Codes, terms: tuple[np.float32, np.float32, np.float32], offset: int = 0) -> Floats:
    """What `add` rounds."""
    ra, rb, fixed = (np.asarray(t) for t in terms)
    inner = fma(b.astype(np.float32) - F32(offset), rb, fixed)
    return fma(a.astype(np.float32) - F32(offset), ra, inner)


def multiply(a: Codes, a_zero: int, b: Codes, b_zero: int, scale: np.float32, y_zero: int, offset: int = 0) -> Codes:
    """QLinearMul: sat(rne((a - a_zero) * (b - b_zero) * scale + y_zero)); the zero point comes BEFORE rounding.

    scale: (a_scale * b_scale) / y_scale in float32.
    """
    return saturate(np.rint(multiply_unrounded(a, a_zero, b, b_zero, scale, y_zero, offset)) + offset)


def multiply_unrounded(
    a: Codes, a_zero: int, b: Codes, b_zero: int, scale: np.float32, y_zero: int, offset: int = 0
) -> Floats:
    """What `multiply` rounds."""
    product = ((a.astype(np.int32) - a_zero) * (b.astype(np.int32) - b_zero)).astype(np.float32)
    return np.asarray(product * F32(scale) + F32(y_zero - offset), np.float32)


def global_average(x: Codes, x_scale: np.float32, x_zero: int, y_scale: np.float32, y_zero: int) -> Codes:
    """QLinearGlobalAveragePool over the axes after the first two: sat(rne(f32(sum) * scale) + y_zero).

    An average pool whose one window is the whole unpadded image is computed so too.
    """
    axes = tuple(range(2, x.ndim))
    count = int(np.prod(x.shape[2:], dtype=np.int64))
    total = (x.astype(np.int64).sum(axes, keepdims=True) - count * x_zero).astype(np.int32)
    return requantize(total, np.asarray(average_scale(x_scale, y_scale, count)), y_zero)


def average_scale(x_scale: np.float32, y_scale: np.float32, count: int) -> np.float32:
    """The multiplier of a global average over `count` positions."""
    return F32(F32(x_scale) / F32(F32(y_scale) * F32(count)))


def average_window(
    x: Codes, x_scale: np.float32, x_zero: int, y_scale: np.float32, y_zero: int, count: int, offset: int = 0
) -> Codes:
    """QLinearAveragePool of one window: float32 sum in order, / count, / y_scale, + y_zero, and only then rounded.

    x: [positions of the window inside the image, ...]; count: what to divide by.
    """
    values = dequantize(x, x_scale, x_zero)
    total = np.zeros(values.shape[1:], np.float32)
    for value in values:
        total = total + value
    return saturate(np.rint(total / F32(count) / F32(y_scale) + F32(y_zero - offset)) + offset)


def rescale_table(x_scale: np.float32, x_zero: int, y_scale: np.float32, y_zero: int) -> Codes:
    """The 256 codes that one scale's codes become in another: what QLinearConcat does to each input."""
    return quantize(dequantize(np.arange(256, dtype=np.uint8), x_scale, x_zero), y_scale, y_zero)


def softmax_table(x_scale: np.float32, length: int) -> Floats:
    """float32[256]: exp of codes, shifted up as far as a sum of `length` of them stays finite."""
    room = float(F32(math.log(np.finfo(np.float32).max / F32(length)))) - 5.0  # float32; NumPy's own is not the nearest
    shift = max(0.0, room) / float(x_scale)
    with np.errstate(over="ignore"):
        return np.asarray(np.exp((np.arange(256) - 255 + shift) * float(x_scale)), np.float32)


def softmax_levels(y_scale: np.float32) -> np.float32:
    """1 / y_scale, cut to an integer: 254 for a scale of 1/255, whose inverse is a little less than 255 in float32."""
    return F32(np.floor(F32(1) / F32(y_scale)))


def softmax(x: Codes, table: Floats, y_scale: np.float32, y_zero: int) -> Codes:
    """QLinearSoftmax over the last axis: sat(rne(levels * (exp / sum of exp)) + y_zero). x: [rows, n]."""
    values = table[x.astype(np.int64) + (255 - x.max(axis=1, keepdims=True).astype(np.int64))]
    total = np.zeros(len(x), np.float32)
    for column in values.T:
        total = total + column
    return saturate(np.rint(softmax_levels(y_scale) * (values / total[:, None])) + y_zero)


def look_up_pairs(x: Codes, z: Codes, table: Codes) -> Codes:
    """What a table of pairs of codes holds: table[z, x], broadcast."""
    return np.asarray(table[z, x])


def between(
    how: str, size: int, out: int, scale: float | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Of each output position of an axis: both positions it lies between, and their weights. int64, float32 [out, 2].

    how: ONNX's coordinate_transformation_mode; scale: None where sizes were given. Beyond the last position, and on
    it, both are the same and count half each (UpsampleBilinear in onnxruntime).
    """
    at = np.clip(coordinates(how, size, out, scale), F32(0), F32(size - 1))
    lower = np.minimum(at.astype(np.int64), size - 1)
    upper = np.minimum(lower + 1, size - 1)
    weights = np.stack([np.abs(at - upper.astype(F32)), np.abs(at - lower.astype(F32))], axis=1)
    weights[lower == upper] = 0.5
    return np.stack([lower, upper], axis=1), weights.astype(F32)


def coordinates(how: str, size: int, out: int, scale: float | None) -> Floats:
    """Where in an axis of `size` each of `out` positions lies, in float32 as onnxruntime computes it. [out]."""
    ratio = F32(F32(out) / F32(size)) if scale is None else F32(scale)
    at = np.arange(out, dtype=F32)
    if ratio == 1:
        return at
    if how == "align_corners":
        return at * F32(size - 1) / F32(out - 1) if out > 1 else at * F32(0)
    if how == "asymmetric":
        return at / ratio
    if how == "tf_half_pixel_for_nn":
        return (at + F32(0.5)) / ratio
    if how == "pytorch_half_pixel" and out == 1:
        return at * F32(0)
    if how == "half_pixel_symmetric":  # in float64 but for the shift
        shift = F32(F32(size) / F32(2)) * F32(F32(1) - F32(out) / F32(ratio * F32(size)))
        return (float(shift) + (at.astype(np.float64) + 0.5) / float(ratio) - 0.5).astype(F32)
    return (at + F32(0.5)) / ratio - F32(0.5)


def interpolate(
    x: Codes,
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]],
    columns: tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]],
    x_scale: np.float32,
    x_zero: int,
    y_scale: np.float32,
    y_zero: int,
) -> Codes:
    """Resize, linear, between DQ and Q: float32 products with (row weight * column weight), added in reading order.

    x: [n, c, h, w]; rows, columns: from `between`.
    """
    values = dequantize(x, x_scale, x_zero)
    total: Floats | None = None
    for i in range(2):
        for j in range(2):
            weight = (columns[1][None, :, j] * rows[1][:, None, i]).astype(F32)
            part = weight * values[:, :, rows[0][:, i]][:, :, :, columns[0][:, j]]
            total = part if total is None else total + part
    assert total is not None
    return quantize(total, y_scale, y_zero)
