"""The learning rate, where none is given: a short trial of each, from the highest down."""

import math
from collections.abc import Callable

RATES = {
    "adamw": (0.01, 0.003, 0.001, 3e-4, 1e-4, 3e-5),
    "sgd": (0.1, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-4),
}
"""What is tried, by optimiser; with adamw in units of the size of each weight (`zc.training.units`)."""
TRIAL_SHARE = 0.02
TRIAL_STEPS = (20, 100)
"""Least and most steps of a trial."""
_BETTER = 2.0
"""How many times as much the next lower rate must gain to be preferred: trials favour low rates, long runs high."""


def trial_steps(total: int) -> int:
    """How long a trial is, for a run of so many steps."""
    return min(max(round(total * TRIAL_SHARE), TRIAL_STEPS[0]), TRIAL_STEPS[1])


def choose_rate(optimizer: str, start: float, trial: Callable[[float], float]) -> float:
    """The highest rate whose trial lowers the loss, unless the next lower one lowers it much more.

    start: the loss before. trial: the loss after a short run at a rate. Where none lowers it: what harms least.
    """
    found: dict[float, float] = {}
    for rate in RATES[optimizer]:
        loss = trial(rate)
        found[rate] = loss if math.isfinite(loss) else math.inf
        higher = list(found)[-2] if len(found) > 1 else None
        if higher is not None and found[higher] < start and start - found[rate] < _BETTER * (start - found[higher]):
            return higher
    return min(found, key=lambda rate: (found[rate], rate))
