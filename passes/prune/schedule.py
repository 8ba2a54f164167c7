"""Pruning in rounds, with training in between."""

import dataclasses
from typing import Any

from zc.errors import ZcError
from zc.pipeline.base import Pass

_DIGITS = 6


def kept(goal: float, rounds: int) -> list[float]:
    """What is left of the whole after each round: 1 - (1 - goal) * (1 - (1 - t)^3), t the part of the rounds done.

    (Zhu and Gupta, To Prune, or Not to Prune, 2017: polynomial decay.)
    """
    return [1 - (1 - goal) * (1 - (1 - i / rounds) ** 3) for i in range(1, rounds + 1)]


def schedule(prune: Any, rounds: int, following: Pass | None) -> tuple[Pass, ...]:
    """Prune and train, so many times; each goal is a share of what the round before left.

    Raises:
        ZcError: the pass behind is none that trains.
    """
    if following is None or "share" not in following.options():
        raise ZcError(f"prune: steps={rounds} needs a pass that trains behind it: prune:...:steps={rounds},distill")
    name = next(n for n in ("ratio", "macs", "params", "bytes") if getattr(prune, n) is not None)
    goal = getattr(prune, name)
    left = [1.0, *kept(1 - goal if name == "ratio" else goal, rounds)]
    found: list[Pass] = []
    for i in range(1, rounds + 1):
        part = round(left[i] / left[i - 1], _DIGITS)
        value = round(1 - part, _DIGITS) if name == "ratio" else part
        found += [dataclasses.replace(prune, steps=1, **{name: value}), _share(following, i, rounds)]
    return tuple(found)


def _share(following: Any, i: int, rounds: int) -> Pass:
    changes: dict[str, Any] = {"share": round(following.share / rounds, _DIGITS)}
    if following.checkpoint:
        changes["checkpoint"] = f"{following.checkpoint}.{i}"
    new: Pass = dataclasses.replace(following, **changes)
    return new
