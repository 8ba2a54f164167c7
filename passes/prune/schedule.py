"""Pruning in rounds, with training in between: as a pipeline, or with a function of the caller's."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

from zc.errors import ZcError
from zc.ir.model import Model
from zc.pipeline.base import Context, Pass
from zc.pipeline.manager import Report, run_pipeline
from zc.pipeline.spec import Pipeline

Schedule = Literal["polynomial", "linear"]
Train = Callable[[Model, int], None]
"""Trains the weights of a model in place after the round of that number, 1 for the first."""

_DIGITS = 6


def kept(goal: float, rounds: int, shape: Schedule = "polynomial") -> list[float]:
    """What is left of the whole after each round, where `goal` is left in the end; t is the part of the rounds done.

    polynomial: 1 - (1 - goal) * (1 - (1 - t)^3), large cuts first (Zhu and Gupta, To Prune, or Not to Prune, 2017).
    linear: 1 - (1 - goal) * t, the same amount in each round.
    """
    power = 3 if shape == "polynomial" else 1
    return [1 - (1 - goal) * (1 - (1 - i / rounds) ** power) for i in range(1, rounds + 1)]


def alternate(prune: Any, following: Pass | None) -> tuple[Pass, ...]:
    """Prune and train, so many times; each goal is a share of what the round before left.

    following: trains. Any pass does that takes, as its option `share`, which part of its budget a round may use.

    Raises:
        ZcError: the pass behind is none that trains.
    """
    steps = prune.steps
    if following is None or "share" not in following.options():
        raise ZcError(f"prune: steps={steps} needs a pass that trains behind it: prune:...:steps={steps},distill")
    found: list[Pass] = []
    for i, one in enumerate(in_rounds(prune), 1):
        found += [one, _share(following, i, steps)]
    return tuple(found)


def in_rounds(prune: Any) -> list[Any]:
    """The pass once for each of its steps; each goal is a share of what the round before left."""
    name = next(n for n in ("ratio", "macs", "params", "bytes") if getattr(prune, n) is not None)
    goal = getattr(prune, name)
    left = [1.0, *kept(1 - goal if name == "ratio" else goal, prune.steps, prune.schedule)]
    found = []
    for i in range(1, prune.steps + 1):
        part = left[i] / left[i - 1]
        value = _up(1 - part) if name == "ratio" else round(part, _DIGITS)
        found.append(dataclasses.replace(prune, steps=1, schedule="polynomial", **{name: value}))
    return found


def prune_and_train(model: Model, prune: Any, train: Train, ctx: Context) -> list[Report]:
    """Prune in as many rounds as `prune.steps` says, in place, and call `train` after each.

    prune: a `Prune` with a goal to divide. train: gets the model and the number of the round; it assigns new arrays to
    `values` of weights, of the same shapes. The model is clean and sorted when it is called.

    Returns:
        What was done in each round.

    Raises:
        ZcError: as `run_pipeline`; a round cannot reach its goal.
    """
    reports = []
    for number, one in enumerate(in_rounds(prune) if prune.steps > 1 else [prune], 1):
        reports.append(run_pipeline(model, Pipeline((one,)), ctx))
        train(model, number)
    return reports


def _up(ratio: float) -> float:
    """Rounded up, so that a third of 48 channels are 16."""
    return math.ceil(ratio * 1e6 - 1e-3) / 1e6


def _share(following: Any, i: int, rounds: int) -> Pass:
    changes: dict[str, Any] = {"share": round(following.share / rounds, _DIGITS)}
    if getattr(following, "checkpoint", ""):
        changes["checkpoint"] = f"{following.checkpoint}.{i}"
    new: Pass = dataclasses.replace(following, **changes)
    return new
