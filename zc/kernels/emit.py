"""Writes LLVM instructions: addresses, vectors, loops with values carried round, stores of a part of a vector."""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic

from zc.kernels.cpu import FORM

Builder = Any
Value = Any
Type = Any


def intrinsic(function: Callable[..., Any]) -> Any:
    """Numba's decorator, whose own type says that callers pass the typing context too."""
    return numba_intrinsic(function)


I8, I16, I32, I64, F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()


def vector(element: Type, lanes: int) -> Type:
    """The vector type."""
    return ir.VectorType(element, lanes)


B16, B32, B64 = vector(I8, 16), vector(I8, 32), vector(I8, 64)
H16, H32 = vector(I16, 16), vector(I16, 32)
W16, F16 = vector(I32, 16), vector(F32, 16)


def number(kind: Type, value: Any) -> Value:
    """A constant; a vector type takes a list."""
    return ir.Constant(kind, value)


def i64(value: int) -> Value:
    """An int64 constant."""
    return ir.Constant(I64, value)


def same(kind: Type, value: float) -> Value:
    """A vector of equal constants."""
    return ir.Constant(kind, [value] * kind.count)


def offset(b: Builder, address: Value, *steps: int | Value) -> Value:
    """An address plus numbers of bytes."""
    for step in steps:
        if not isinstance(step, int):
            address = b.add(address, step)
        elif step:
            address = b.add(address, i64(step))
    return address


def scaled(b: Builder, value: Value, factor: int) -> Value:
    """Value * factor."""
    return b.mul(value, i64(factor))


def load(b: Builder, address: Value, kind: Type, align: int = 1) -> Value:
    """Read a value of that type."""
    return b.load(b.inttoptr(address, kind.as_pointer()), align=align)


def store(b: Builder, value: Value, address: Value, align: int = 1) -> None:
    """Write a value."""
    b.store(value, b.inttoptr(address, value.type.as_pointer()), align=align)


def _declared(module: Any, kind: Type, name: str) -> Value:
    return cgutils.get_or_insert_function(module, kind, name)  # type: ignore[no-untyped-call]


def spilled(b: Builder, kind: Type) -> Value:
    """Room for a value on the stack."""
    return cgutils.alloca_once(b, kind)  # type: ignore[no-untyped-call]


def call(b: Builder, name: str, result: Type, *args: Value) -> Value:
    """Call an LLVM intrinsic by its full name."""
    kind = ir.FunctionType(result, [a.type for a in args])
    return b.call(_declared(b.module, kind, name), list(args))


def splat(b: Builder, value: Value, lanes: int) -> Value:
    """A vector of equal values."""
    kind = vector(value.type, lanes)
    nothing = number(kind, ir.Undefined)
    one = b.insert_element(nothing, value, number(I32, 0))
    return b.shuffle_vector(one, nothing, number(vector(I32, lanes), [0] * lanes))


def shuffle(b: Builder, x: Value, y: Value, lanes: Sequence[int]) -> Value:
    """Lanes of x, then of y, by number."""
    return b.shuffle_vector(x, y, number(vector(I32, len(lanes)), list(lanes)))


def loop(
    b: Builder, count: Value, start: Sequence[Value], body: Callable[[Value, list[Value]], Sequence[Value]]
) -> list[Value]:
    """For i in range(count): values = body(i, values), from `start`; the values at the end."""
    before = b.block
    inside, after = b.function.append_basic_block("loop"), b.function.append_basic_block("done")
    b.cbranch(b.icmp_signed(">", count, i64(0)), inside, after)
    b.position_at_end(inside)
    index = b.phi(I64)
    carried = [b.phi(v.type) for v in start]
    new = list(body(index, carried))
    following = b.add(index, i64(1))
    end = b.block
    for phi, first, later in zip([index, *carried], [i64(0), *start], [following, *new], strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, end)
    b.cbranch(b.icmp_signed("<", following, count), inside, after)
    b.position_at_end(after)
    results = []
    for first, later in zip(start, new, strict=True):
        phi = b.phi(first.type)
        phi.add_incoming(first, before)
        phi.add_incoming(later, end)
        results.append(phi)
    return results


def in_steps(b: Builder, count: Value, step: int, body: Callable[[Value, Value | None], None]) -> None:
    """body(at, None) for every whole step below `count`, and body(at, left) for what is left, if anything is."""
    whole = b.sdiv(call(b, "llvm.smax.i64", I64, count, i64(0)), i64(step))

    def turn(i: Value, _: list[Value]) -> list[Value]:
        body(scaled(b, i, step), None)
        return []

    loop(b, whole, [], turn)
    at = scaled(b, whole, step)
    with b.if_then(b.icmp_signed("<", at, count)):
        body(at, b.sub(count, at))


def lanes_below(b: Builder, count: Value, lanes: int) -> Value:
    """A mask of the lanes whose number is below `count` (int64, any value)."""
    low = call(b, "llvm.smin.i64", I64, call(b, "llvm.smax.i64", I64, count, i64(0)), i64(lanes))
    if FORM.vnni:  # bits of a mask register: all of them, less those that are not wanted
        ones = b.lshr(i64(-1), b.sub(i64(64), call(b, "llvm.smax.i64", I64, low, i64(1))))
        bits = b.select(b.icmp_signed("==", low, i64(0)), i64(0), ones)
        return b.bitcast(b.trunc(bits, ir.IntType(lanes)) if lanes < 64 else bits, vector(ir.IntType(1), lanes))
    kind = vector(I32, lanes)
    return b.icmp_signed("<", number(kind, list(range(lanes))), splat(b, b.trunc(low, I32), lanes))


def store_first(b: Builder, value: Value, address: Value, count: Value | None) -> None:
    """Write the first `count` lanes of a vector (int64): none if below 1; all if None or at least that many."""
    if count is None:
        store(b, value, address)
        return
    lanes, element = value.type.count, value.type.element
    pointer = b.inttoptr(address, value.type.as_pointer())
    if FORM.vnni:
        name = f"llvm.masked.store.v{lanes}{'f32' if element == F32 else f'i{element.width}'}.p0"
        mask = lanes_below(b, count, lanes)
        kind = ir.FunctionType(ir.VoidType(), [value.type, pointer.type, I32, mask.type])
        b.call(_declared(b.module, kind, name), [value, pointer, number(I32, 1), mask])
        return
    with b.if_else(b.icmp_signed(">=", count, i64(lanes))) as (whole, part):
        with whole:
            b.store(value, pointer, align=1)
        with part:
            spill = spilled(b, value.type)
            b.store(value, spill)
            _copy_first(b, b.ptrtoint(spill, I64), address, value.type, count)


def load_first(b: Builder, address: Value, kind: Type, count: Value | None, rest: Value | None = None) -> Value:
    """Read the first `count` lanes of a vector (all if None) without touching what is behind; others: of `rest`."""
    if count is None:
        return load(b, address, kind)
    lanes, element = kind.count, kind.element
    pointer = b.inttoptr(address, kind.as_pointer())
    if FORM.vnni:
        name = f"llvm.masked.load.v{lanes}{'f32' if element == F32 else f'i{element.width}'}.p0"
        mask = lanes_below(b, count, lanes)
        function = _declared(b.module, ir.FunctionType(kind, [pointer.type, I32, mask.type, kind]), name)
        return b.call(function, [pointer, number(I32, 1), mask, number(kind, ir.Undefined) if rest is None else rest])
    spill = spilled(b, kind)
    if rest is not None:
        b.store(rest, spill)
    with b.if_else(b.icmp_signed(">=", count, i64(lanes))) as (whole, part):
        with whole:
            b.store(b.load(pointer, align=1), spill)
        with part:
            _copy_first(b, address, b.ptrtoint(spill, I64), kind, count)
    return b.load(spill)


def _copy_first(b: Builder, source: Value, target: Value, kind: Type, count: Value) -> None:
    """Copy less than a whole vector: for each bit of `count` so many elements at once; none if it is negative."""
    size = 4 if kind.element == F32 else kind.element.width // 8
    with b.if_then(b.icmp_signed(">", count, i64(0))):
        step = kind.count // 2
        while step:
            larger = b.and_(count, i64(-2 * step))  # what was copied in larger steps lies in front
            away = scaled(b, larger, size)
            with b.if_then(b.icmp_signed("!=", b.and_(count, i64(step)), i64(0))):
                part = vector(kind.element, step) if step > 1 else kind.element
                store(b, load(b, offset(b, source, away), part), offset(b, target, away))
            step //= 2


def kernel(build: Callable[..., None], arguments: int) -> Any:
    """An intrinsic that njit code calls with int64 arguments; `build(builder, *values)` writes its body."""

    def typed(_: Any, *args: Any) -> Any:
        def codegen(context: Any, b: Builder, _signature: Any, values: Sequence[Value]) -> Value:
            build(b, *values)
            return context.get_dummy_value()

        return types.void(*[types.int64] * len(args)), codegen

    names = ", ".join(f"a{i}" for i in range(arguments))
    scope: dict[str, Any] = {"typed": typed}
    exec(f"def kernel(context, {names}):\n    return typed(context, {names})", scope)
    return intrinsic(scope["kernel"])


@intrinsic
def float_of(_: Any, bits: Any) -> Any:
    """The float32 whose bits are the low half of an int64."""

    def codegen(_context: Any, b: Builder, _signature: Any, args: Sequence[Value]) -> Value:
        return b.bitcast(b.trunc(args[0], I32), F32)

    return types.float32(types.int64), codegen


@intrinsic
def round_even(_: Any, value: Any) -> Any:
    """float32 to the nearest int32, halves to even."""

    def codegen(_context: Any, b: Builder, _signature: Any, args: Sequence[Value]) -> Value:
        return call(b, "llvm.lrint.i32.f32", I32, args[0])

    return types.int32(types.float32), codegen


@intrinsic
def byte_at(_: Any, address: Any) -> Any:
    """The byte at an address."""

    def codegen(_context: Any, b: Builder, _signature: Any, args: Sequence[Value]) -> Value:
        return load(b, args[0], I8)

    return types.uint8(types.int64), codegen


@intrinsic
def set_byte(_: Any, address: Any, value: Any) -> Any:
    """Write a byte."""

    def codegen(context: Any, b: Builder, _signature: Any, args: Sequence[Value]) -> Value:
        store(b, args[1], args[0])
        return context.get_dummy_value()

    return types.void(types.int64, types.uint8), codegen


@intrinsic
def float_at(_: Any, address: Any) -> Any:
    """The float32 at an address."""

    def codegen(_context: Any, b: Builder, _signature: Any, args: Sequence[Value]) -> Value:
        return load(b, args[0], F32)

    return types.float32(types.int64), codegen


@intrinsic
def set_float(_: Any, address: Any, value: Any) -> Any:
    """Write a float32."""

    def codegen(context: Any, b: Builder, _signature: Any, args: Sequence[Value]) -> Value:
        store(b, args[1], args[0])
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), codegen


@intrinsic
def word_at(_: Any, address: Any) -> Any:
    """The int64 at an address."""

    def codegen(_context: Any, b: Builder, _signature: Any, args: Sequence[Value]) -> Value:
        return load(b, args[0], I64, 8)

    return types.int64(types.int64), codegen


@intrinsic
def set_word(_: Any, address: Any, value: Any) -> Any:
    """Write an int64."""

    def codegen(context: Any, b: Builder, _signature: Any, args: Sequence[Value]) -> Value:
        store(b, args[1], args[0], 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def int_at(_: Any, address: Any) -> Any:
    """The int32 at an address, as an int64."""

    def codegen(_context: Any, b: Builder, _signature: Any, args: Sequence[Value]) -> Value:
        return b.sext(load(b, args[0], I32), I64)

    return types.int64(types.int64), codegen


@intrinsic
def set_int(_: Any, address: Any, value: Any) -> Any:
    """Write the low 32 bits of an int64."""

    def codegen(context: Any, b: Builder, _signature: Any, args: Sequence[Value]) -> Value:
        store(b, b.trunc(args[1], I32), args[0])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def set_half(_: Any, address: Any, value: Any) -> Any:
    """Write the low 16 bits of an int64."""

    def codegen(context: Any, b: Builder, _signature: Any, args: Sequence[Value]) -> Value:
        store(b, b.trunc(args[1], I16), args[0])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen
