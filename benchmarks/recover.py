"""Recovery by training, measured: what pruning and quantisation cost, and what distillation wins back, against bars.

    python benchmarks/recover.py [CASE ...] [--minutes 38] [--threads N] [--list]

No case gives labels to a pass. Models and data: the folder `shared` beside the repository, and for the digits
scikit-learn's, without the rows that the classifier is tested on. Seconds are processor time of the whole pipeline. In
brackets: on the first 2,000 of the 4,000 test rows.
"""

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from prune import SHARED, spearman, top1
from prune import Case as Scored

from zc.backends.onnxruntime import TARGET
from zc.data import Samples, load_samples
from zc.ir.model import Model, load
from zc.pipeline.base import Context
from zc.pipeline.manager import run_pipeline

ROOT = Path(__file__).resolve().parents[1]
Rows = Callable[[Model, Path], Samples]


def from_shared(file: str, rows: str, prep: str = "") -> Rows:
    """Rows of a file beside the repository, without labels."""

    def read(model: Model, folder: Path) -> Samples:
        return load_samples(str(SHARED / "data" / file), model.inputs, rows=rows or None, prep=prep or None)

    return read


def digits(model: Model, folder: Path) -> Samples:
    """The digits that the classifier is not tested on, without their labels."""
    sys.path.append(str(ROOT / "golden_models"))
    from digits import load as load_digits

    data = load_digits()
    images = np.concatenate([data.train.x, data.calibration.x]).astype(np.float32)
    np.savez(folder / "digits.npz", x=images)
    return load_samples(str(folder / "digits.npz"), model.inputs)


@dataclass(frozen=True)
class Case:
    """What is done to a model, without recovery and with it, and what must be left."""

    name: str
    model: Path
    plain: str
    """The pipeline without training."""
    recovered: str
    rows: Rows
    scored: Scored
    score: Callable[[Model, Scored], float]
    bar: Callable[[float, float, float], bool]
    """(float, without, with) -> is the bar met?"""
    wanted: str
    first: Scored | None = None
    """Fewer rows, those on which the figures of others were taken; shown in brackets."""


def shared_model(name: str) -> Path:
    """A model beside the repository."""
    return SHARED / "models" / f"{name}.onnx"


def scored(name: str, evaluation: tuple[str, str, str]) -> Scored:
    """What the scores of benchmarks/prune.py look at."""
    return Scored(name, name, "", ("", "", ""), evaluation, top1)


CIFAR = from_shared("cifar10_train15k.npz", "", "imagenet")
CIFAR_TEST = scored("cifar", ("cifar10_test4k.npz", "0:4000", "imagenet"))
CIFAR_FIRST = scored("cifar", ("cifar10_test4k.npz", "0:2000", "imagenet"))
DIGITS_TEST = scored("digits", (str(ROOT / "golden_models" / "digits_test.npz"), "0:500", ""))
DIGITS = ROOT / "golden_models" / "digits_cnn.onnx"
WIDE = "round_to=1:allot=uniform"


def cases(minutes: float) -> list[Case]:
    """All cases; minutes: the budget of the long one."""
    half = "prune:macs=0.5"
    ffn = "prune:ratio=0.5:round_to=1:only=*/intermediate/dense/MatMul"
    return [
        Case(
            "digits-50%",
            DIGITS,
            f"prune:ratio=0.5:{WIDE}",
            f"prune:ratio=0.5:{WIDE},distill:steps=1500:lr=0.01",
            digits,
            DIGITS_TEST,
            top1,
            lambda before, without, after: after >= before - 1,
            "within 1 point",
        ),
        Case(
            "digits-25%",
            DIGITS,
            f"prune:ratio=0.75:{WIDE}",
            f"prune:ratio=0.75:{WIDE},distill:steps=3000:optimizer=adamw:lr=0.03",
            digits,
            DIGITS_TEST,
            top1,
            lambda before, without, after: after >= before - 4,
            "within 4 points",
        ),
        Case(
            "resnet20-w4a8",
            shared_model("resnet20_cifar10"),
            "quantize:weight_bits=4",
            "quantize:weight_bits=4,qat:steps=150",
            CIFAR,
            CIFAR_TEST,
            top1,
            lambda before, without, after: after >= 91.8,
            ">= 91.8",
            CIFAR_FIRST,
        ),
        Case(
            "resnet20-half-int8",
            shared_model("resnet20_cifar10"),
            f"{half},quantize",
            f"{half},distill:steps=6000:batch=16:loss=logits+features,quantize,qat:steps=150:lr=0.0002:loss=logits+features",
            CIFAR,
            CIFAR_TEST,
            top1,
            lambda before, without, after: after >= 89.5,
            ">= 89.5",
            CIFAR_FIRST,
        ),
        Case(
            "resnet56-2.11x",
            shared_model("resnet56_cifar10"),
            "prune:macs=0.474",
            f"prune:macs=0.474,distill:minutes={minutes:g}:batch=16:lr=0.002:loss=logits+features",
            CIFAR,
            CIFAR_TEST,
            top1,
            lambda before, without, after: after >= 92.5,
            ">= 92.5",
            CIFAR_FIRST,
        ),
        Case(
            "mobilenetv1-0.70",
            shared_model("mobilenetv1_025_imagenet"),
            "prune:macs=0.7",
            "prune:macs=0.7,distill:settled=0.01:steps=16000:batch=16:outputs=conv_pw_13_relu:loss=logits"
            ":augment=zoom+flip+cutmix",
            from_shared("imagenet500", "0:200", "pm1 crop=224"),
            scored("mobilenet", ("imagenet500", "200:500", "pm1 crop=224")),
            top1,
            lambda before, without, after: after >= (before + without) / 2,
            "half of the loss",
        ),
        Case(
            "minilm-ffn-50%",
            shared_model("minilm_l6_trim"),
            ffn,
            f"{ffn},distill:steps=60:batch=32",
            from_shared("minilm.npz", ""),
            scored("minilm", ("stsb_dev.npz", "", "")),
            spearman,
            lambda before, without, after: after >= before - 3,
            "within 3",
        ),
    ]


def run(case: Case, threads: int, steps: int | None) -> bool:
    """Measure a case, with other budgets if steps are given; True if the bar is met."""
    shorter = re.sub(r"(steps|minutes)=[\d.]+", f"steps={steps}", case.recovered) if steps else case.recovered
    model = load(case.model)

    def shown(model: Model, score: float) -> str:
        return f"{score:.2f}" + ("" if case.first is None else f" ({case.score(model, case.first):.2f})")

    before = case.score(model, case.scored)
    cells = [shown(model, before)]
    with tempfile.TemporaryDirectory() as folder:
        rows = case.rows(model, Path(folder))
        found = []
        for pipeline in (case.plain, shorter):
            work, start = load(case.model), time.process_time()
            report = run_pipeline(work, pipeline, Context(TARGET, rows, threads=threads), verify="structure")
            seconds = time.process_time() - start
            found.append(case.score(work, case.scored))
            cells.append(shown(work, found[-1]))
    last = report.passes[-1].stats
    met = case.bar(before, *found)
    verdict = "met" if met else "MISSED"
    losses = f"{last.get('loss_before', '')} -> {last.get('loss_after', '')}"
    print(
        f"| {case.name} | {' | '.join(cells)} | {case.wanted} | {verdict} | {last['steps']} "
        f"| {losses} | {seconds:.0f} |",
        flush=True,
    )
    return met


def speed(threads: int) -> bool:
    """A training step of ResNet-20, against a torch module written by hand; True at 0.9 of its speed or more."""
    from handmade import step_times

    ours, theirs = step_times(shared_model("resnet20_cifar10"), threads)
    ratio = float(np.median(np.array(theirs) / np.array(ours)))
    print(f"| speed, ResNet-20, batch 64 | | | {ratio:.2f} | >= 0.9 of a hand-written module | {ratio >= 0.9} | | | |")
    return ratio >= 0.9


def main() -> int:
    """Measure and print; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="names of cases, or how they begin; by default all")
    parser.add_argument("--minutes", type=float, default=38, help="training time of the ResNet-56")
    parser.add_argument("--steps", type=int, help="budget of every training pass instead of the case's own")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    args = parser.parse_args()
    known = cases(args.minutes)
    chosen = [c for c in known if not args.cases or any(c.name.startswith(name) for name in args.cases)]
    timed = not args.cases or "speed" in args.cases
    if args.list or not (chosen or timed):
        print("\n".join([*(c.name for c in known), "speed"]))
        return 0 if args.list else 2
    print("| case | float | without training | with | bar | | steps | loss of the last pass | s |")
    print("|" + "---|" * 9)
    missed = sum(not run(case, args.threads, args.steps) for case in chosen)
    if timed:
        missed += not speed(args.threads)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
