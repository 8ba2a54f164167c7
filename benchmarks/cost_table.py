"""What onnxruntime's kernels cost on this machine: measures random operators, fits the closed forms, prints the table.

    python benchmarks/cost_table.py [--rows 500] [--seeds 4] [--sweeps 3] [--data FILE.json] [--write]

Each operator is run in float and in Q/DQ (`cost_graphs.py`), batch 1, one thread; the profiler says how long each
kernel took that onnxruntime made of it. The amounts of work are those of `zc.backends.onnxruntime.kernels`;
microseconds for one of each are found by non-negative least squares of the relative error, with less weight to
outliers. The last seed is not fitted: the error is told on it. `--data` keeps what was measured; `--write` replaces
`cost_table.py` of the backend.
"""

import argparse
import json
import math
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cost_graphs import build, cases

from zc.backends.onnxruntime import kernels
from zc.backends.onnxruntime.kernels import BLOCKED, CODES, LAST, PLAIN, Window, Work
from zc.data import synthesize
from zc.ir.graph import Array
from zc.measure.profile import Kernel, profile

TABLE = Path(__file__).resolve().parents[1] / "backends" / "onnxruntime" / "cost_table.py"
HEAD = '''"""Microseconds for one of each kind of work of onnxruntime's kernels (`kernels.py`): batch 1, one thread.

Fitted by `benchmarks/cost_table.py` on a processor with AVX-512 and its int8 dot product, onnxruntime 1.32.
On shapes that were not fitted half of the predictions are within {median:.0%} of what was measured, nine tenths
within {most:.0%}.
"""

COSTS: dict[str, dict[str, float]] = {{
'''
IN_ONE_MODEL = 12
PROFILER = (1.45, 0.09)
"""Microseconds that the profiler adds to each kernel, and for each of its inputs: chains of 10 and of 60 small nodes
were timed without it and with it."""
FLOOR = 3.0
"""Microseconds that a residual is relative to, beside the time itself: below, clocks and caches decide."""


Measured = tuple[str, dict[str, float], float, str]
"""A kernel, its work, its microseconds, and what is fused into it."""


MOST_A_WEIGHT = 1.5e-4
"""Microseconds that reading one weight can take, beside the arithmetic: few operators have many weights and little
else, and what a fit gives to their weights for other reasons would be believed of large ones."""


def measure(count: int, seed: int) -> list[Measured]:
    """Kernels of random operators."""
    chance = random.Random(seed)
    every = cases(chance, count)
    found = []
    for start in range(0, len(every), IN_ONE_MODEL):
        for integer in (False, True):
            model = build(every[start : start + IN_ONE_MODEL], integer)
            for kernel in profile(model, list(synthesize(model.inputs, 1).batches()), repeats=60):
                work = work_of(kernel)
                if work is not None:
                    us = max(kernel.us - PROFILER[0] - PROFILER[1] * len(kernel.inputs), 0.2)
                    found.append((*work, us, fused_into(kernel)))
        if start // IN_ONE_MODEL % 10 == 0:
            print(f"  seed {seed}: {start} of {len(every)}", flush=True)
    return found


def _fastest(sweeps: Sequence[list[Measured]]) -> list[Measured]:
    """Of each kernel the least time: what else the machine does only ever adds."""
    return [min(same, key=lambda one: one[2]) for same in zip(*sweeps, strict=True)]


# ---- from a kernel that ran to its work


def fused_into(kernel: Kernel) -> str:
    """What a float convolution does beside its own work; Relu costs it nothing."""
    if kernel.op not in {"Conv", "FusedConv"}:
        return ""
    activation = kernel.attrs.get("activation", "Relu")
    if len(kernel.inputs) > 3:
        return "Add" if activation == "Relu" else "Add and more"
    return "" if activation == "Relu" else str(activation)


def work_of(kernel: Kernel) -> Work | None:
    """The work of a kernel, in the words of the table; None for one that the table does not hold."""
    shapes = [shape for _, shape in kernel.inputs]
    out = kernel.outputs[0][1]
    if kernel.op in {"Conv", "FusedConv"}:
        window = _float_window(kernel)
        if kernels.runs_blocked(window) != (kernel.domain == "com.microsoft.nchwc"):
            print(f"  {kernel.name}: onnxruntime runs {kernel.domain}, the closed form says otherwise: {window}")
        return kernels.float_conv(window)
    if kernel.op == "QLinearConv":
        return kernels.integer_conv(_integer_window(kernel))
    if kernel.op in {"Gemm", "FusedGemm", "MatMul", "QGemm", "MatMulIntegerToFloat", "QLinearMatMul"}:
        integer = kernel.op[0] == "Q" or "Integer" in kernel.op
        return kernels.product(math.prod(out[:-1]), shapes[0][-1], out[-1], integer=integer)
    if kernel.op in {"QuantizeLinear", "DequantizeLinear"}:
        return kernels.conversion(PLAIN, kernel.op[0] == "Q", (1, 1, math.prod(out)))
    if kernel.op in {"ReorderInput", "ReorderOutput"}:
        return kernels.conversion(BLOCKED, kernel.op == "ReorderOutput", out if kernel.op[-1] == "t" else shapes[0])
    if kernel.op == "Transpose" and kernel.outputs[0][0] == "uint8":
        perm = kernel.attrs["perm"]
        last = [0, *range(2, len(out)), 1]
        if perm in (last, [0, len(out) - 1, *range(1, len(out) - 1)]):
            return kernels.conversion(CODES, perm == last, shapes[0] if perm == last else out)
    return _elementwise(kernel)


def _elementwise(kernel: Kernel) -> Work | None:
    name = kernel.op.removeprefix("QLinear").removeprefix("Nhwc").replace("Upsample", "Resize")
    if name not in kernels.MEASURED:
        return None
    out = kernel.outputs[0][1]
    integer = kernel.outputs[0][0] == "uint8"
    blocked = kernel.domain == "com.microsoft.nchwc"
    last = kernel.op.startswith("Nhwc") or bool(kernel.attrs.get("channels_last", 0))
    last |= kernel.op == "QLinearConcat" and kernel.attrs["axis"] == len(out) - 1
    form = BLOCKED if blocked else LAST if last else CODES if integer else PLAIN
    if kernel.op == "Resize" and integer and kernel.inputs[0][1][-1] == out[-1]:
        form = LAST
    inputs = sum(math.prod(shape) for _, shape in kernel.inputs if len(shape) == len(out))
    taps = math.prod(kernel.attrs.get("kernel_shape", [1]))
    return kernels.elementwise(name, form, math.prod(out), inputs, taps=taps, width=out[-1])


def _float_window(kernel: Kernel) -> Window:
    x, weight, out = kernel.inputs[0][1], kernel.inputs[1][1], kernel.outputs[0][1]
    return kernels.window(x, weight, (out[0], weight[0], *out[2:]), *_attributes(kernel))


def _integer_window(kernel: Kernel) -> Window:
    x, out = kernel.inputs[0][1], kernel.outputs[0][1]
    groups = kernel.attrs.get("group", 1)
    weight = (out[-1], x[-1] // groups, *kernel.attrs["kernel_shape"])
    return kernels.window((x[0], x[-1], *x[1:-1]), weight, (out[0], out[-1], *out[1:-1]), *_attributes(kernel))


def _attributes(kernel: Kernel) -> tuple[int, list[int], list[int]]:
    attrs = kernel.attrs
    return attrs.get("group", 1), attrs.get("strides", [1]), attrs.get("dilations", [1])


# ---- fit


def fit(rows: list[tuple[dict[str, float], float]]) -> dict[str, float]:
    """Microseconds for one of each kind of work."""
    names = list(rows[0][0])
    amounts = np.array([[work.get(name, 0.0) for name in names] for work, _ in rows])
    times = np.array([us for _, us in rows])
    size = np.maximum(amounts.max(axis=0), 1e-30)
    relative = 1 / (times + FLOOR)
    most = np.array([MOST_A_WEIGHT if name == "weights" else np.inf for name in names]) * size
    trust = np.ones(len(times))
    found = np.zeros(len(names))
    for _ in range(30):  # reweighted until the sum of magnitudes, not of squares, is least
        found = _least_squares(amounts / size * (relative * trust)[:, None], times * relative * trust, most)
        error = np.abs(amounts / size @ found - times) * relative
        trust = 1 / np.sqrt(np.maximum(error, 0.03))
    counts = found > 0.02  # microseconds, of the largest amount
    return {name: float(f"{cost:.3g}") for name, cost, count in zip(names, found / size, counts, strict=True) if count}


def _least_squares(matrix: Array, wanted: Array, most: Array) -> Array:
    """From 0 to `most`, by coordinate descent on the normal equations."""
    square, mixed = matrix.T @ matrix, matrix.T @ wanted
    found = np.zeros(len(mixed))
    for _ in range(3000):
        before = found.copy()
        for i in range(len(found)):
            if square[i, i] > 0:
                found[i] = min(max(found[i] + (mixed[i] - square[i] @ found) / square[i, i], 0.0), most[i])
        if np.abs(found - before).max() <= 1e-9 * max(np.abs(found).max(), 1e-30):
            break
    return found


def predict(costs: dict[str, float], work: dict[str, float]) -> float:
    """Microseconds."""
    return sum(costs.get(name, 0.0) * amount for name, amount in work.items())


def main() -> None:
    """Measure, fit, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500, help="convolutions for each seed")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--sweeps", type=int, default=3, help="how often all is measured; the fastest counts")
    parser.add_argument("--data", type=Path, help="JSON file of measurements: read if it is there, else written")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    if args.data is not None and args.data.exists():
        measured = json.loads(args.data.read_text())
    else:
        sweeps = [[measure(args.rows, seed) for seed in range(1, args.seeds + 1)] for _ in range(args.sweeps)]
        measured = [_fastest(same) for same in zip(*sweeps, strict=True)]
        if args.data is not None:
            args.data.write_text(json.dumps(measured))
    fitted, unseen = defaultdict(list), defaultdict(list)
    more = defaultdict(list)
    for number, found in enumerate(measured):
        for kernel, work, us, fused in found:
            rows = unseen if number == len(measured) - 1 else fitted
            (more[fused] if fused else rows[kernel]).append((kernel, work, us))
    table, errors = {}, []
    print(f"{'kernel':36s} {'fitted':>6s} {'unseen':>6s}  error: half, nine tenths; of kernels over 20 us")
    for kernel in sorted(fitted):
        table[kernel] = fit([(work, us) for _, work, us in fitted[kernel]])
        here = [(abs(predict(table[kernel], work) - us) / us, us) for _, work, us in unseen[kernel]]
        errors += here
        print(f"{kernel:36s} {len(fitted[kernel]):6d} {len(here):6d}  {_spread(here)}; {_spread(here, 20)}")
    for fused in sorted(set(more) - {"Add and more"}):
        table[f"fused {fused}"] = {"outputs": _beside(table, more[fused])}
        print(f"{'fused ' + fused:36s} {len(more[fused]):6d}         {table[f'fused {fused}']['outputs']:.3g} us")
    print(f"{'all':36s} {'':6s} {len(errors):6d}  {_spread(errors)}; {_spread(errors, 20)}")
    big = [error for error, us in errors if us > 20]
    text = HEAD.format(median=np.median(big), most=np.percentile(big, 90))
    text += "".join(map(_entry, table.items())) + "}\n"
    if args.write:
        TABLE.write_text(text)
    else:
        print(text)


def _beside(table: dict[str, dict[str, float]], rows: list[tuple[str, dict[str, float], float]]) -> float:
    """Microseconds for each output by which convolutions take longer for what is fused into them."""
    longer = [(us - predict(table[k], work)) / work["outputs"] for k, work, us in rows if work["outputs"] > 1e4]
    return float(f"{max(np.median(longer), 0.0):.3g}")


def _entry(one: tuple[str, dict[str, float]]) -> str:
    """A line of the table, or several."""
    line = f'    "{one[0]}": {json.dumps(one[1])},\n'
    if len(line) <= 121:
        return line
    inner = "".join(f'        "{name}": {cost},\n' for name, cost in one[1].items())
    return f'    "{one[0]}": {{\n{inner}    }},\n'


def _spread(errors: list[tuple[float, float]], least: float = 0.0) -> str:
    some = [error for error, us in errors if us > least]
    return f"{np.median(some):5.0%} {np.percentile(some, 90):5.0%}" if some else "    -     -"


if __name__ == "__main__":
    main()
