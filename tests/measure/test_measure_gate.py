"""A gate on accuracy, as passes and commands ask it."""

from typing import Any

import numpy as np
import pytest

from zc.errors import ZcError
from zc.ir.model import Model, from_text
from zc.measure.gate import AccuracyGate, missed
from zc.testing import samples_of

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y)'


def net(shift: float) -> Model:
    return from_text(f"{HEAD} <float[4] s = {{{shift}, 0, 0, 0}}> {{ y = Add (x, s) }}")


def gate(allowed: float | None, metric: str = "agree") -> AccuracyGate:
    ids = np.arange(40) % 4
    return AccuracyGate(net(0), samples_of(net(0), {"x": np.eye(4, dtype=np.float32)[ids]}), metric, allowed)


@pytest.mark.parametrize(("allowed", "passed"), [(74.0, False), (75.0, True), (None, True)])
def test_a_model_passes_up_to_the_allowed_drop(allowed: float | None, passed: bool):
    verdict = gate(allowed)(net(9))
    assert (verdict.passed, verdict.drop) == (passed, 75)
    assert verdict.line.startswith("agree 100 -> 25 % (-75.00")


def test_a_figure_that_should_be_low_may_not_rise():
    assert gate(0.5, "mae")(net(1)).passed
    assert not gate(0.2, "mae")(net(1)).passed


def test_a_drop_from_an_infinite_figure_is_refused():
    with pytest.raises(ZcError, match="gate on agree"):
        gate(1.0, "sqnr")(net(9))
    assert gate(None, "sqnr")(net(9)).passed


def test_nothing_passes_that_is_no_number():
    values: Any = (float("nan"), float("inf"))
    assert all(missed(value, higher_is_better=False, allowed=1e9) for value in values)
