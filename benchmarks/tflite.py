"""Models as float and int8 .tflite in LiteRT, beside onnxruntime: accuracy, codes, size and time.

    python benchmarks/tflite.py [MODEL ...] [--rows 200] [--calib 100] [--passes quantize] [--write table.md]

Every row of samples runs alone. `int8 ONNX` is the Q/DQ model that the int8 file is written from, in onnxruntime.
Codes are compared at the outputs, where those are codes that became numbers in the last step. Times are ratios of
processor time on one thread, interleaved.
"""

import argparse
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accuracy import MEASURES, Outputs
from cases import CASES, SHARED, Case, chosen

from zc.backends.tflite.emit import Flat, bundle, flatten
from zc.backends.tflite.legalise import legalise
from zc.backends.tflite.litert import LiteRtRunner
from zc.backends.tflite.lowering import NoForm
from zc.backends.tflite.targets import TARGET
from zc.data import Samples
from zc.execute import Runner, Runs, relative_error
from zc.ir.bind import fix_shapes
from zc.ir.model import Model, load
from zc.measure.latency import bench
from zc.pipeline.base import Context
from zc.pipeline.manager import run_pipeline

HEAD = (
    "| model | float: difference | metric: float | int8 ONNX | int8 LiteRT | agree with int8 ONNX "
    "| codes 0 / 1 / more off | transposes | MB float / int8 "
    "| time int8 / float | float / onnxruntime | int8 / onnxruntime |"
)


@dataclass(frozen=True)
class Line:
    """What is measured of a model, as text."""

    name: str
    cells: tuple[str, ...]

    @property
    def text(self) -> str:
        """As a row of Markdown."""
        return f"| {self.name} | {' | '.join(self.cells)} |"


def outputs(runner: Runs, samples: Samples) -> Outputs:
    """What a model gives for all rows, one after the other."""
    parts = [runner.run(feed) for feed in samples.batches(1)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def files(model: Model, feed: dict[str, np.ndarray]) -> Flat:
    """The graph of the file; with the shapes of a sample where open sizes stand in its way."""
    try:
        return flatten(legalise(model))
    except NoForm as err:
        if err.rule != "open-size" and "run time" not in err.why:
            raise
        fix_shapes(model, {name: array.shape for name, array in feed.items()})
        return flatten(legalise(model))


def steps(flat: Flat) -> dict[str, float]:
    """By name of an output, the size of a code, where the last operator makes numbers of codes."""
    makers = flat.graph.producers()
    found = {}
    for name, tensor in flat.graph.outputs.items():
        maker = makers.get(id(tensor))
        source = maker.inputs[0] if maker is not None and maker.code == "DEQUANTIZE" else None
        if source is not None and source.quant is not None:
            found[name] = float(source.quant.scale[0])
    return found


def histogram(got: Outputs, want: Outputs, sizes: dict[str, float]) -> str:
    """Shares of codes that are equal, one off, and further off, in per cent."""
    if not sizes:
        return "-"
    off = np.concatenate([np.abs(np.rint((got[n] - want[n]) / s)).reshape(-1) for n, s in sizes.items()])
    return f"{(off == 0).mean() * 100:.1f} / {(off == 1).mean() * 100:.1f} / {(off > 1).mean() * 100:.1f}"


def measure(case: Case, rows: int, calib_rows: int, passes: str) -> Line:
    """Quantise, write both files, run everything."""
    model = load(SHARED / "models" / f"{case.model}.onnx")
    with tempfile.TemporaryDirectory(prefix="zc-") as folder:
        calib, test = case.load(model, calib_rows, rows, Path(folder))
        coded = model.copy()
        run_pipeline(coded, passes, Context(TARGET, calib))
        feed = next(test.batches(1))
        floating, integer = files(model, feed), files(coded, feed)
        data = [bundle({"serving_default": one}) for one in (floating, integer)]
        runners: list[Runs] = [
            Runner(model, threads=1),
            Runner(coded, threads=1),
            *(LiteRtRunner(one) for one in data),
        ]
        found = [outputs(runner, test) for runner in runners]
        feeds = [one for one, _ in zip(test.batches(1), range(8), strict=False)]
    judge = MEASURES[case.measure]
    figures = [
        judge.figure(judge.rows(one, found[0], test, case.label_offset)) for one in (found[0], found[1], found[3])
    ]
    worst = max(relative_error(found[2][n].astype(v.dtype), v) for n, v in found[0].items())
    times = bench([runners[2], runners[3]], feeds, budget=4)[1].ratio
    beside = [bench([runners[i], runners[i + 2]], feeds, budget=4)[1].ratio for i in (0, 1)]
    transposes = [Counter(op.code for op in one.graph.ops)["TRANSPOSE"] for one in (floating, integer)]
    cells = (
        f"{worst:.0e}",
        *(f"{figure:.2f} {judge.unit}" for figure in figures),
        f"{judge.agree(found[3], found[1]):.2f} {judge.agree_unit}",
        histogram(found[3], found[1], steps(integer)),
        " / ".join(map(str, transposes)),
        f"{len(data[0]) / 1e6:.2f} / {len(data[1]) / 1e6:.2f}",
        f"{times:.2f}",
        *(f"{ratio:.2f}" for ratio in beside),
    )
    return Line(case.model, cells)


def main() -> None:
    """Measure the models that are named, all by default, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="beginnings of their names")
    parser.add_argument("--rows", type=int, default=200, help="samples to measure on")
    parser.add_argument("--calib", type=int, default=100, help="samples to calibrate with")
    parser.add_argument("--passes", default="quantize", help="pipeline of the int8 file")
    parser.add_argument("--write", type=Path, help="file for the table")
    args = parser.parse_args()
    lines = [HEAD, "|---" * HEAD.count(" | ") + "|---|"]
    print("\n".join(lines), flush=True)
    wanted = [case for case in chosen(args.models) if case in CASES]
    for case in wanted:
        lines.append(measure(case, args.rows, args.calib, args.passes).text)
        print(lines[-1], flush=True)
    if args.write:
        args.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
