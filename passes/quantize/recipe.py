"""The recipe: which accuracy methods a model gets, chosen by what they do to its outputs on rows held back.

One option after the other is tried with each of its values while the others stay as they are found best so far; a value
that costs more than the first must take away a visible part of the error to be chosen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zc.errors import ZcError
from zc.measure.agreement import Agreement
from zc.passes.quantize.form import Form
from zc.passes.quantize.workshop import Built, KeepFloat, Workshop

VISIBLE = 0.97
"""A change is worth it if it leaves at most this share of the error."""

ENOUGH = 1e-3
"""Noise at the outputs with which only what is in `ALWAYS` is tried: 30 dB."""

ALWAYS = frozenset({"rounding"})
"""Options that are tried in any case: they change neither the float model nor what runs."""


@dataclass(frozen=True)
class Trial:
    """A form that was built and looked at."""

    text: str
    """The option and its value."""
    noise: float
    """Squared error over squared signal, the mean of all outputs; infinite if it could not be built."""
    why: str = ""
    """Why it was not built."""
    taken: bool = False
    before: float = float("inf")
    """The noise of the best form until then."""


def choose(
    workshop: Workshop, form: Form, open_options: Mapping[str, Sequence[object]], keep_float: KeepFloat
) -> tuple[Built, list[Trial]]:
    """The best form that was found, built, and all that were tried, the first being `form` itself.

    open_options: for a field of the form, the values to choose among, the first being what `form` has.
    """
    best = workshop.build(form, keep_float)
    least = noise_of(workshop.reference.by_output(best.model))
    trials = [Trial("", least)]
    for option, values in open_options.items():
        for value in values[1:]:
            text = f"{option}={value}".lower()
            if option not in ALWAYS and least <= ENOUGH:
                trials.append(Trial(text, least, f"not tried, {decibels(least):.1f} dB at the outputs are enough"))
                continue
            try:
                built = workshop.build(_with(best.form, option, value), keep_float)
            except ZcError as err:
                trials.append(Trial(text, float("inf"), f"not taken: {err}"))
                continue
            noise = noise_of(workshop.reference.by_output(built.model))
            taken = noise < VISIBLE * least
            trials.append(Trial(text, noise, taken=taken, before=least))
            if taken:
                best, least = built, noise
    return best, trials


def _with(form: Form, option: str, value: Any) -> Form:
    return replace(form, **{option: value})


def decibels(noise: float) -> float:
    """Signal to noise."""
    return float(-10 * np.log10(noise)) if noise else float("inf")


def noise_of(found: Mapping[str, Agreement]) -> float:
    """Squared error over squared signal, the mean of all outputs."""
    shares = [min(10 ** (-one.sqnr / 10), 10.0) for one in found.values()]
    return float(np.mean(shares)) if shares else 0.0
