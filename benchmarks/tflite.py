"""Models as float and int8 .tflite in LiteRT, beside onnxruntime: accuracy, codes, size and time.

    python benchmarks/tflite.py [MODEL ...] [--rows 200] [--calib 100] [--passes quantize] [--beside DIR]

--beside: a folder with a folder for each model that onnx2tf has written (`onnx2tf -i MODEL.onnx -o DIR/MODEL -b 1
-oiqt`, in an environment of its own: it needs TensorFlow); sizes and times are then held against those files.

Every row of samples runs alone. `int8 ONNX` is the Q/DQ model that the int8 file is written from, in onnxruntime.
Codes are compared at the last value that both compute as codes. Times are ratios of processor time on one thread,
interleaved.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accuracy import MEASURES, Outputs
from cases import CASES, SHARED, Case, chosen

from zc.backends.tflite.emit import Flat, bundle, flatten
from zc.backends.tflite.flat import FlatGraph, FlatTensor
from zc.backends.tflite.flatbuffer import write
from zc.backends.tflite.layout import channels_last
from zc.backends.tflite.legalise import legalise
from zc.backends.tflite.litert import ENDS, LiteRtRunner, interpreter_module
from zc.backends.tflite.lowering import NoForm
from zc.backends.tflite.targets import TARGET
from zc.backends.tflite.tidy import tidy
from zc.data import Samples
from zc.execute import Feeds, Runner, Runs, relative_error
from zc.ir.bind import fix_shapes
from zc.ir.graph import Array
from zc.ir.model import Model, load
from zc.measure.latency import bench
from zc.pipeline.base import Context
from zc.pipeline.manager import run_pipeline

HEAD = (
    "| model | float: difference | metric: float | int8 ONNX | int8 LiteRT | agree with int8 ONNX "
    "| codes 0 / 1 / more off | transposes | MB float / int8 "
    "| time int8 / float | float / onnxruntime | int8 / onnxruntime |"
)


BESIDE = " onnx2tf: MB float / int8 | time / onnx2tf's, float / int8 |"
"""Columns of the files of another writer."""


@dataclass(frozen=True)
class Line:
    """What is measured of a model, as text."""

    name: str
    cells: tuple[str, ...]

    @property
    def text(self) -> str:
        """As a row of Markdown."""
        return f"| {self.name} | {' | '.join(self.cells)} |"


class Foreign:
    """A file that zc did not write: it may lack a signature, its images are NHWC, and it does not say so."""

    name = "onnx2tf"

    def __init__(self, path: Path) -> None:
        self.interpreter = interpreter_module().Interpreter(model_path=str(path), num_threads=1)
        self.interpreter.allocate_tensors()

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """All outputs, as the file has them."""
        for detail in self.interpreter.get_input_details():
            array = feeds[detail["name"].removeprefix("serving_default_").partition(":")[0]]
            same = array.ndim != 4 or array.shape[1:] == tuple(detail["shape"][1:])
            self.interpreter.set_tensor(detail["index"], array if same else array.transpose(0, 2, 3, 1))
        self.interpreter.invoke()
        return {d["name"]: self.interpreter.get_tensor(d["index"]) for d in self.interpreter.get_output_details()}


def beside(folder: Path, ours: Sequence[Runs], feeds: Sequence[Feeds]) -> tuple[str, str]:
    """Sizes of the files of onnx2tf in a folder, and our time over theirs, for float and int8; '-' where one is not."""
    sizes, ratios = [], []
    for kind, runner in zip(("float32", "integer_quant"), ours, strict=True):
        found = [p for p in sorted(folder.glob(f"*_{kind}.tflite")) if not p.name.endswith(f"_full_{kind}.tflite")]
        sizes.append(f"{found[0].stat().st_size / 1e6:.2f}" if found else "-")
        ratios.append(f"{bench([Foreign(found[0]), runner], feeds, budget=3)[1].ratio:.2f}" if found else "-")
    return " / ".join(sizes), " / ".join(ratios)


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


def last_codes(flat: Flat, model: Model) -> tuple[FlatTensor, str] | None:
    """The last value that both the file and the model compute as codes: the tensor, and the name of the codes."""
    rounded = {n.inputs[0].name: n.outputs[0].name for n in model.graph.nodes if n.op == "QuantizeLinear"}
    for op in reversed(flat.graph.ops):
        tensor = op.outputs[0]
        if tensor.quant is not None and tensor.name in rounded:
            return tensor, rounded[tensor.name]
    return None


def histogram(flat: Flat, model: Model, samples: Samples) -> str:
    """Of the last value of codes: shares that are equal, one off, and further off, in per cent."""
    last = last_codes(flat, model)
    if last is None:
        return "-"
    graph = FlatGraph("codes", list(flat.graph.ops), dict(flat.graph.inputs), {"codes": last[0]})
    tidy(graph)
    layouts = {name: {"layout": end.layout} for name, end in flat.lowered.inputs.items()}
    ends = {"codes": {"inputs": layouts, "outputs": {"codes": {"type": "int8"}}}}
    ours = LiteRtRunner(write([graph], {ENDS: json.dumps(ends).encode()}))
    theirs = Runner(model, outputs=[last[1]], threads=1)
    off = []
    for feed in samples.batches(1):
        got, want = ours.run(feed)["codes"].astype(int), theirs.run(feed)[last[1]].astype(int)
        want = want.transpose(channels_last(want.ndim)) if got.shape != want.shape else want
        off.append(np.abs(got.reshape(-1) - want.reshape(-1)))
    shares = np.concatenate(off)
    return " / ".join(f"{part.mean() * 100:.2f}" for part in (shares == 0, shares == 1, shares > 1))


def measure(case: Case, rows: int, calib_rows: int, passes: str, others: Path | None) -> Line:
    """Quantise, write both files, run everything; `others`: see `beside`."""
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
    times = bench([runners[2], runners[3]], feeds, budget=3)[1].ratio
    onnxruntime = [bench([runners[i], runners[i + 2]], feeds, budget=3)[1].ratio for i in (0, 1)]
    transposes = [Counter(op.code for op in one.graph.ops)["TRANSPOSE"] for one in (floating, integer)]
    cells = (
        f"{worst:.0e}",
        *(f"{figure:.2f} {judge.unit}" for figure in figures),
        f"{judge.agree(found[3], found[1]):.2f} {judge.agree_unit}",
        histogram(integer, coded, test),
        " / ".join(map(str, transposes)),
        f"{len(data[0]) / 1e6:.2f} / {len(data[1]) / 1e6:.2f}",
        f"{times:.2f}",
        *(f"{ratio:.2f}" for ratio in onnxruntime),
        *(() if others is None else beside(others / case.model, runners[2:], feeds)),
    )
    return Line(case.model, cells)


def main() -> None:
    """Measure the models that are named, all by default, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="beginnings of their names")
    parser.add_argument("--rows", type=int, default=200, help="samples to measure on")
    parser.add_argument("--calib", type=int, default=100, help="samples to calibrate with")
    parser.add_argument("--passes", default="quantize", help="pipeline of the int8 file")
    parser.add_argument("--beside", type=Path, metavar="DIR", help="folders of files that onnx2tf has written")
    parser.add_argument("--write", type=Path, help="file for the table")
    args = parser.parse_args()
    head = HEAD + ("" if args.beside is None else BESIDE)
    lines = [head, "|---" * head.count(" | ") + "|---|"]
    print("\n".join(lines), flush=True)
    wanted = [case for case in chosen(args.models) if case in CASES]
    for case in wanted:
        lines.append(measure(case, args.rows, args.calib, args.passes, args.beside).text)
        print(lines[-1], flush=True)
    if args.write:
        args.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
