"""Every golden model after every pipeline is what golden_models/expected says. `pytest --update-golden` rewrites it."""

from pathlib import Path

import pytest

from zc.backends import find_target
from zc.data import load_samples
from zc.pipeline.base import Context
from zc.pipeline.manager import run_pipeline
from zc.testing import assert_golden

FOLDER = Path(__file__).resolve().parents[2] / "golden_models"
MODELS = sorted(p.stem for p in (*FOLDER.glob("*.onnx"), *(FOLDER / "text").glob("*.txt")))
QUANTIZE = "quantize:rounding=nearest:equalize=false:float_if_faster=false:guard=false"
"""What a recipe chooses by measuring may differ between processors."""
PRUNE = "prune:ratio=0.5:criterion=l2:repair=false"
PIPELINES = {
    "clean": "clean",
    "prune": PRUNE,
    "quantize": QUANTIZE,
    "prune-quantize": f"{PRUNE},{QUANTIZE}",
    "quantize-prune": f"{QUANTIZE},{PRUNE}",
}


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("name", MODELS)
def test_golden(name: str, pipeline: str, golden_model, golden_models) -> None:
    model = golden_model(name)
    source = model.copy()
    samples = load_samples(str(golden_models / "digits_calib.npz"), model.inputs) if name.startswith("digits") else None
    run_pipeline(model, PIPELINES[pipeline], Context(target=find_target("ort-cpu"), samples=samples))
    # Weights that passes compute differ in their last bits between processors: their shapes are compared.
    assert_golden(model, golden_models / "expected" / name / f"{pipeline}.txt", weights="shape", source=source)


def test_no_golden_file_is_left_over(golden_models) -> None:
    found = {p.relative_to(golden_models / "expected") for p in (golden_models / "expected").rglob("*") if p.is_file()}
    assert found == {Path(name, f"{pipeline}.txt") for name in MODELS for pipeline in PIPELINES}
