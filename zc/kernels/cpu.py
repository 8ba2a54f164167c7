"""Which form of the kernels this processor can run. Decided before any code is generated.

An instruction that the processor lacks ends the process, so what LLVM is told about the processor (by Numba, from
NUMBA_CPU_NAME and NUMBA_CPU_FEATURES or by asking it) is the only thing that may choose it. Tile registers need the
operating system's leave besides: without it, the first instruction that touches one ends the process too.
"""

import ctypes
import os
import platform
from dataclasses import dataclass

import llvmlite.binding as llvm
from numba.core import config

from zc.errors import ZcError, nearest

PAIRS = frozenset({"avx2", "fma"})
"""Features of the form `avx2`."""

NEEDED = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni"})
"""Features of the form `avx512vnni`."""

TILES = frozenset({"amx-tile", "amx-int8"})
"""Features that the form `amx` needs more."""

FORMS = ("portable", "avx2", "avx512vnni", "amx")
"""From the least to the most demanding."""

ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XTILEDATA = 158, 0x1023, 18
"""Linux on x86-64: the system call, its code that asks for a part of the processor's state, the tiles' number
(Documentation/arch/x86/xstate.rst)."""


@dataclass(frozen=True)
class Form:
    """How kernels are generated. A value: equal forms give equal code."""

    name: str
    """`amx`: tiles of 16 x 64 bytes multiplied at once, and all of `avx512vnni`: four products a lane and instruction;
    `avx2`: two products of 16 bits a lane; `portable`: plain LLVM vectors, for any processor."""
    permute: bool
    """Are there 64-byte table look-ups (AVX512-VBMI)?"""

    @property
    def vnni(self) -> bool:
        """Does the processor add up four products of bytes at once, exactly?"""
        return self.name in ("avx512vnni", "amx")

    @property
    def avx2(self) -> bool:
        """Are pairs of products of 16 bits one instruction of AVX2?"""
        return self.name == "avx2"

    @property
    def amx(self) -> bool:
        """Are there tile registers, and may this process use them?"""
        return self.name == "amx"


def features() -> frozenset[str]:
    """What the code may use: the features that Numba hands to LLVM."""
    told = getattr(config, "CPU_FEATURES", None)
    if told is not None:
        return frozenset(word[1:] for word in told.split(",") if word.startswith("+"))
    if getattr(config, "CPU_NAME", None) is not None:
        return frozenset()  # another processor by name alone: assume the least
    try:
        return frozenset(name for name, there in llvm.get_host_cpu_features().items() if there)
    except RuntimeError:  # LLVM cannot ask this kind of processor
        return frozenset()


def dot_product() -> bool:
    """Has the processor an exact dot product of bytes (VNNI on x86, dotprod on ARM)?"""
    return not features().isdisjoint({"avx512vnni", "avxvnni", "dotprod", "amx-int8"})


def tiles_allowed() -> bool:
    """Ask the operating system to let this process, all its threads, use the tile registers."""
    if platform.system() != "Linux":
        return False
    try:
        return int(ctypes.CDLL(None).syscall(ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XTILEDATA)) == 0
    except (OSError, AttributeError):  # no C library to ask by
        return False


def choose() -> Form:
    """The best form, at most the one that ZC_KERNELS names.

    Raises:
        ZcError: ZC_KERNELS names no form.
    """
    most = os.environ.get("ZC_KERNELS") or FORMS[-1]
    if most not in FORMS:
        raise ZcError(
            f"ZC_KERNELS={most}: no such form of the kernels{nearest(most, list(FORMS))}; use {', '.join(FORMS)}"
        )
    found = features()
    x86 = platform.machine().lower() in {"x86_64", "amd64"}
    if not x86 or not found >= PAIRS or most == "portable":
        return Form("portable", permute=False)
    if not found >= NEEDED or most == "avx2":
        return Form("avx2", permute=False)
    amx = most == "amx" and found >= TILES and tiles_allowed()
    return Form("amx" if amx else "avx512vnni", permute="avx512vbmi" in found)


FORM = choose()
"""The form of this process."""
