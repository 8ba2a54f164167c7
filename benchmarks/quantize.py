"""int8 side by side: zc's one default and the other tools, on the same calibration rows, measured on other rows.

    python benchmarks/quantize.py [CASE ...] [--peer-python PATH ...] [--tools zc,nncf] [--json F] [--markdown F]

Every tool runs in a process of its own (`tools.py`); one that is not installed here is looked for in the interpreters
of --peer-python, and named if it is nowhere. Accuracy is paired: +- is the standard error of the difference from zc.
Latency is processor time of one thread at batch 1 over the float model's, all files in turns. Seconds are those of the
tool's whole process, and those of the processor; memory is the most that it held.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from accuracy import MEASURES, Measure, outputs, standard_error
from cases import SHARED, Case, chosen
from processes import Peers, keep, kept, run_tool
from results import OWN, Outcome, judge, markdown, show

from zc.data import Samples
from zc.data.batching import batching
from zc.errors import ZcError
from zc.ir.model import Model, load
from zc.ir.quantised import is_quantised
from zc.measure.latency import bench


def main() -> int:
    """Measure all cases and print; 1 when zc is behind, or misses a bar, anywhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="names of cases, or how they begin; by default all")
    parser.add_argument("--peer-python", type=Path, action="append", default=[], help="an interpreter with other tools")
    parser.add_argument("--tools", help="only these, separated by commas; zc is always one")
    parser.add_argument("--calib-rows", type=int, default=128)
    parser.add_argument("--rows", type=int, default=2000, help="the most rows to measure on")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of timing for each model")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds that a tool may take")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the peers' files, and use those of earlier runs")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    args = parser.parse_args()
    peers = Peers.find(args.peer_python, None if args.tools is None else [OWN, *args.tools.split(",")])
    verdicts = []
    for case in chosen(args.cases):
        with tempfile.TemporaryDirectory(prefix="zc-bench-") as folder:
            found = compare(case, peers, Path(folder), args)
        verdicts.append(judge(case, found))
        show(verdicts[-1])
        report = markdown(verdicts, peers.versions, peers.missing)
        if args.markdown:
            args.markdown.write_text(report)
        if args.json:
            args.json.write_text(json.dumps([asdict(v) for v in verdicts], indent=1) + "\n")
    print(report[report.index("## Verdict") :])
    return 0 if all(v.met for v in verdicts) else 1


def compare(case: Case, peers: Peers, folder: Path, args: argparse.Namespace) -> list[Outcome]:
    """What each tool makes of a case; the float model first, then zc."""
    source = SHARED / "models" / f"{case.model}.onnx"
    model = load(source)
    calib, held = case.load(model, args.calib_rows, args.rows, folder)
    write_samples(model, calib, folder / "samples.npz")
    files = {"float": source}
    outcomes = [Outcome("float", bytes=source.stat().st_size)]
    for tool, python in peers.interpreters.items():
        out, made = kept(args.keep or folder, tool, peers.versions[tool], source, folder / "samples.npz")
        if made is None or tool == OWN:
            print(f"{case.model}: {tool}", file=sys.stderr, flush=True)
            made = run_tool(python, tool, source, folder / "samples.npz", out, args.limit)
            made.integers = made.error is None and is_quantised(load(out))
            keep(out, made)
        outcomes.append(made)
        if made.error is None:
            files[tool] = out
    measure_accuracy(case, files, held, {one.tool: one for one in outcomes})
    ran = [one for one in outcomes if one.error is None]
    feeds = list(held.take(0, held.batch or 1).batches(1))
    for one, latency in zip(ran, bench([files[one.tool] for one in ran], feeds, budget=args.budget), strict=True):
        one.latency, one.latency_error, one.ms = latency.ratio, latency.ratio_error, latency.ms
        one.size = one.bytes / outcomes[0].bytes
    return outcomes


def measure_accuracy(case: Case, files: dict[str, Path], held: Samples, outcomes: dict[str, Outcome]) -> None:
    """Fill in figure and agreement of every file; one that does not load or run gets the reason instead."""
    measure: Measure = MEASURES[case.measure]
    want = outputs(files["float"], held)
    rows: dict[str, np.ndarray] = {}
    for tool, path in files.items():
        one = outcomes[tool]
        try:
            got = outputs(path, held)
            rows[tool] = measure.rows(got, want, held, case.label_offset)
            one.figure, one.agreement = measure.figure(rows[tool]), measure.agree(got, want)
        except (ZcError, ValueError, KeyError) as err:
            one.error = f"its file does not run: {str(err).rpartition('onnx: ')[2]}".replace(str(path), path.name)
    for tool, own in rows.items():
        if OWN in rows and tool != OWN:
            outcomes[tool].figure_error = standard_error(measure, own, rows[OWN])


def write_samples(model: Model, samples: Samples, path: Path) -> None:
    """The samples as every tool gets them: an array for each input, rows first; `axes.json` says how they are fed."""
    axes = batching(model.inputs).axes
    feeds = list(samples.batches(1))
    arrays = {
        name: feeds[0][name] if axis is None else np.concatenate([np.moveaxis(feed[name], axis, 0) for feed in feeds])
        for name, axis in axes.items()
    }
    np.savez(path, **arrays)  # type: ignore[arg-type]
    (path.parent / "axes.json").write_text(json.dumps(axes))


if __name__ == "__main__":
    raise SystemExit(main())
