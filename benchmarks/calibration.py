"""What calibration costs beside plain float runs of the same samples, and its memory beside their number.

    python benchmarks/calibration.py [--rows 128] [--repeats 3] [--memory 32,128,512]

One forward looks at every value that `quantize` gives codes, and every method reads its ranges from what was seen.
Time is processor time of one thread; both take turns, the figure is the median of the ratios. Memory is the most that
a process of its own held, with samples that are made as they are read.
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from cases import SHARED
from resnet import resnet50
from tools import peak_mb

from zc.backends.onnxruntime import TARGET
from zc.data import Feed, Samples
from zc.execute import Runner
from zc.ir.model import Model, load
from zc.passes.quantize.calibrate import Calibration, Key
from zc.passes.quantize.ranges import METHODS, find_range
from zc.passes.quantize.workshop import Workshop
from zc.pipeline.base import Context
from zc.pipeline.registry import find

NETS = {"mobilenetv2_10_imagenet_qatsrc": 2.0, "resnet50": 1.3}
"""By net: the most that calibration may take, in float runs."""


@cache
def images() -> np.ndarray:
    """float32[8,3,224,224] within -1 and 1."""
    coarse = np.random.default_rng(0).normal(0, 1, (8, 3, 28, 28)).clip(-1, 1).astype(np.float32)
    return coarse.repeat(8, axis=2).repeat(8, axis=3)


@dataclass(frozen=True)
class Noise:
    """Smooth random images of 224x224, made as they are read (a few, each time a little darker)."""

    name: str
    count: int
    whole: bool = False

    def read(self, start: int, stop: int) -> Feed:
        """Rows `start` to `stop`."""
        rows = np.arange(start, stop)
        return {self.name: images()[rows % 8] * np.float32(0.999) ** rows[:, None, None, None].astype(np.float32)}

    def fingerprint(self, start: int, stop: int) -> Iterator[bytes]:
        """What tells these rows from others."""
        yield hashlib.sha256(f"{self.name} {start} {stop}".encode()).digest()


def net(name: str) -> Model:
    """A net, cleaned."""
    path = SHARED / "models" / f"{name}.onnx"
    model = Model.from_proto(resnet50()) if name == "resnet50" else load(path)
    find("clean")().run(model, Context(TARGET, threads=1))
    return model


def samples(model: Model, rows: int) -> Samples:
    """Images for its one input."""
    (spec,) = model.inputs
    return Samples((spec,), Noise(spec.name, rows), "noise", 0, rows)


def plain(model: Model, rows: Samples) -> None:
    """The float model over all rows, one by one."""
    runner = Runner(model, threads=1)
    for feed in rows.batches(1):
        runner.run(feed)


def calibrate(model: Model, rows: Samples) -> int:
    """Every value that gets codes, and its range by every method; how many values."""
    workshop = Workshop(model, Context(TARGET, rows, threads=1))
    (place,) = workshop.places()
    keys = [Key(0, tensor.name) for tensor in place.measured()]
    seen = Calibration(workshop.model, rows, workshop.ctx).sketches(keys)
    for sketch in seen.values():
        for method in METHODS:
            find_range(sketch, method)
    return len(seen)


def cost(name: str, rows: int, repeats: int) -> float:
    """Time of calibration over that of the float runs; printed."""
    model = net(name)
    feeds = samples(model, rows)
    values = calibrate(model, samples(model, 2))  # compiles the kernels
    ratios, times = [], []
    for _ in range(repeats):
        spent = []
        for work in (plain, calibrate):
            start = time.process_time()
            work(model, feeds)
            spent.append(time.process_time() - start)
        times.append(spent)
        ratios.append(spent[1] / spent[0])
    float_s, calib_s = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(ratios)
    word = "met" if ratio <= NETS[name] else "MISSED"
    print(
        f"{name}: {values} values, {rows} rows: float {float_s:.2f} s, calibration {calib_s:.2f} s, "
        f"ratio {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) of {NETS[name]:g} {word}",
        flush=True,
    )
    return ratio


def memory(name: str, counts: list[int]) -> bool:
    """The most memory at each number of rows; printed. True if it does not grow."""
    peaks = {}
    for what, rows in [("plain", counts[0]), *(("calibrate", rows) for rows in counts)]:
        command = [sys.executable, Path(__file__), "--child", name, what, str(rows)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[what, rows] = float(json.loads(done.stdout))
    first, last = peaks["calibrate", counts[0]], peaks["calibrate", counts[-1]]
    flat = last <= 1.1 * first
    told = ", ".join(f"{rows} rows {peaks['calibrate', rows]:.0f} MB" for rows in counts)
    print(f"{name}: float run {peaks['plain', counts[0]]:.0f} MB; calibration: {told}: {'flat' if flat else 'GROWS'}")
    return flat


def child(name: str, what: str, rows: str) -> None:
    """One of both in a process of its own; prints the most memory that it held."""
    model = net(name)
    {"plain": plain, "calibrate": calibrate}[what](model, samples(model, int(rows)))
    print(json.dumps(peak_mb()))


def main() -> int:
    """Measure; 1 when a bar is missed."""
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:5])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", help=f"{', '.join(NETS)}; both by default")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", default="32,128,512", help="numbers of rows; empty: do not measure it")
    args = parser.parse_args()
    met = True
    for name in args.nets or NETS:
        met &= cost(name, args.rows, args.repeats) <= NETS[name]
        if args.memory:
            met &= memory(name, [int(count) for count in args.memory.split(",")])
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
