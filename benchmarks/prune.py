"""Pruning without training, measured: accuracy that is left at a share of the MACs, against the bars of the project.

    python benchmarks/prune.py [CASE ...] [--rows 768] [--list]
    python benchmarks/prune.py --widths     # time at equal MACs beside widths chosen by magnitude alone

Models and data: the folder `shared` beside the repository. Calibration rows carry no labels into the pass; accuracy is
measured on other rows. Seconds are those of the pass `prune` alone, choice of channels and repair included.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accuracy import ranks

from zc.backends.onnxruntime import TARGET
from zc.data import Samples, load_samples
from zc.execute import Runner
from zc.ir.model import Model, load
from zc.measure.latency import bench
from zc.pipeline import spec
from zc.pipeline.base import Context
from zc.pipeline.registry import find
from zc.pipeline.synthetic import synthetic_samples

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared"
Score = Callable[[Model, "Case"], float]


@dataclass(frozen=True)
class Case:
    """A model, how it is pruned, and what must be left."""

    name: str
    model: str
    pipeline: str
    calib: tuple[str, str, str]
    """File, rows and preprocessing of the calibration samples."""
    eval: tuple[str, str, str]
    score: Score
    least: float | None = None
    """The score that must be left."""
    drop: float | None = None
    """Or the largest drop from the original's score."""
    time: tuple[float, float] | None = None
    """Or between which shares of the original's time it must run."""


def samples(model: Model, what: tuple[str, str, str]) -> Samples:
    """Rows of a file beside the repository."""
    file, rows, prep = what
    return load_samples(str(SHARED / "data" / file), model.inputs, rows=rows, prep=prep or None)


def top1(model: Model, case: Case) -> float:
    """Share of rows whose class is right, in percent."""
    rows = samples(model, case.eval)
    runner = Runner(model)
    got = np.concatenate([next(iter(runner.run(b).values())).argmax(1) for b in rows.batches(50)])
    return 100 * float(np.mean(got == rows.labels))


def spearman(model: Model, case: Case) -> float:
    """Rank correlation of the cosine of two sentences' embeddings with what people say, times 100."""
    runner = Runner(model)
    with np.load(SHARED / "data" / case.eval[0]) as file:
        data = {name: file[name] for name in file.files}

    def embed(prefix: str) -> np.ndarray:
        feeds = {name: data[prefix + name] for name in runner.inputs if prefix + name in data}
        for name in runner.inputs:  # one sentence a row: all tokens are of the first
            feeds.setdefault(name, np.zeros_like(next(iter(feeds.values()))))
        count = len(next(iter(feeds.values())))
        parts = [
            next(iter(runner.run({k: v[i : i + 64].astype(np.int64) for k, v in feeds.items()}).values()))
            for i in range(0, count, 64)
        ]
        found = np.concatenate(parts)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    cosine = (embed("a_") * embed("b_")).sum(axis=1)
    return 100 * float(np.corrcoef(ranks(cosine), ranks(data["score"]))[0, 1])


CIFAR = ("cifar10_train15k.npz", "0:{rows}", "imagenet")
CIFAR_TEST = ("cifar10_test4k.npz", "0:2000", "imagenet")
IMAGENET = "imagenet500"
SQUEEZE = "caffe crop=227"
MOBILE = "pm1 crop=224"

CASES = (
    Case("resnet56-0.70", "resnet56_cifar10", "prune:macs=0.7", CIFAR, CIFAR_TEST, top1, least=92.4),
    Case("resnet56-2.00x", "resnet56_cifar10", "prune:macs=0.5", CIFAR, CIFAR_TEST, top1, least=90.0),
    Case("resnet56-2.55x", "resnet56_cifar10", "prune:macs=0.392", CIFAR, CIFAR_TEST, top1, least=86.0),
    Case("resnet20-0.70", "resnet20_cifar10", "prune:macs=0.7", CIFAR, CIFAR_TEST, top1, least=89.0),
    Case("resnet20-2.00x", "resnet20_cifar10", "prune:macs=0.5", CIFAR, CIFAR_TEST, top1, least=81.0),
    Case(
        "squeezenet-0.80",
        "squeezenet10_imagenet",
        "prune:macs=0.8",
        (IMAGENET, "0:200", SQUEEZE),
        (IMAGENET, "200:500", SQUEEZE),
        top1,
        drop=3.0,
    ),
    Case(
        "mobilenetv1-0.80",
        "mobilenetv1_025_imagenet",
        "prune:macs=0.8",
        (IMAGENET, "0:200", MOBILE),
        (IMAGENET, "200:500", MOBILE),
        top1,
        drop=6.0,
    ),
    Case(
        "resnet56-latency",
        "resnet56_cifar10",
        "prune:latency=0.6",
        CIFAR,
        CIFAR_TEST,
        top1,
        time=(0.57, 0.63),
    ),
    Case(
        "squeezenet-latency",
        "squeezenet10_imagenet",
        "prune:latency=0.6",
        (IMAGENET, "0:200", SQUEEZE),
        (IMAGENET, "200:500", SQUEEZE),
        top1,
        time=(0.57, 0.63),
    ),
    Case(
        "mobilenetv1-30%",
        "mobilenetv1_025_imagenet",
        "prune:ratio=0.3",
        (IMAGENET, "0:200", MOBILE),
        (IMAGENET, "200:500", MOBILE),
        top1,
        time=(0.0, 1.0),
    ),
    Case(
        "magika-30%",
        "magika_standard_v3_3",
        "prune:ratio=0.3:skip=*one_hot*",
        ("magika.npz", "0:200", ""),
        ("magika.npz", "200:600", ""),
        top1,
        drop=1.0,
    ),
    Case(
        "minilm-30%",
        "minilm_l6_trim",
        "prune:ratio=0.3:allot=global:only=*/intermediate/dense/MatMul",
        ("minilm.npz", "0:200", ""),
        ("stsb_dev.npz", "", ""),
        spearman,
        drop=1.0,
    ),
)


def timed(before: Model, after: Model, rows: Samples) -> float:
    """The time of the pruned model over the original's: batch 1, one thread, turn by turn."""
    return bench([before, after], list(rows.take(0, rows.batch or 1).batches(1)), budget=6)[1].ratio


def run(case: Case, rows: int) -> bool:
    """Prune and measure; True if the bar is met."""
    model = load(SHARED / "models" / f"{case.model}.onnx")
    calib = samples(model, (case.calib[0], case.calib[1].format(rows=rows), case.calib[2]))
    context = Context(TARGET, calib)
    find("clean")().run(model, context)
    original = model.copy()
    before = case.score(model, case)
    (step,) = spec.parse(case.pipeline).passes
    start = time.perf_counter()
    result = step.run(model, context)
    seconds = time.perf_counter() - start
    after = case.score(model, case)
    ratio = timed(original, model, calib)
    if case.time is not None:
        met, bar = case.time[0] <= ratio <= case.time[1], f"time {case.time[0]:g}-{case.time[1]:g}"
    elif case.least is not None:
        met, bar = after >= case.least, f">= {case.least:g}"
    else:
        met, bar = before - after <= (case.drop or 0.0), f"drop <= {case.drop:g}"
    stats = result.stats
    print(
        f"| {case.name} | {before:.2f} | {after:.2f} | {bar} | {'met' if met else 'MISSED'} | "
        f"{stats.get('macs_ratio', float('nan')):.3f} | {ratio:.3f} | {stats['params_ratio']:.3f} | "
        f"{stats.get('agreement_before_repair', float('nan')):.3f} | {stats.get('agreement', float('nan')):.3f} | "
        f"{stats.get('sqnr_db_before_repair', float('nan')):.1f} | {stats.get('sqnr_db', float('nan')):.1f} | "
        f"{seconds:.0f} |",
        flush=True,
    )
    return met


WIDTHS = (
    ("resnet8_cifar10", 0.5),
    ("resnet20_cifar10", 0.7),
    ("resnet20_cifar10", 0.5),
    ("resnet56_cifar10", 0.7),
    ("squeezenet10_imagenet", 0.5),
    ("mobilenetv1_025_imagenet", 0.53),
    ("mobilenetv2_10_imagenet_qatsrc", 0.6),
    ("vww_mobilenetv1_025", 0.53),
)


def widths(name: str, share: float) -> None:
    """Print the time that is left at a share of the MACs in widths that pay, and in those that magnitude leaves.

    The latter are what pruners choose that know nothing of kernels: the same share of every group, to the channel.
    """
    model = load(SHARED / "models" / f"{name}.onnx")
    context = Context(TARGET)
    find("clean")().run(model, context)
    cuts = []
    for text in (f"prune:macs={share}", f"prune:macs={share}:round_to=1:allot=uniform:criterion=l2"):
        cut = model.copy()
        left = spec.parse(text).passes[0].run(cut, context).stats["macs_ratio"]
        cuts.append((cut, float(left)))
    rows = list(synthetic_samples(model, rows=1).batches(1))
    _, paying, odd = bench([model, *(cut for cut, _ in cuts)], rows, budget=6)
    figures = f"{cuts[0][1]:.3f} | {paying.ratio:.3f} | {cuts[1][1]:.3f} | {odd.ratio:.3f}"
    print(f"| {name} | {share:g} | {figures} | {odd.ratio / paying.ratio:.2f} |", flush=True)


def main() -> int:
    """Measure and print; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="names of cases, or how they begin; by default all")
    parser.add_argument("--rows", type=int, default=768, help="calibration rows of the CIFAR-10 cases")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--widths", action="store_true", help="only times at equal MACs, beside odd widths")
    args = parser.parse_args()
    if args.widths:
        print("| model | goal | MACs | time | MACs, odd | time, odd | odd / paying |")
        print("|" + "---|" * 7)
        for name, share in WIDTHS:
            widths(name, share)
        return 0
    chosen = [c for c in CASES if not args.cases or any(c.name.startswith(name) for name in args.cases)]
    if args.list or not chosen:
        print("\n".join(c.name for c in CASES))
        return 0 if args.list else 2
    print("| case | float | pruned | bar | | MACs | time | params | agree raw | agree | dB raw | dB | s |")
    print("|" + "---|" * 13)
    missed = sum(not run(case, args.rows) for case in chosen)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
