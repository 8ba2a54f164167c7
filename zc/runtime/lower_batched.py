"""Products of two computed values as steps: the second factor is packed as weights are, then a matrix product each."""

from itertools import product

import numpy as np

from zc.errors import ZcError
from zc.kernels import program, rules
from zc.kernels.convolution import BLOCK_VECTORS, WEIGHT_BYTES
from zc.kernels.lanes import ORDER
from zc.runtime.lower import Lowering
from zc.runtime.lower_weighted import Prepared, multiply
from zc.runtime.memory import Buffer, Place, View
from zc.runtime.ops import BatchedProduct
from zc.runtime.tiling import Pixels


def batched_product(state: Lowering, op: BatchedProduct) -> None:
    """A MatMul: for each matrix of the second factor, one step that packs it and one for each product with it."""
    shape = state.shapes[op.output]
    *batch, m, n = shape
    a, b = (state.codes(name) for name in op.inputs)
    k = a.shape[-1]
    _check(state, op, k)
    a = a if a.strides[-1] == 1 or k == 1 else state.rows(a)
    b = b if b.strides[-2] == 1 or k == 1 else _turned(state, b)
    a, b = a.spread((*batch, m, k)), b.spread((*batch, k, n))
    real = op.y is None
    if op.y is None:
        y = View(state.external(op.output, shape, 4), 0, shape, _dense(shape, 4))
        scale = np.float32(op.a.scale * op.b.scale)
    else:
        y = state.fresh(op.output, shape, image=False)
        scale = rules.multiplier(op.a.scale, np.array([op.b.scale]), op.y.scale)[0]
    taps = 1 if op.b.zero == 128 else 2 if op.b.zero else 3
    packed = _room(state, k, n, taps, 1 if real else BLOCK_VECTORS, scale)
    source: int | None = None
    for at in product(*map(range, batch)):
        left, right, out = a.at(*at), b.at(*at), y.at(*at)
        if source != right.byte:  # one that is broadcast is packed once
            source = right.byte
            state.emit(
                program.PACK_COLUMNS,
                x=right, x_column=b.strides[-1], length=k, columns=n,
                y=packed.weights, bias=packed.bias, k4=packed.k4, taps=taps, most=1 if real else BLOCK_VECTORS,
                order=state.constant(ORDER.astype(np.int64)), zero_x=op.a.zero, zero_z=op.b.zero,
            )  # fmt: skip
        multiply(
            state,
            Pixels(1, 1, m, 0, a.strides[-2]),
            packed,
            None,
            [0] * taps,
            k,
            {
                "x": left, "x_image": 0, "x_group": 0,
                "y": out, "y_image": 0, "y_row": 0, "y_pixel": y.strides[-2], "y_group": 0,
                "groups": 1, "columns": n,
                "zero_point": 0 if op.y is None else op.y.zero,
            },
            real,
        )  # fmt: skip


def _check(state: Lowering, op: BatchedProduct, k: int) -> None:
    """Results must fit into 32 bits before they are rounded; how long the sums are is known only here."""
    reach = k * 255.0 * 255.0
    scale = 1.0 if op.y is None else float(op.a.scale) * float(op.b.scale) / float(op.y.scale)
    if max(reach, reach * scale) >= rules.LARGEST_PRODUCT:
        raise ZcError(f"{state.where()}: results of {k} products each may not fit into 32 bits; leave it in float")


def _dense(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    return tuple(size * int(np.prod(shape[a + 1 :], dtype=np.int64)) for a in range(len(shape)))


def _turned(state: Lowering, b: View) -> View:
    """A copy whose columns are contiguous."""
    last = len(b.shape) - 1
    order = (*range(last - 1), last, last - 1)
    copy = state.allocate(tuple(b.shape[axis] for axis in order), image=False)
    state.move(b.transposed(order), copy)
    return copy.transposed(order)


def _room(state: Lowering, k: int, n: int, taps: int, most: int, scale: np.float32) -> Prepared:
    """Where packed columns go, with the multiplier for all of them."""
    k4, vectors = -(-k // 4), -(-n // 16)
    weights = Buffer(taps * k4 * 4 * 16 * vectors * WEIGHT_BYTES)
    bias = Buffer(4 * 16 * vectors)
    scales = state.constant(np.full(16 * vectors, scale, np.float32))
    return Prepared(Place(weights), Place(bias), scales, taps, k4)
