"""A plan: the table that the interpreter runs, its memory, and the islands between. For one set of input shapes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zc.errors import ZcError
from zc.ir.graph import Array
from zc.kernels import program
from zc.kernels.fixedpoint import Rounding
from zc.runtime import lower_fixed, lower_rest
from zc.runtime import shapes as sizing
from zc.runtime.crew import Crew
from zc.runtime.islands import IslandRunner
from zc.runtime.lower import Lowering, Shape, Step, wanted_halos
from zc.runtime.memory import ALIGNMENT, SPARE, Arena, Buffer, Place, aligned, arrange
from zc.runtime.ops import (
    Binary,
    Concatenate,
    Convolution,
    Dequantize,
    GlobalAverage,
    Interpolate,
    Island,
    LookUp,
    LookUpPairs,
    Op,
    Pad,
    Pool,
    Quantize,
    Resize,
    Slice,
)

Feeds = Mapping[str, Array]


@dataclass
class Setting:
    """What plans of one session have in common."""

    name: str
    ops: tuple[Op, ...]
    threads: int
    constants: Mapping[str, Array]
    types: Mapping[str, np.dtype[Any]]
    """Element type of every value outside the arena."""
    signed: frozenset[str]
    outputs: tuple[str, ...]
    islands: Mapping[int, IslandRunner]
    """By id of the operation."""
    rounding: Rounding | None = None
    """How results are rounded in fixed point; None: in float, as onnxruntime does."""
    packed: dict[tuple[int, ...], object] = field(default_factory=dict)
    crew: Crew | None = None


@dataclass
class Patch:
    """An operand that is the address of an array outside."""

    row: int
    column: int
    name: str
    byte: int


@dataclass
class Stage:
    """Rows first..last of the table, or an island."""

    first: int = 0
    last: int = 0
    island: Island | None = None


class Plan:
    """Runs the model on inputs of these shapes."""

    def __init__(self, setting: Setting, inputs: Mapping[str, Shape]) -> None:
        self.setting = setting
        state = Lowering(
            setting.name, setting.threads, setting.constants, setting.signed, setting.packed, setting.rounding
        )
        state.halos, state.homes, state.images = wanted_halos(setting.ops), _homes(setting), _images(setting.ops)
        state.results, state.lean = frozenset(setting.outputs), _lean(setting, state)
        self._size(state, inputs)
        self._lower(state, inputs)
        self.outside, self.shapes = state.outside, state.shapes
        self._place(state)

    # ---- making it

    def _size(self, state: Lowering, inputs: Mapping[str, Shape]) -> None:
        """The shape of every value; islands are asked by running them once on zeros.

        But whole numbers that an island makes, maybe of shapes, are what a later one reads: it may go by them.
        """
        numbers: dict[str, Array] = {}
        state.shapes.update(inputs)
        state.shapes.update({name: array.shape for name, array in state.constants.items()})
        for op in self.setting.ops:
            state.current = op
            if isinstance(op, Island):
                kinds = self.setting.types
                names = self.setting.islands[id(op)].inputs
                feeds = {n: numbers[n] if n in numbers else np.zeros(state.shapes[n], kinds[n]) for n in names}
                results = self.setting.islands[id(op)].run(feeds)
                numbers |= {n: value for n, value in results.items() if value.dtype.kind in "ib"}
                state.shapes.update({name: value.shape for name, value in results.items()})
                continue
            try:
                found = sizing.sizes(op, state.shapes)
            except ZcError as err:
                raise ZcError(f"{state.where()}: {err}") from None
            except (IndexError, ValueError, ZeroDivisionError):  # axes that no rank was known to judge by
                shapes = ", ".join(str(list(state.shapes[name])) for name in op.inputs)
                raise ZcError(f"{state.where()}: it does not take codes of shape {shapes}") from None
            for name, shape in zip(op.outputs, found, strict=True):
                state.check(name, shape)
                state.shapes[name] = shape

    def _lower(self, state: Lowering, inputs: Mapping[str, Shape]) -> None:
        """Steps of all operations, and the traffic across the border of the arena."""
        lower = lower_rest.lower if state.rounding is None else lower_fixed.lower
        read = {n for op in self.setting.ops if not isinstance(op, (Island, Quantize)) for n in op.inputs}
        for name in inputs:
            if name in read:
                state.current = next(op for op in self.setting.ops if name in op.inputs)
                state.take_in(name)
        for op in self.setting.ops:
            state.current = op
            if not isinstance(op, Island):
                lower(op, state)
                continue
            for name in self.setting.islands[id(op)].inputs:
                if name in state.views or name in state.constants:
                    state.put_out(name)
            state.stages.append(op)
            for name in op.outputs:
                state.external(name, state.shapes[name], self.setting.types[name].itemsize)
                if name in read:
                    state.take_in(name)
        for name in self.setting.outputs:
            if name in state.views:
                state.put_out(name)

    def _place(self, state: Lowering) -> None:
        """Arrange the memory and write the table."""
        steps: list[Step] = []
        self.stages: list[Stage] = []
        for stage in state.stages:
            if isinstance(stage, Island):
                self.stages.append(Stage(island=stage))
            elif stage:
                self.stages.append(Stage(len(steps), len(steps) + len(stage)))
                steps += stage
        buffers: dict[int, Buffer] = {}
        for at, step in enumerate(steps):
            for operand in step.operands.values():
                if isinstance(operand, Place):
                    buffers[id(operand.buffer)] = operand.buffer
                    operand.buffer.use(at)
        self.steps = steps
        self.threads = self.setting.threads
        if sum(work for step in steps if (work := work_of(step)) >= LEAST_WORK) < LEAST_SHARED:
            self.threads = 1
        self.arena: Arena = arrange(buffers.values(), len(steps))
        self.memory = np.zeros(self.arena.size + SPARE + ALIGNMENT, np.uint8)
        start = aligned(self.memory)
        self.constants = [b.array for b in buffers.values() if b.array is not None]
        self.patches: list[list[Patch]] = [[] for _ in self.stages]
        self.table = np.zeros((len(steps), program.WIDTH), np.int64)
        for index, part in enumerate(self.stages):
            for at in range(part.first, part.last):
                self.table[at] = self._row(at, steps[at], start, self.patches[index])
        size = program.SCRATCH_BYTES + max((scratch_of(step) for step in steps), default=0) + ALIGNMENT
        self.scratch = [np.zeros(size, np.uint8) for _ in range(self.threads)]
        self.spaces = [aligned(scratch) for scratch in self.scratch]
        self.gates = np.zeros((max(len(steps), 1), 2), np.int64)
        self.gate = self.gates.ctypes.data

    def _row(self, at: int, step: Step, start: int, patches: list[Patch]) -> list[int]:
        operands: dict[str, int] = {}
        for column, name in enumerate(program.OPERANDS[step.operation], 2):
            operand = step.operands[name]
            if isinstance(operand, int | np.integer):
                operands[name] = int(operand)
                continue
            buffer = operand.buffer
            if buffer.array is not None:
                operands[name] = buffer.array.ctypes.data + operand.byte
            elif buffer.planned:
                operands[name] = start + buffer.offset + operand.byte
            else:
                operands[name] = 0
                patches.append(Patch(at, column, buffer.name, operand.byte))
        return program.row(step.operation, parts_of(step, self.threads), **operands)

    # ---- running it

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Every value outside the arena, by name. The feeds have been checked."""
        values: dict[str, Array] = {n: np.ascontiguousarray(v) for n, v in feeds.items()}
        for stage, patches in zip(self.stages, self.patches, strict=True):
            if stage.island is not None:
                runner = self.setting.islands[id(stage.island)]
                found = runner.run({n: values[n] for n in runner.inputs})
                values.update({n: np.ascontiguousarray(v) for n, v in found.items()})
                continue
            for patch in patches:
                if patch.name not in values:
                    values[patch.name] = np.empty(self.shapes[patch.name], self.setting.types[patch.name])
                self.table[patch.row, patch.column] = values[patch.name].ctypes.data + patch.byte
            self._interpret(stage.first, stage.last)
        return values

    def _interpret(self, first: int, last: int) -> None:
        self.gates[first:last] = 0
        run: Callable[..., None] = program.interpret if self.setting.rounding is None else program.interpret_fixed
        arguments = [(self.table, first, last, self.threads, space, self.gate) for space in self.spaces]
        if self.threads == 1 or self.setting.crew is None:
            run(*arguments[0])
        else:
            self.setting.crew.run(run, arguments)


def parts_of(step: Step, threads: int) -> int:
    """In how many parts threads share the work of a step: one where handing over would cost more than the work."""
    return 2 * threads if threads > 1 and work_of(step) >= LEAST_WORK else 1


def work_of(step: Step) -> int:
    """What a step costs, in bytes that a kernel handles one after another; 0 for what is done by one thread."""
    if step.operation == program.SURROUND:
        return 0
    sizes = {name: value for name, value in step.operands.items() if isinstance(value, int | np.integer)}
    work = 1
    for name in WORK:
        work *= max(int(sizes.get(name, 1)), 1)
    if step.operation in (program.CONVOLVE, program.FIXED_CONVOLVE):
        work = work * int(sizes["taps"]) * int(sizes["k4"]) // 16
    if step.operation == program.CONVOLVE_TILES:
        work = work * int(sizes["taps"]) * int(sizes["k64"]) // 4
    return work


def scratch_of(step: Step) -> int:
    """Bytes of scratch that a step wants besides."""
    room = step.operands.get("room", 0)
    assert isinstance(room, int)
    return room


WORK = (
    *("images", "height", "width", "channels", "columns", "groups", "rows", "length", "n0", "n1", "n2", "n3"),
    *("kernel_h", "kernel_w", "count"),
)
"""Operands that the work grows with."""

LEAST_WORK = 8192
"""About as many bytes as a kernel handles while another thread takes notice: a microsecond."""

LEAST_SHARED = 1 << 17
"""Of all steps that are worth sharing, for others to be called at all: some ten microseconds."""


def _homes(setting: Setting) -> dict[str, tuple[Concatenate, int]]:
    """Values that only a Concat reads, as they are: they are made in its place."""
    readers: dict[str, int] = {}
    for op in setting.ops:
        for name in op.inputs:
            readers[name] = readers.get(name, 0) + 1
    return {
        name: (op, index)
        for op in setting.ops
        if isinstance(op, Concatenate)
        for index, (name, table) in enumerate(zip(op.inputs, op.tables, strict=True))
        if table is None and readers[name] == 1 and name not in setting.outputs and name not in setting.constants
    }


def _lean(setting: Setting, state: Lowering) -> frozenset[str]:
    """Values as they come and go, in C order, whose readers touch no byte behind them."""
    if setting.rounding is not None:
        return frozenset()
    names = {n for op in setting.ops for n in (*op.inputs, *op.outputs)}
    wide = {
        n
        for op in setting.ops
        if not isinstance(op, (Binary, LookUp, LookUpPairs, GlobalAverage, Dequantize, Concatenate, Island))
        for n in op.inputs
    }
    return frozenset(names - wide - state.images - setting.signed - state.homes.keys() - setting.constants.keys())


def _images(ops: Sequence[Op]) -> set[str]:
    """Values that convolutions and pools read or make, and what goes along with them through other operators."""
    found = {
        n for op in ops if isinstance(op, (Convolution, Pool, Resize, Interpolate)) for n in (op.inputs[0], op.output)
    }
    while True:
        more = {
            n
            for op in ops
            if isinstance(op, (Binary, LookUp, LookUpPairs, Concatenate, Pad, Slice))
            and found.intersection((*op.inputs, *op.outputs))
            for n in (*op.inputs, *op.outputs)
        }
        if more <= found:
            return found
        found |= more
