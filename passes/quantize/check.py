"""What really runs in integers: read from the graph that onnxruntime makes of the written model."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from zc.data import Samples
from zc.execute import Runner, float_pairs
from zc.ir.model import Model, load
from zc.measure.tensor_error import decibels
from zc.passes.quantize.weights import Coded
from zc.target import Target

MOST_ROWS = 64


def still_float(model: Model, coded: Sequence[Coded], target: Target) -> list[tuple[Coded, str]]:
    """The weighted operators that were written for int8 kernels and do not get one, and what stands there instead.

    They are found by the name of their weight, which survives every fusion. ZcError when the session does not open.
    """
    with tempfile.TemporaryDirectory(prefix="zc-") as folder:
        path = Path(folder) / "optimized.onnx"
        Runner(model, save_optimized=path, config=target.session)
        readers: dict[str, set[str]] = {}
        for scope in load(path).scopes():
            for node in scope.nodes:
                for tensor in node.inputs:
                    readers.setdefault(tensor.name, set()).add(node.op)
    found = []
    for one in coded:
        ops = readers.get(one.weight.name, set())
        if ops & {"DequantizeLinear"} or not ops & target.integer_runtime_ops:
            found.append((one, ", ".join(sorted(ops)) or "nothing that reads its weight"))
    return found


def output_sqnr(model: Model, original: Model, samples: Samples) -> dict[str, float]:
    """Signal to noise of each float output in dB, on the last calibration rows (about 64), the original as truth."""
    batch = samples.batch or 1
    rows = min(samples.rows, max(MOST_ROWS // batch, 1) * batch)
    feeds = samples.take(samples.rows - rows, samples.rows)
    quantised, exact = Runner(model), Runner(original)
    signal: dict[str, float] = {}
    noise: dict[str, float] = {}
    for feed in feeds.batches(16):
        got = quantised.run(feed)
        for name, wanted in exact.run(feed).items():
            for a, b in float_pairs(got[name], wanted):
                signal[name] = signal.get(name, 0.0) + float(b @ b)
                noise[name] = noise.get(name, 0.0) + float((a - b) @ (a - b))
    return {name: decibels(signal[name], noise[name]) for name in signal}
