"""Which form of the kernels this processor can run. Decided before any code is generated.

An instruction that the processor lacks ends the process, so what LLVM is told about the processor (by Numba, from
NUMBA_CPU_NAME and NUMBA_CPU_FEATURES or by asking it) is the only thing that may choose it.
"""

import os
import platform
from dataclasses import dataclass

import llvmlite.binding as llvm
from numba.core import config

NEEDED = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni"})
"""Features of the form `avx512vnni`."""


@dataclass(frozen=True)
class Form:
    """How kernels are generated. A value: equal forms give equal code."""

    name: str
    """`avx512vnni`: four products a lane and instruction; `portable`: plain LLVM vectors, for any processor."""
    permute: bool
    """Are there 64-byte table look-ups (AVX512-VBMI)?"""

    @property
    def vnni(self) -> bool:
        """Does the processor add up four products of bytes at once, exactly?"""
        return self.name == "avx512vnni"


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


def choose() -> Form:
    """The best form; ZC_KERNELS=portable asks for the portable one."""
    found = features()
    x86 = platform.machine().lower() in {"x86_64", "amd64"}
    if not x86 or not found >= NEEDED or os.environ.get("ZC_KERNELS") == "portable":
        return Form("portable", permute=False)
    return Form("avx512vnni", permute="avx512vbmi" in found)


FORM = choose()
"""The form of this process."""
