"""When the user is warned that the result is slower."""

from dataclasses import replace
from pathlib import Path

import pytest

from zc.cli import speed
from zc.ir.model import load
from zc.measure.latency import Latency

DIGITS = Path(__file__).resolve().parents[2] / "golden_models" / "digits_cnn.onnx"
SAME = Latency("a", 1.0, 1.0, (1.0, 1.0), 1.0, (1.0, 1.0), 0.0, 9, 1, 1, "cpu")


@pytest.mark.parametrize(
    ("ratio", "error", "warned"), [(1.3, 0.05, True), (1.3, 0.3, False), (1.01, 0.0, False), (0.5, 0.0, False)]
)
def test_slower_means_beyond_what_the_measurement_can_tell(
    monkeypatch: pytest.MonkeyPatch, ratio: float, error: float, warned: bool
) -> None:
    def times(*args: object, **options: object) -> tuple[Latency, Latency]:
        return SAME, replace(SAME, ratio=ratio, ratio_error=error)

    monkeypatch.setattr(speed, "bench", times)
    model = load(DIGITS)
    found = speed.measure_speed(model, model, None)
    assert found is not None
    assert (found.warning is not None) == warned
    assert f"(x{ratio:.2f})" in found.line
