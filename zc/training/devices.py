"""Where and how exactly to train: device, precision, threads, memory."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from zc.errors import ZcError
from zc.ir.graph import Array
from zc.training.ops.call import Tensor
from zc.training.recipe import Recipe


def pick_device(recipe: Recipe) -> torch.device:
    """Where to train. ZcError when CUDA is asked for and there is none."""
    cuda = torch.cuda.is_available()
    if recipe.device == "cuda" and not cuda:
        raise ZcError("device=cuda: torch sees no CUDA device here; use device=auto")
    return torch.device("cuda" if recipe.device == "cuda" or (recipe.device == "auto" and cuda) else "cpu")


def to_device(feeds: dict[str, Array], device: torch.device) -> dict[str, Tensor]:
    """Feeds as tensors; images in the layout in which convolutions are trained fastest."""
    out = {}
    for name, array in feeds.items():
        tensor = torch.from_numpy(np.array(array)).to(device)  # a copy: arrays of samples may be read-only
        out[name] = as_image(tensor)
    return out


def as_image(tensor: Tensor) -> Tensor:
    """The same; floats of four axes in the layout in which convolutions are trained fastest."""
    images = tensor.dim() == 4 and tensor.is_floating_point()
    return tensor.contiguous(memory_format=torch.channels_last) if images else tensor


def autocast(narrow: bool, device: torch.device) -> Any:
    """The context in which layers run: in bfloat16, or as they are."""
    return torch.autocast(device.type, torch.bfloat16) if narrow else nullcontext()


def gains_by_bfloat16(device: torch.device) -> bool:
    """Is a step in bfloat16 faster? On a GPU, and on processors with tiles of it (AMX): two to three times."""
    return device.type == "cuda" or _multiplies_bfloat16()


def _multiplies_bfloat16() -> bool:
    ask = getattr(torch.cpu, "get_capabilities", None)  # older torch cannot say
    return ask is not None and bool(ask().get("amx_bf16", False))


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let torch use so many threads."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


_TRIM, _MAPPED, _MAPS = -1, -3, -4
"""Parameters of glibc's mallopt: free bytes at which memory goes back to the system, bytes from which a block is mapped
on its own, and how many such blocks there may be."""
_DEFAULTS = {_MAPS: 65536, _MAPPED: 32 * 2**20, _TRIM: 128 * 2**10}


@contextmanager
def kept_memory() -> Iterator[None]:
    """Let what is freed stay with the process until the end, where the C library is glibc.

    The values of large images come and go with each step; pages that went back to the system are cleared anew each
    time, which is a quarter of the time of a small net's step on images of 224.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not (hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")):
        yield
        return
    libc.mallopt(_MAPS, 0)
    libc.mallopt(_TRIM, 2**31 - 1)
    try:
        yield
    finally:
        for parameter, value in _DEFAULTS.items():
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)
