"""How threads that help meet the one that asks: by words in memory that they watch for a while before they sleep.

A row of words belongs to each helper: OPEN (the asker: there is work), BUSY and ASLEEP (the helper).
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import njit, types

from zc.kernels import emit
from zc.kernels.emit import Builder, Value, intrinsic

OPEN, BUSY, ASLEEP, WORDS = 0, 8, 16, 64
"""Byte offsets in a helper's row, and its length: a cache line."""

STOP = 2
"""In OPEN: the helper may go home."""


PATIENCE = 4000
"""Turns of a waiting thread before it gives way: some microseconds, less than a switch of threads costs."""


@intrinsic
def arrive(_: Any, gate: Any) -> Any:
    """Add one to the word at an address; its old value."""

    def codegen(_context: Any, b: Builder, _signature: Any, args: Sequence[Value]) -> Value:
        return b.atomic_rmw("add", b.inttoptr(args[0], emit.I64.as_pointer()), emit.i64(1), "seq_cst")

    return types.int64(types.int64), codegen


@intrinsic
def give_way(_: Any, spins: Any) -> Any:
    """Let another thread of this processor run, once many turns were waited in vain."""

    def codegen(context: Any, b: Builder, _signature: Any, args: Sequence[Value]) -> Value:
        with b.if_then(b.icmp_signed(">", args[0], emit.i64(PATIENCE))):
            emit.call(b, "sched_yield", ir.IntType(32))
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def watch(_: Any, address: Any) -> Any:
    """The word at an address, as other threads have written it."""

    def codegen(_context: Any, b: Builder, _signature: Any, args: Sequence[Value]) -> Value:
        return b.load_atomic(b.inttoptr(args[0], emit.I64.as_pointer()), "seq_cst", 8, typ=emit.I64)

    return types.int64(types.int64), codegen


@intrinsic
def tell(_: Any, address: Any, value: Any) -> Any:
    """Write a word so that what this thread reads later is read later. Its old value."""

    def codegen(_context: Any, b: Builder, _signature: Any, args: Sequence[Value]) -> Value:
        return b.atomic_rmw("xchg", b.inttoptr(args[0], emit.I64.as_pointer()), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@njit(cache=True, nogil=True)
def wait_for_work(row, patience):  # type: ignore[no-untyped-def]
    """A helper: done with what it did; what OPEN says once it says something, or 0 after so many looks (asleep now)."""
    tell(row + BUSY, 0)
    for _ in range(patience):
        if watch(row + OPEN) != 0:
            tell(row + BUSY, 1)
            found = watch(row + OPEN)
            if found != 0:  # still: the asker waits for us from now on
                return found
            tell(row + BUSY, 0)
    tell(row + ASLEEP, 1)
    return 0


@njit(cache=True, nogil=True)
def close(rows, count):  # type: ignore[no-untyped-def]
    """The asker: no more helpers for this work; those that came have left."""
    for i in range(count):
        tell(rows + i * WORDS + OPEN, 0)
    for i in range(count):
        spins = 0
        while watch(rows + i * WORDS + BUSY) != 0:
            spins += 1
            give_way(spins)


@njit(cache=True, nogil=True)
def announce(rows, count, what):  # type: ignore[no-untyped-def]
    """The asker: there is work (1), or none ever again (STOP)."""
    for i in range(count):
        tell(rows + i * WORDS + OPEN, what)
