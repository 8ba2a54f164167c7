"""The form `avx512vnni` on a processor without it: its instructions written out, so that its kernels run anywhere.

`use()` must come before any other module of the kernels is imported.
"""

from collections.abc import Callable, Sequence
from typing import Any

Value = Any


def use(permute: bool) -> None:
    """Let this process generate the form, with what it calls of AVX-512 in plain LLVM vectors."""
    from zc.kernels import cpu

    cpu.FORM = cpu.Form("avx512vnni", permute)
    from zc.kernels import emit

    native = emit.call

    def call(b: Any, name: str, result: Any, *args: Value) -> Value:
        written = INSTRUCTIONS.get(name)
        return native(b, name, result, *args) if written is None else written(b, *args)

    emit.call = call


def _interleaved(b: Any, x: Value, y: Value, per: int) -> Value:
    """Quarters of two vectors in turn; per: lanes of a quarter."""
    from zc.kernels import emit

    count = x.type.count
    order = [start + j for start in range(0, count, per) for j in range(per)]
    lanes = [lane + side for at in range(0, count, per) for side in (0, count) for lane in order[at : at + per]]
    return emit.shuffle(b, x, y, lanes)


def _packed(least: int, most: int, wide: int) -> Callable[..., Value]:
    def write(b: Any, x: Value, y: Value) -> Value:
        from llvmlite import ir

        from zc.kernels import emit

        both = _interleaved(b, x, y, 128 // wide)
        name = f"v{both.type.count}i{wide}"
        low = emit.call(b, f"llvm.smax.{name}", both.type, both, emit.same(both.type, least))
        bounded = emit.call(b, f"llvm.smin.{name}", both.type, low, emit.same(both.type, most))
        return b.trunc(bounded, emit.vector(ir.IntType(wide // 2), both.type.count))

    return write


def _dot(b: Any, acc: Value, codes: Value, weights: Value) -> Value:
    from zc.kernels import emit

    wide = emit.vector(emit.I32, 64)
    products = b.mul(b.zext(codes, wide), b.sext(weights, wide))
    for j in range(4):
        acc = b.add(acc, emit.shuffle(b, products, products, range(j, 64, 4)))
    return acc


def _high(b: Any, x: Value, y: Value) -> Value:
    from zc.kernels import emit

    wide = emit.vector(emit.I32, 32)
    return b.trunc(b.ashr(b.mul(b.sext(x, wide), b.sext(y, wide)), emit.same(wide, 16)), emit.H32)


def _sums(b: Any, x: Value, _nothing: Value) -> Value:
    from zc.kernels import emit

    wide = b.zext(x, emit.vector(emit.I64, 64))
    total = emit.shuffle(b, wide, wide, range(0, 64, 8))
    for j in range(1, 8):
        total = b.add(total, emit.shuffle(b, wide, wide, range(j, 64, 8)))
    return total


def _chosen(b: Any, low: Value, index: Value, high: Value) -> Value:
    """Bytes of two vectors by the low 7 bits of an index."""
    from zc.kernels import emit

    both = emit.spilled(b, emit.vector(emit.I8, 128))
    b.store(emit.shuffle(b, low, high, range(128)), both)
    table = b.ptrtoint(both, emit.I64)
    found = index
    for lane in range(64):
        at = emit.number(emit.I32, lane)
        place = b.zext(b.and_(b.extract_element(index, at), emit.number(emit.I8, 127)), emit.I64)
        found = b.insert_element(found, emit.load(b, b.add(table, place), emit.I8), at)
    return found


INSTRUCTIONS: dict[str, Callable[..., Value]] = {
    "llvm.x86.avx512.vpdpbusd.512": _dot,
    "llvm.x86.avx512.packssdw.512": _packed(-(1 << 15), (1 << 15) - 1, 32),
    "llvm.x86.avx512.packuswb.512": _packed(0, 255, 16),
    "llvm.x86.avx512.pmulh.w.512": _high,
    "llvm.x86.avx512.psad.bw.512": _sums,
    "llvm.x86.avx512.vpermi2var.qi.512": _chosen,
}

__all__: Sequence[str] = ["use"]
