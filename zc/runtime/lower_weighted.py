"""Convolutions and matrix products as steps: weights packed for the kernels, taps as distances in a padded image."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from zc.ir.graph import Array
from zc.kernels import packing, program, rules
from zc.kernels.amx import GROUP
from zc.kernels.convolution import MOST_PIXELS, ROWS
from zc.kernels.cpu import FORM
from zc.runtime import shapes
from zc.runtime.lower import Lowering, Operand
from zc.runtime.memory import SPARE, Place
from zc.runtime.ops import Convolution, Product
from zc.runtime.tiling import CACHE_BYTES, WIDE_BYTES, Pixels, Tiling, tiling


@dataclass(frozen=True)
class Prepared:
    """Packed weights of one operation, as addresses of constants."""

    weights: Place
    bias: Place
    scale: Place
    taps: int
    k4: int


def halves(codes: Array, zero: Array, axis: int) -> list[Array]:
    """Weights less their zero points as arrays that add up to them: one, or two of int8 where they need nine bits.

    Kernels that multiply 16 bits take nine as they are: one array of int16.
    """
    shape = [-1 if a == axis else 1 for a in range(codes.ndim)]
    values = codes.astype(np.int16) - zero.reshape(shape).astype(np.int16)
    low = np.clip(values, -128, 127)
    rest = values - low
    if not rest.any():
        return [low.astype(np.int8)]
    return [low.astype(np.int8), rest.astype(np.int8)] if FORM.vnni else [values]


def convolution(state: Lowering, op: Convolution) -> None:
    """Depthwise, grouped or dense, by the tile kernels."""
    shape = state.shapes[op.inputs[0]]
    _, pads = shapes.window(op, op.weights.codes.shape[2:], shapes.image(shape))
    x = state.image(op.inputs[0], pads, op.x.zero)
    y = state.fresh(op.output, state.shapes[op.output], image=True)
    assert x.image is not None
    assert y.image is not None
    (n, c, _, _), (x_image, x_row, x_pixel) = x.image
    (_, m, height, width), (y_image, y_row, y_pixel) = y.image
    origin = Place(x.buffer, x.start - pads[0] * x_row - pads[1] * x_pixel)
    kh, kw = op.weights.codes.shape[2:]
    strides = {"x_image": x_image, "y_image": y_image, "y_row": y_row, "y_pixel": y_pixel}
    common: dict[str, Operand] = {
        "x": origin,
        "y": y.place,
        "images": n,
        "height": height,
        "width": width,
        "zero_point": op.y.zero,
        **strides,
    }
    taps = taps_of(op, x_row, x_pixel)
    if op.group == c == m and c > 1 and len(halves(op.weights.codes, op.weights.zero, 0)) == 1:
        _depthwise(state, op, common, taps, x_row, x_pixel, c)
        return
    merged = op.group == 1 and op.dilations[1] == 1 and x_pixel == c
    distances = [i * op.dilations[0] * x_row for i in range(kh)] if merged else taps
    pixels = Pixels(n, height, width, op.strides[0] * x_row, op.strides[1] * x_pixel)
    footprint = c * op.strides[0] * op.strides[1]
    tiles = tiling(pixels, len(distances), c // op.group * (kw if merged else 1), footprint)
    packed = _dense(state, op, merged, tiles is not None)
    common |= {
        "x_group": c // op.group,
        "y_group": m // op.group,
        "groups": op.group,
        "columns": m // op.group,
    }
    distances = distances * (packed.taps // len(distances))
    multiply(state, pixels, packed, tiles, distances, footprint, common, real=False)


def multiply(
    state: Lowering,
    pixels: Pixels,
    packed: Prepared,
    tiles: Tiling | None,
    distances: Sequence[int],
    footprint: int,
    operands: Mapping[str, Operand],
    real: bool,
) -> None:
    """The step of a dense or grouped convolution, or of a matrix product. distances: of the taps, in bytes."""
    columns, groups, group = (operands[name] for name in ("columns", "groups", "x_group"))
    assert isinstance(columns, int)
    assert isinstance(groups, int)
    assert isinstance(group, int)
    rows = ROWS if tiles is None else GROUP
    operands = {
        **operands,
        "images": pixels.images,
        "height": pixels.height,
        "width": pixels.width,
        "x_row": pixels.row,
        "x_pixel": pixels.pixel,
        "offsets": state.constant(np.array(distances, np.int64)),
        "taps": packed.taps,
        "weights": packed.weights,
        "bias": packed.bias,
        "scale": packed.scale,
        "by_columns": int(_by_columns(state, pixels, packed, rows, columns, footprint)),
    }
    if tiles is not None:
        state.emit(
            program.CONVOLVE_TILES,
            **operands,
            k64=packed.k4 // 16,
            line=tiles.line,
            by_rows=int(tiles.by_rows),
            chunk=tiles.chunk,
        )
    else:
        state.emit(
            program.CONVOLVE,
            **operands,
            k4=packed.k4,
            chunk=chunk_of(footprint),
            room=room_of(distances, (groups - 1) * group + 4 * packed.k4, pixels.pixel),
            real=int(real),
        )


def _by_columns(state: Lowering, pixels: Pixels, packed: Prepared, rows: int, columns: int, footprint: int) -> bool:
    """Do threads share out channels, not pixels? Where there are too few pixels for all of them.

    And, where sums are of 16 bits, where the weights are larger than what they meet: each thread then reads its own.
    """
    if pixels.count < 2 * rows * state.threads:
        return columns > packing.BLOCK
    heavy = packed.taps * packed.k4 * 4 * columns > pixels.count * footprint
    return not FORM.vnni and heavy and columns >= 2 * state.threads * packing.BLOCK


def taps_of(op: Convolution, x_row: int, x_pixel: int) -> list[int]:
    """The byte distance of each filter tap, in reading order."""
    kh, kw = op.weights.codes.shape[2:]
    return [i * op.dilations[0] * x_row + j * op.dilations[1] * x_pixel for i in range(kh) for j in range(kw)]


def room_of(distances: Sequence[int], more: int, pixel: int) -> int:
    """Bytes of scratch for codes as 16 bits: of a chunk, and at least of a tile's pixels in one row for every tap.

    more: bytes that a tap reads; pixel: from one to the next.
    """
    least = len(distances) * (2 * ((ROWS - 1) * abs(pixel) + more + 32) + 8) + SPARE
    return 0 if FORM.vnni else max(WIDE_BYTES, least)


def chunk_of(footprint: int) -> int:
    """Pixels of a chunk whose input takes `footprint` bytes each: a multiple of every tile's rows."""
    return min(max(CACHE_BYTES // footprint // 24 * 24, 96), MOST_PIXELS // 24 * 24)


def _depthwise(
    state: Lowering,
    op: Convolution,
    common: dict[str, Operand],
    taps: list[int],
    x_row: int,
    x_pixel: int,
    channels: int,
) -> None:
    kh, kw = op.weights.codes.shape[2:]
    fast = (kh, kw) == (3, 3) and op.dilations == (1, 1) and op.strides in ((1, 1), (2, 2))
    key = (id(op), int(fast))
    if key not in state.packed:
        (codes,) = halves(op.weights.codes, op.weights.zero, 0)
        bias, scale = _terms(op, codes[:, 0].reshape(channels, -1).astype(np.int64).sum(1))
        arrays = packing.pack_depthwise(codes[:, 0].transpose(1, 2, 0), bias, scale, fast)
        state.packed[key] = _prepared(state, arrays, 0, 0)
    packed = state.packed[key]
    assert isinstance(packed, Prepared)
    common = {
        **common,
        "x_row": x_row,
        "x_pixel": x_pixel,
        "channels": channels,
        "weights": packed.weights,
        "bias": packed.bias,
        "scale": packed.scale,
    }
    if fast:
        state.emit(program.DEPTHWISE3, **common, stride=op.strides[0])
        return
    groups = -(-kh * kw // 4)
    offsets = np.zeros(4 * groups, np.int64)
    offsets[: len(taps)] = taps
    state.emit(
        program.DEPTHWISE,
        **common,
        stride_h=op.strides[0],
        stride_w=op.strides[1],
        offsets=state.constant(offsets),
        groups=groups,
    )


def _terms(op: Convolution | Product, totals: Array) -> tuple[Array, Array]:
    """The bias with what the zero point of the input contributes, and the multipliers."""
    bias = op.weights.bias.astype(np.int64) - op.x.zero * totals
    if op.y is None:
        scale = (op.x.scale * op.weights.scale).astype(np.float32)
    else:
        scale = rules.multiplier(op.x.scale, op.weights.scale, op.y.scale)
    return bias.astype(np.int32), scale


def _dense(state: Lowering, op: Convolution, merged: bool, tiles: bool) -> Prepared:
    """Weights of all groups, one after another. merged: a filter row is one tap, its pixels are channels."""
    key = (id(op), 2 + int(merged) + 2 * int(tiles))
    if key not in state.packed:
        m, cg, kh, kw = op.weights.codes.shape
        parts = halves(op.weights.codes, op.weights.zero, 0)
        totals = sum(p.reshape(m, -1).astype(np.int64).sum(1) for p in parts)
        bias, scale = _terms(op, np.asarray(totals))
        taps = [p.transpose(2, 3, 1, 0).reshape((kh, kw * cg, m) if merged else (kh * kw, cg, m)) for p in parts]
        state.packed[key] = _packed(state, np.concatenate(taps), bias, scale, op.group, tiles=tiles)
    found = state.packed[key]
    assert isinstance(found, Prepared)
    return found


def _packed(
    state: Lowering, weights: Array, bias: Array, scale: Array, groups: int, real: bool = False, tiles: bool = False
) -> Prepared:
    per = weights.shape[2] // groups
    found = []
    for g in range(groups):
        own = slice(g * per, (g + 1) * per)
        found.append(packing.pack(weights[:, :, own], bias[own], scale[own], real, unit=64 if tiles else 4))
    arrays = (np.concatenate(a) for a in zip(*((p.weights, p.bias, p.scale) for p in found), strict=True))
    return _prepared(state, arrays, found[0].taps, found[0].k4)


def _prepared(state: Lowering, arrays: Iterable[Array], taps: int, k4: int) -> Prepared:
    weights, bias, scale = map(state.constant, arrays)
    return Prepared(weights, bias, scale, taps, k4)


def product(state: Lowering, op: Product) -> None:
    """A matrix product: a 1 x 1 convolution whose pixels are the rows."""
    shape = state.shapes[op.inputs[0]]
    k, n = op.weights.codes.shape
    rows = prod(shape[:-1])
    flat = state.matrix(state.codes(op.inputs[0]), rows, k)
    real = op.y is None
    pixels = Pixels(1, 1, rows, 0, flat.strides[0])
    tiles = None if real else tiling(pixels, 1, k, k)
    key = (id(op), 6 + int(tiles is not None))
    if key not in state.packed:
        parts = halves(op.weights.codes, op.weights.zero, 1)
        bias, scale = _terms(op, np.asarray(sum(p.astype(np.int64).sum(0) for p in parts)))
        state.packed[key] = _packed(state, np.stack(parts), bias, scale, 1, real, tiles is not None)
    packed = state.packed[key]
    assert isinstance(packed, Prepared)
    out = (*shape[:-1], n)
    if real:
        place, step = Place(state.external(op.output, out, 4)), 4 * n
    else:
        y = state.fresh(op.output, out, image=False).reshaped((rows, n))
        if y is None or y.strides[1] != 1:
            raise AssertionError("a fresh value in C order is one matrix")
        place, step = y.place, y.strides[0]
    operands: dict[str, Operand] = {
        "x": flat.place,
        "x_image": 0,
        "x_group": 0,
        "y": place,
        "y_image": 0,
        "y_row": 0,
        "y_pixel": step,
        "y_group": 0,
        "groups": 1,
        "columns": n,
        "zero_point": 0 if op.y is None else op.y.zero,
    }
    multiply(state, pixels, packed, tiles, [0] * packed.taps, k, operands, real)
