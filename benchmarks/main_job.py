"""The main job on real models: what clean, prune and quantize do to size, accuracy and speed.

    python benchmarks/main_job.py [MODEL ...] [--shared ../shared] [--rows 500]

Calibration and evaluation rows never overlap. Accuracy is paired with the float model on the same rows; latency is the
processor time of one thread at batch 1, in turns with the float model.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from zc.backends import find_target
from zc.data import Samples, load_samples
from zc.errors import ZcError
from zc.ir.model import Model, load
from zc.measure.evaluate import compare
from zc.measure.latency import bench
from zc.pipeline.base import Context
from zc.pipeline.manager import Report, run_pipeline

CALIBRATION_ROWS = 200


@dataclass(frozen=True)
class Case:
    """A model, how it is fed, and what its accuracy is measured by."""

    model: str
    calib: str
    test: str
    prep: str | None = None
    metric: str = "top1"
    label_offset: int = 0


CIFAR = ("cifar10_train15k.npz", "cifar10_test4k.npz", "imagenet")
CASES = (
    *(Case(f"resnet20_cifar10{kind}", *CIFAR) for kind in ("", "_bn", "_dynamo")),
    Case("resnet56_cifar10", *CIFAR),
    Case("resnet8_cifar10", CIFAR[0], CIFAR[1], "raw"),
    Case("squeezenet10_imagenet", "imagenet500", "imagenet500", "caffe"),
    Case("mobilenetv1_025_imagenet", "imagenet500", "imagenet500", "pm1"),
    Case("mobilenetv2_10_imagenet_qatsrc", "imagenet500", "imagenet500", "pm1", label_offset=1),
    Case("vww_mobilenetv1_025", "vww.npz", "vww.npz", "unit", "agree"),
    Case("superres_espcn", "superres.npz", "superres.npz", "unit", "psnr"),
    Case("magika_standard_v3_3", "magika.npz", "magika.npz"),
    Case("minilm_l6_trim", "minilm.npz", "minilm.npz", None, "cosine"),
    Case("ultraface_rfb_320", "ultraface.npz", "ultraface.npz", "scale=128 mean=0.9921875", "sqnr"),
)


def main() -> None:
    """Run the cases and print a row for each model and pipeline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names of cases; all by default")
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--rows", type=int, default=500, help="evaluation rows")
    args = parser.parse_args()
    cases = [case for case in CASES if not args.models or case.model in args.models]
    table = Table("model", "pipeline", "parameters left", "equivalence", "metric", "float", "now", "size", "latency")
    for case in cases:
        for pipeline in ("prune:ratio=0.5", "quantize", "prune:ratio=0.3,quantize"):
            table.add_row(case.model, pipeline, *row(case, pipeline, args.shared, args.rows))
    Console(width=180).print(table)


def row(case: Case, pipeline: str, shared: Path, rows: int) -> list[str]:
    """The figures of one model after one pipeline."""
    model = load(shared / "models" / f"{case.model}.onnx")
    original = model.copy()
    everything = load_samples(str(shared / "data" / case.calib), model.inputs, prep=case.prep)
    calib = everything.take(0, min(CALIBRATION_ROWS, everything.rows // 2))
    test = load_samples(str(shared / "data" / case.test), model.inputs, prep=case.prep)
    held = test.take(calib.rows if case.test == case.calib else 0, test.rows)
    held = held.take(0, min(rows, held.rows))
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
        case.metric,
        *accuracy(case, original, model, held),
        f"{report.bytes[1] / report.bytes[0]:.2f}",
        latency(original, model, held, report),
    ]


def accuracy(case: Case, original: Model, model: Model, held: Samples) -> tuple[str, str]:
    """The metric of the float model and of the result."""
    reference = original if case.metric in ("agree", "cosine", "sqnr") else None
    result = compare(original, model, held, case.metric, reference=reference, label_offset=case.label_offset)
    return f"{result.a.value:.2f}", f"{result.b.value:.2f}"


def latency(original: Model, model: Model, held: Samples, report: Report) -> str:
    """The ratio of the result's time to the float model's."""
    if report.bytes[0] == report.bytes[1]:
        return ""
    feeds = list(held.take(0, held.batch or 1).batches(1))
    return f"{bench([original, model], feeds)[1].ratio:.2f}"


if __name__ == "__main__":
    main()
