"""How to train: budget, optimiser, schedule. Plain values."""

import math
from dataclasses import dataclass
from typing import Literal

Optimizer = Literal["muon", "adamw", "sgd"]
Schedule = Literal["cosine", "linear", "constant"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]

AUTO_EPOCHS = 30
AUTO_STEPS = (300, 3000)
"""Least and most steps where no budget is given."""
LOWEST = 0.02
"""The lowest learning rate that is tried, as a part of the first: after four times a third."""
FINAL = 0.01
"""Share of the learning rate that a falling schedule ends with."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how weights move, but for data and loss."""

    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    share: float = 1.0
    """Part of the budget to use."""
    batch: int = 64
    optimizer: Optimizer = "muon"
    lr: float | None = None
    """At its highest; with muon and adamw in units of the size of each weight (`zc.training.units`). None: `first`, and
    lower ones where that harms."""
    first: float = 0.003
    """The learning rate to begin with where none is given; ten times that with sgd."""
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises."""
    decay: float = 1e-4
    """Weight decay, of the weights of layers alone."""
    clip: float = 1.0
    """Largest norm of the gradient of all weights together; 0: any."""
    ema: float = 0.999
    """Decay of the moving average of the weights, which is the result; 0: the weights as they are."""
    patience: int = 0
    """Evaluations without progress after which it stops; 0: never."""
    seed: int = 0
    batchnorm: bool = False
    """Use the statistics of the batch?"""
    device: Device = "auto"
    precision: Precision = "auto"
    threads: int | None = None

    def total(self, batches: int) -> int | None:
        """Number of steps, with so many batches in an epoch; None when only the clock says."""
        if self.steps is not None:
            full: float = self.steps
        elif self.epochs is not None:
            full = self.epochs * batches
        elif self.minutes is not None:
            return None
        else:
            full = min(max(AUTO_EPOCHS * batches, AUTO_STEPS[0]), AUTO_STEPS[1])
        return max(round(full * self.share), 1)

    @property
    def first_rate(self) -> float:
        """The learning rate to begin with."""
        return self.lr if self.lr is not None else self.first * (10 if self.optimizer == "sgd" else 1)

    @property
    def lowest(self) -> float:
        """The learning rate below which none is tried."""
        return self.first_rate * LOWEST

    def part(self, step: int, total: int) -> float:
        """What part of the learning rate a step has, 0 <= step < total."""
        rising = self.warmup * total
        if step < rising:
            return (step + 1) / (rising + 1)
        if self.schedule == "constant":
            return 1.0
        done = (step - rising) / max(total - rising, 1)
        left = 0.5 * (1 + math.cos(math.pi * done)) if self.schedule == "cosine" else 1 - done
        return FINAL + (1 - FINAL) * left
