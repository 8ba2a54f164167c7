"""TensorRT's dialect on real models: what its rules find, and its accuracy beside the CPU's dialect, in onnxruntime.

    python benchmarks/tensorrt.py [MODEL ...] [--rows 500]

The same rows calibrate both; both are judged on the same other rows, by their float operators in onnxruntime: with
graph optimisations on for the CPU's dialect, as it is deployed, and for TensorRT's as its numbers are defined.
"""

import argparse
import tempfile
from pathlib import Path

from accuracy import MEASURES, outputs
from cases import SHARED, Case, chosen

from zc.backends import find_backend
from zc.ir.model import load
from zc.pipeline.base import Context
from zc.pipeline.manager import run_pipeline

CALIBRATION_ROWS = 200


def main() -> None:
    """Run the cases and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names of cases, or how they begin; all by default")
    parser.add_argument("--rows", type=int, default=500, help="evaluation rows")
    parser.add_argument("--pipeline", default="quantize", help="pipeline text")
    args = parser.parse_args()
    print(f"{'model':34} {'metric':10} {'float':>8} {'ort-cpu':>8} {'tensorrt':>8} {'int8':>5} violations")
    for case in chosen(args.models):
        print(row(case, args.pipeline, args.rows), flush=True)


def row(case: Case, pipeline: str, rows: int) -> str:
    """The figures of one model."""
    original = load(SHARED / "models" / f"{case.model}.onnx")
    with tempfile.TemporaryDirectory(prefix="zc-bench-") as folder:
        calib, held = case.load(original, CALIBRATION_ROWS, rows, Path(folder))
    measure, want = MEASURES[case.measure], outputs(original, held)
    figures = [measure.figure(measure.rows(want, want, held, case.label_offset))]
    layers, found = 0, ""
    for name in ("ort-cpu", "tensorrt"):
        backend, model = find_backend(name), original.copy()
        report = run_pipeline(model, pipeline, Context(backend.target, calib), verify="structure")
        figures.append(measure.figure(measure.rows(outputs(model, held), want, held, case.label_offset)))
        layers = int(report.passes[-1].stats.get("weighted_in_integers", 0))
        found = ", ".join(sorted({one.rule for one in backend.check(model)})) or "none"
    return f"{case.model:34} {case.measure:10} {' '.join(f'{f:8.2f}' for f in figures)} {layers:5} {found}"


if __name__ == "__main__":
    main()
