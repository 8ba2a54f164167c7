"""Which channels of a wider value a narrower one has left: what pruning took away is not written in the graph."""

import torch

from zc.training.ops.call import Tensor

_ALIKE = 0.5
"""Correlation from which on two channels are taken for the same one."""


def left_channels(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """The channels that both have: their numbers in the student's value and in the teacher's, int64 [K].

    For each of the student's, the channel of the teacher's that it goes with best over rows and places, if it does at
    all. Values: [N, C, ...] and [N, D, ...] of equal places, or of three axes [N, L, C] and [N, L, D].
    """
    ours, theirs = _columns(student), _columns(teacher)
    alike, best = (ours.T @ theirs).max(1)
    own = torch.nonzero(alike >= _ALIKE).flatten()
    return own, best[own]


def channel_axis(value: Tensor) -> int:
    """Where a value has its channels."""
    return 2 if value.dim() == 3 else 1


def _columns(value: Tensor) -> Tensor:
    """Each channel over rows and places, centred and of length 1: [places, C]."""
    flat = value.detach().float().movedim(channel_axis(value), -1).flatten(0, -2)
    flat = flat - flat.mean(0)
    return flat / flat.norm(dim=0).clamp(min=1e-12)
