"""The interpreter: runs a table of operations on codes in one call, by any number of threads in step.

A row of the table is an operation's number, the number of parts that its work is shared out in, and its int64 operands:
addresses, byte strides, sizes, bits of float32. They are the arguments of its kernel after `scratch`.

Threads take parts as they come, and go on when all parts of an operation are done: one that the system has put to sleep
between parts holds nobody up.
"""

import hashlib
import inspect
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit
from numba.np.unsafe.ndarray import to_fixed_tuple as numba_to_fixed_tuple

from zc.kernels import (
    amx,
    columns,
    convolution,
    cpu,
    depthwise,
    elementwise,
    emit,
    fixed,
    interpolation,
    lanes,
    meeting,
    movement,
    packing,
    pairs,
    pools,
    tiles,
    turning,
)
from zc.kernels.emit import set_word, word_at
from zc.kernels.meeting import arrive, give_way, watch

to_fixed_tuple: Any = numba_to_fixed_tuple

CONVOLVE, DEPTHWISE, DEPTHWISE3, ADD, MULTIPLY, LOOK_UP, QUANTIZE, DEQUANTIZE = range(8)
MOVE, FILL, SURROUND, CHOOSE_PIXELS, POOL, GLOBAL_AVERAGE, SOFTMAX, CONVOLVE_TILES = range(8, 16)
FIXED_CONVOLVE, FIXED_ADD, FIXED_MULTIPLY, FIXED_QUANTIZE, FIXED_AVERAGE, FIXED_MEAN, FIXED_SOFTMAX = range(16, 23)
AVERAGE_PLANES, PACK_COLUMNS, LOOK_UP_PAIRS, INTERPOLATE = range(23, 27)

KERNELS: dict[int, Any] = {
    CONVOLVE: convolution.convolve,
    DEPTHWISE: depthwise.depthwise,
    DEPTHWISE3: depthwise.depthwise3,
    ADD: elementwise.add,
    MULTIPLY: elementwise.multiply,
    LOOK_UP: elementwise.look_up,
    QUANTIZE: elementwise.quantize,
    DEQUANTIZE: elementwise.dequantize,
    MOVE: movement.move,
    FILL: movement.fill,
    SURROUND: movement.surround,
    CHOOSE_PIXELS: movement.choose_pixels,
    POOL: pools.pool,
    GLOBAL_AVERAGE: pools.global_average,
    SOFTMAX: pools.softmax,
    CONVOLVE_TILES: amx.convolve_tiles,
    FIXED_CONVOLVE: fixed.convolve,
    FIXED_ADD: fixed.add,
    FIXED_MULTIPLY: fixed.multiply,
    FIXED_QUANTIZE: fixed.quantize,
    FIXED_AVERAGE: fixed.average,
    FIXED_MEAN: fixed.mean,
    FIXED_SOFTMAX: fixed.softmax,
    AVERAGE_PLANES: pools.average_planes,
    PACK_COLUMNS: columns.pack_columns,
    LOOK_UP_PAIRS: pairs.look_up_pairs,
    INTERPOLATE: interpolation.interpolate,
}

OPERANDS: dict[int, tuple[str, ...]] = {
    number: tuple(inspect.signature(kernel.py_func).parameters)[3:] for number, kernel in KERNELS.items()
}
"""Names of an operation's operands, in the order of its row."""

SCRATCH_BYTES = max(convolution.SCRATCH_BYTES, amx.SCRATCH_BYTES if cpu.FORM.amx else 0)
"""What a thread needs for itself."""

WIDTH = 2 + max(map(len, OPERANDS.values()))
SIZES = tuple(len(OPERANDS[number]) for number in range(len(KERNELS)))

Table = npt.NDArray[np.int64]


def row(operation: int, parts: int = 1, **operands: int) -> list[int]:
    """One row of the table."""
    names = OPERANDS[operation]
    if operands.keys() != set(names):
        wrong = sorted(operands.keys() ^ set(names))
        raise ValueError(f"{KERNELS[operation].__name__}: operands missing or unknown: {wrong}")
    return [operation, parts, *(int(operands[name]) for name in names), *[0] * (WIDTH - 2 - len(names))]


def bits(value: float | np.floating[Any]) -> int:
    """A float32 as an operand."""
    return int(np.float32(value).view(np.int32))


(
    N_CONVOLVE, N_DEPTHWISE, N_DEPTHWISE3, N_ADD, N_MULTIPLY, N_LOOK_UP, N_QUANTIZE, N_DEQUANTIZE,
    N_MOVE, N_FILL, N_SURROUND, N_CHOOSE, N_POOL, N_GLOBAL, N_SOFTMAX, N_TILES,
    N_FIXED_CONVOLVE, N_FIXED_ADD, N_FIXED_MULTIPLY, N_FIXED_QUANTIZE, N_FIXED_AVERAGE, N_FIXED_MEAN, N_FIXED_SOFTMAX,
    N_AVERAGE_PLANES, N_COLUMNS, N_PAIRS, N_INTERPOLATE,
) = SIZES  # fmt: skip


def _interpreter(version: str, fixed_point: bool) -> Any:
    """The compiled interpreter. `version` is in the key of Numba's cache on disk, which looks at this file alone.

    fixed_point: does it know the operators in fixed point? Those who never ask for them need not wait for their code.
    """

    @njit(cache=True, nogil=True, error_model="numpy")
    def interpret(table, first, last, threads, scratch, gates):  # type: ignore[no-untyped-def]
        len(version)
        for at in range(first, last):
            p, kind, parts = table[at, 2:], table[at, 0], table[at, 1]
            taken, done = gates + 16 * at, gates + 16 * at + 8
            while True:
                part = arrive(taken) if threads > 1 else word_at(taken)
                if part >= parts:
                    break
                if kind == CONVOLVE:
                    convolution.convolve(part, parts, scratch, *to_fixed_tuple(p, N_CONVOLVE))
                elif kind == DEPTHWISE:
                    depthwise.depthwise(part, parts, scratch, *to_fixed_tuple(p, N_DEPTHWISE))
                elif kind == DEPTHWISE3:
                    depthwise.depthwise3(part, parts, scratch, *to_fixed_tuple(p, N_DEPTHWISE3))
                elif kind == ADD:
                    elementwise.add(part, parts, scratch, *to_fixed_tuple(p, N_ADD))
                elif kind == MULTIPLY:
                    elementwise.multiply(part, parts, scratch, *to_fixed_tuple(p, N_MULTIPLY))
                elif kind == LOOK_UP:
                    elementwise.look_up(part, parts, scratch, *to_fixed_tuple(p, N_LOOK_UP))
                elif kind == QUANTIZE:
                    elementwise.quantize(part, parts, scratch, *to_fixed_tuple(p, N_QUANTIZE))
                elif kind == DEQUANTIZE:
                    elementwise.dequantize(part, parts, scratch, *to_fixed_tuple(p, N_DEQUANTIZE))
                elif kind == MOVE:
                    movement.move(part, parts, scratch, *to_fixed_tuple(p, N_MOVE))
                elif kind == FILL:
                    movement.fill(part, parts, scratch, *to_fixed_tuple(p, N_FILL))
                elif kind == SURROUND:
                    movement.surround(part, parts, scratch, *to_fixed_tuple(p, N_SURROUND))
                elif kind == CHOOSE_PIXELS:
                    movement.choose_pixels(part, parts, scratch, *to_fixed_tuple(p, N_CHOOSE))
                elif kind == POOL:
                    pools.pool(part, parts, scratch, *to_fixed_tuple(p, N_POOL))
                elif kind == GLOBAL_AVERAGE:
                    pools.global_average(part, parts, scratch, *to_fixed_tuple(p, N_GLOBAL))
                elif kind == SOFTMAX:
                    pools.softmax(part, parts, scratch, *to_fixed_tuple(p, N_SOFTMAX))
                elif kind == CONVOLVE_TILES:
                    amx.convolve_tiles(part, parts, scratch, *to_fixed_tuple(p, N_TILES))
                elif kind == AVERAGE_PLANES:
                    pools.average_planes(part, parts, scratch, *to_fixed_tuple(p, N_AVERAGE_PLANES))
                elif kind == PACK_COLUMNS:
                    columns.pack_columns(part, parts, scratch, *to_fixed_tuple(p, N_COLUMNS))
                elif kind == LOOK_UP_PAIRS:
                    pairs.look_up_pairs(part, parts, scratch, *to_fixed_tuple(p, N_PAIRS))
                elif kind == INTERPOLATE:
                    interpolation.interpolate(part, parts, scratch, *to_fixed_tuple(p, N_INTERPOLATE))
                elif fixed_point:
                    if kind == FIXED_CONVOLVE:
                        fixed.convolve(part, parts, scratch, *to_fixed_tuple(p, N_FIXED_CONVOLVE))
                    elif kind == FIXED_ADD:
                        fixed.add(part, parts, scratch, *to_fixed_tuple(p, N_FIXED_ADD))
                    elif kind == FIXED_MULTIPLY:
                        fixed.multiply(part, parts, scratch, *to_fixed_tuple(p, N_FIXED_MULTIPLY))
                    elif kind == FIXED_QUANTIZE:
                        fixed.quantize(part, parts, scratch, *to_fixed_tuple(p, N_FIXED_QUANTIZE))
                    elif kind == FIXED_AVERAGE:
                        fixed.average(part, parts, scratch, *to_fixed_tuple(p, N_FIXED_AVERAGE))
                    elif kind == FIXED_MEAN:
                        fixed.mean(part, parts, scratch, *to_fixed_tuple(p, N_FIXED_MEAN))
                    elif kind == FIXED_SOFTMAX:
                        fixed.softmax(part, parts, scratch, *to_fixed_tuple(p, N_FIXED_SOFTMAX))
                if threads == 1:
                    set_word(taken, part + 1)
                else:
                    arrive(done)
            spins = 0
            while threads > 1 and watch(done) < parts:
                spins += 1
                give_way(spins)

    return interpret


def source_digest(modules: Sequence[ModuleType]) -> str:
    """Of the generators' source and this process's form: what the compiled code depends on."""
    state = hashlib.sha256(repr(cpu.FORM).encode())
    for module in modules:
        state.update(inspect.getsource(module).encode())
    return state.hexdigest()


DIGEST = source_digest(
    [
        amx,
        columns,
        convolution,
        depthwise,
        elementwise,
        emit,
        fixed,
        interpolation,
        lanes,
        meeting,
        movement,
        packing,
        pairs,
        pools,
        tiles,
        turning,
    ]
)

interpret = _interpreter(DIGEST, fixed_point=False)
"""interpret(table, first, last, threads, scratch, gates): run rows first..last of an int64[n, WIDTH] table.

Each of `threads` threads calls it, with scratch of its own (address of SCRATCH_BYTES bytes); gates: address of
int64[n, 2], 0 at the start: parts taken and parts done. Kernels read up to 64 bytes behind codes.
"""

interpret_fixed = _interpreter(DIGEST, fixed_point=True)
"""The same, with the operators in fixed point too."""

__all__ = ["KERNELS", "OPERANDS", "SCRATCH_BYTES", "WIDTH", "Table", "bits", "interpret", "interpret_fixed", "row"]
