"""From operations to steps: every value gets a place and a layout, every operation its row of the interpreter's table.

Images lie channels last, with the padding that the convolutions behind them want around them, already filled: a filter
tap is then a constant distance. Reshapes, slices, transposes and splits are other views of the same bytes wherever
that is possible; the inputs of a Concat are written straight into its place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from zc.errors import ZcError
from zc.ir.graph import Array, describe
from zc.kernels import program
from zc.kernels.fixedpoint import Rounding
from zc.runtime.memory import ALIGNMENT, SPARE, Buffer, Place, View, aligned, dense
from zc.runtime.ops import Coding, Concatenate, Convolution, Island, Op
from zc.runtime.walk import walks

Operand = int | Place
Shape = tuple[int, ...]
NO_HALO = (0, 0, 0, 0)


@dataclass(frozen=True)
class Step:
    """A row of the table before memory is planned."""

    operation: int
    operands: Mapping[str, Operand]
    op: Op


@dataclass
class Lowering:
    """The state of one lowering: for one set of input shapes."""

    name: str
    threads: int
    constants: Mapping[str, Array]
    """Codes and floats that are initializers, by name."""
    signed: frozenset[str]
    """Values with int8 codes."""
    packed: dict[tuple[int, ...], object]
    """Packed weights, kept between plans."""
    rounding: Rounding | None = None
    """How results are rounded in fixed point; None: in float, as onnxruntime does."""
    stages: list[list[Step] | Island] = field(default_factory=lambda: [[]])
    views: dict[str, View] = field(default_factory=dict)
    outside: dict[str, Buffer] = field(default_factory=dict)
    """Values that are arrays outside the arena, by name."""
    shapes: dict[str, Shape] = field(default_factory=dict)
    halos: dict[str, tuple[tuple[int, int, int, int], int]] = field(default_factory=dict)
    """Padding that the readers of a value want, and the code in it."""
    homes: dict[str, tuple[Concatenate, int]] = field(default_factory=dict)
    """Values that are written straight into a Concat's place."""
    images: set[str] = field(default_factory=set)
    """Values that lie channels last, as convolutions and pools want them."""
    lean: frozenset[str] = frozenset()
    """Values that may lie outside the arena in C order: whoever reads them touches no byte behind them."""
    results: frozenset[str] = frozenset()
    """Outputs of the model."""
    current: Op | None = None

    # ---- steps

    def emit(self, operation: int, **operands: Operand) -> None:
        """Append a step."""
        assert self.current is not None
        steps = self.stages[-1]
        if isinstance(steps, Island):
            steps = []
            self.stages.append(steps)
        steps.append(Step(operation, operands, self.current))

    def constant(self, array: Array) -> Place:
        """The address of constant contents."""
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        whole = np.zeros(len(flat) + SPARE + ALIGNMENT, np.uint8)
        start = aligned(whole) - whole.ctypes.data
        whole[start : start + len(flat)] = flat
        return Place(Buffer(len(flat), array=whole[start:]))

    # ---- values

    def codes(self, name: str) -> View:
        """The view of a value."""
        if name not in self.views and name in self.constants:
            array = self.constants[name]
            self.views[name] = self.constants_view(
                array.view(np.uint8) ^ np.uint8(128) if array.dtype == np.int8 else array
            )
        if name not in self.views:
            raise ZcError(f"{self.name}: value '{name}' is not made before it is read")
        return self.views[name]

    def constants_view(self, codes: Array) -> View:
        """A view of constant codes in memory (uint8)."""
        return View(self.constant(codes).buffer, 0, codes.shape, dense(codes.shape))

    def fresh(self, name: str, shape: Shape, image: bool | None = None) -> View:
        """A place for a value that is about to be made. image: channels last; by default where convolutions want it."""
        self.check(name, shape)
        if name in self.homes and name not in self.views:
            op, index = self.homes[name]
            view = self._home(op, index, shape)
            if view is not None:
                self.views[name] = view
                return view
        if image is None:
            image = len(shape) in (3, 4) and name in self.images
        if name in self.results and name in self.lean and not image:
            self.views[name] = self._outside(name, shape)
            return self.views[name]
        halo, zero = self.halos.get(name, (NO_HALO, 0)) if image else (NO_HALO, 0)
        view = self.allocate(shape, image, halo, zero)
        self.views[name] = view
        return view

    def check(self, name: str, shape: Shape) -> None:
        """ZcError for tensors without elements: no kernel is asked to run on nothing."""
        if any(size <= 0 for size in shape):
            raise ZcError(f"{self.where()}: value '{name}' would have shape {list(shape)}, which holds nothing")

    def allocate(self, shape: Shape, image: bool, halo: tuple[int, int, int, int] = NO_HALO, zero: int = 0) -> View:
        """A place in the arena, its padding filled."""
        if not image:
            return View(Buffer(int(np.prod(shape, dtype=np.int64))), 0, shape, dense(shape))
        n, c, h, w = shape if len(shape) == 4 else (shape[0], shape[1], 1, shape[2])
        top, left, bottom, right = halo
        row = (w + left + right) * c
        whole = (h + top + bottom) * row
        buffer = Buffer(n * whole)
        start = top * row + left * c
        if any(halo):
            self.emit(
                program.SURROUND,
                y=Place(buffer),
                y_image=whole,
                y_row=row,
                images=n,
                height=h,
                before=top * row,
                after=bottom * row,
                left=left * c,
                inner=w * c,
                right=right * c,
                value=zero,
            )
        strides = (whole, 1, row, c) if len(shape) == 4 else (whole, 1, c)
        return View(buffer, start, shape, strides, halo)

    def _home(self, op: Concatenate, index: int, shape: Shape) -> View | None:
        """The part of a Concat's place that one input takes; None where the sizes are not all known yet."""
        sizes = [self.shapes.get(name) for name in op.inputs]
        if any(s is None for s in sizes):
            return None
        whole = list(shape)
        axis = op.axis % len(shape)
        extents = [s[axis] for s in sizes if s is not None]
        whole[axis] = sum(extents)
        if op.output not in self.views:
            self.fresh(op.output, tuple(whole))
        return self.views[op.output].part(axis, sum(extents[:index]), extents[index])

    def like(self, name: str, shape: Shape, other: View) -> View:
        """A place for a value, in the layout of another."""
        image = other.image is not None and len(shape) == len(other.shape) and len(shape) in (3, 4)
        return self.fresh(name, shape, image=image)

    # ---- layout

    def image(self, name: str, pads: tuple[int, int, int, int] = NO_HALO, zero: int = 0) -> View:
        """A value channels last, with at least that padding around it."""
        view = self.codes(name)
        if view.image is not None and all(h >= p for h, p in zip(view.halo, pads, strict=True)):
            return view
        if len(view.shape) not in (3, 4):
            raise ZcError(f"{self.name}: value '{name}' has shape {list(view.shape)}; images have three or four axes")
        copy = self.allocate(view.shape, True, pads, zero)
        self.move(view, copy)
        self.views[name] = copy
        return copy

    def rows(self, view: View) -> View:
        """A value in C order."""
        flat = view.reshaped((int(np.prod(view.shape, dtype=np.int64)),))
        if flat is not None:
            return view
        copy = self.allocate(view.shape, False)
        self.move(view, copy)
        return copy

    def matrix(self, view: View, rows: int, columns: int) -> View:
        """A value as a matrix whose rows are contiguous."""
        flat = view.reshaped((rows, columns))
        if flat is None or (flat.strides[1] != 1 and columns > 1):
            flat = self.rows(view).reshaped((rows, columns))
        assert flat is not None
        return flat

    def along(self, view: View, target: View) -> View:
        """A view of the target's shape whose bytes lie side by side where the target's do."""
        view = view.spread(target.shape)
        for walk in walks(target.shape, [view.strides, target.strides], 9):
            if walk.length > 1 and walk.inner != (1, 1):
                image = target.image is not None and len(target.shape) in (3, 4)
                copy = self.allocate(target.shape, image)
                self.move(view, copy)
                return copy
            break
        return view

    def move(self, source: View, target: View, flip: int = 0) -> None:
        """Copy codes from one layout to another."""
        for walk in walks(target.shape, [source.strides, target.strides], 4):
            self.emit(
                program.MOVE,
                x=Place(source.buffer, source.start + walk.starts[0]),
                y=Place(target.buffer, target.start + walk.starts[1]),
                **{f"x{i}": s for i, s in enumerate(walk.outer[0])},
                **{f"y{i}": s for i, s in enumerate(walk.outer[1])},
                **{f"n{i}": n for i, n in enumerate(walk.sizes)},
                x_step=walk.inner[0],
                y_step=walk.inner[1],
                length=walk.length,
                flip=flip,
            )

    # ---- the borders

    def external(self, name: str, shape: Shape, size: int) -> Buffer:
        """The array outside the arena that holds a value, of elements of `size` bytes."""
        if name not in self.outside:
            self.check(name, shape)
            self.outside[name] = Buffer(int(np.prod(shape, dtype=np.int64)) * size, name=name)
            self.shapes[name] = shape
        return self.outside[name]

    def _outside(self, name: str, shape: Shape) -> View:
        return View(self.external(name, shape, 1), 0, shape, dense(shape))

    def take_in(self, name: str) -> None:
        """Bring codes from outside into the arena."""
        shape = self.shapes[name]
        source = self._outside(name, shape)
        if name in self.lean:
            self.views[name] = source
            return
        self.move(source, self.fresh(name, shape), flip=128 if name in self.signed else 0)

    def put_out(self, name: str) -> None:
        """Bring codes from the arena outside."""
        if name in self.outside:
            return
        view = self.codes(name)
        self.move(view, self._outside(name, view.shape), flip=128 if name in self.signed else 0)

    def where(self) -> str:
        """For messages: the model and the node."""
        return self.name if self.current is None else f"{self.name}: node '{describe(self.current.nodes[0])}'"


def wanted_halos(ops: Sequence[Op]) -> dict[str, tuple[tuple[int, int, int, int], int]]:
    """By value: the padding that the convolutions which read it want, and its zero point."""
    found: dict[str, tuple[tuple[int, int, int, int], int]] = {}
    for op in ops:
        if isinstance(op, Convolution) and op.pads is not None:
            before, _ = found.get(op.inputs[0], (NO_HALO, 0))
            most = tuple(max(a, b) for a, b in zip(before, op.pads, strict=True))
            found[op.inputs[0]] = (most, op.x.zero)  # type: ignore[assignment]
    return found


def zero_of(coding: Coding | None) -> int:
    """The code of zero, 0 where there is no coding."""
    return 0 if coding is None else coding.zero
