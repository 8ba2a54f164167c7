"""The main job on real models: what clean, prune and quantize do to size, accuracy and speed.

    python benchmarks/main_job.py [MODEL ...] [--rows 500]

Calibration and evaluation rows never overlap. Accuracy is paired with the float model on the same rows; latency is the
processor time of one thread at batch 1, in turns with the float model.
"""

import argparse
import tempfile
from pathlib import Path

from accuracy import MEASURES, outputs
from cases import SHARED, Case, chosen
from rich.console import Console
from rich.table import Table

from zc.backends import find_target
from zc.data import Samples
from zc.errors import ZcError
from zc.ir.model import Model, load
from zc.measure.latency import bench
from zc.pipeline.base import Context
from zc.pipeline.manager import Report, run_pipeline

CALIBRATION_ROWS = 200


def main() -> None:
    """Run the cases and print a row for each model and pipeline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names of cases, or how they begin; all by default")
    parser.add_argument("--rows", type=int, default=500, help="evaluation rows")
    args = parser.parse_args()
    table = Table("model", "pipeline", "parameters left", "equivalence", "metric", "float", "now", "size", "latency")
    for case in chosen(args.models):
        for pipeline in ("prune:ratio=0.5", "quantize", "prune:ratio=0.3,quantize"):
            table.add_row(case.model, pipeline, *row(case, pipeline, args.rows))
    Console(width=180).print(table)


def row(case: Case, pipeline: str, rows: int) -> list[str]:
    """The figures of one model after one pipeline."""
    model = load(SHARED / "models" / f"{case.model}.onnx")
    original = model.copy()
    with tempfile.TemporaryDirectory(prefix="zc-bench-") as folder:
        calib, held = case.load(model, CALIBRATION_ROWS, rows, Path(folder))
    try:
        report = run_pipeline(model, pipeline, Context(find_target("ort-cpu"), calib))
    except ZcError as err:
        return [str(err)]
    stats = {key: value for run in report.passes for key, value in run.stats.items()}
    error = stats.get("equivalence_error", stats.get("equivalence error"))
    left = stats.get("params_ratio", stats.get("params ratio"))
    return [
        "" if left is None else f"{float(left):.3f}",
        "" if error is None else f"{float(error):.1e}",
        case.measure,
        *accuracy(case, original, model, held),
        f"{report.bytes[1] / report.bytes[0]:.2f}",
        latency(original, model, held, report),
    ]


def accuracy(case: Case, original: Model, model: Model, held: Samples) -> tuple[str, str]:
    """The figure of the float model and of the result."""
    measure, want = MEASURES[case.measure], outputs(original, held)
    before, after = (
        measure.figure(measure.rows(got, want, held, case.label_offset)) for got in (want, outputs(model, held))
    )
    return f"{before:.2f}", f"{after:.2f}"


def latency(original: Model, model: Model, held: Samples, report: Report) -> str:
    """The ratio of the result's time to the float model's."""
    if report.bytes[0] == report.bytes[1]:
        return ""
    feeds = list(held.take(0, held.batch or 1).batches(1))
    return f"{bench([original, model], feeds)[1].ratio:.2f}"


if __name__ == "__main__":
    main()
