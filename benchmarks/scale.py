"""What is done to every model, at scale: processor seconds of each step as the graph grows.

    python benchmarks/scale.py [--nodes 20000] [--shuffled] [--repeats 3]

A chain of Add, Mul, Relu and Sub on shared weights, at a quarter, half and all of the nodes; the best of some runs. The
last column is the time at all nodes over that at half of them: 2 is linear, 4 quadratic. (Tests count the lines that
run instead: those do not depend on what else the machine does.)
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from zc.ir.check import problems
from zc.ir.diff import diff
from zc.ir.edit import sort_nodes
from zc.ir.model import Model, load
from zc.ir.shapes import infer_shapes
from zc.ir.text import print_model
from zc.passes.cleanup.clean import Clean
from zc.pipeline.base import Context
from zc.target import Target

OPS = ("Add", "Mul", "Relu", "Sub")


def chain(count: int, shuffled: bool) -> onnx.ModelProto:
    """A graph x -> Add -> Mul -> Relu -> Sub -> ... -> y."""
    weights = [numpy_helper.from_array(np.full(4, 1 + i / 8, np.float32), f"w{i}") for i in range(4)]
    nodes = []
    for i in range(count):
        inputs = [f"v{i - 1}" if i else "x", f"w{i % 4}"][: 1 if OPS[i % 4] == "Relu" else 2]
        nodes.append(helper.make_node(OPS[i % 4], inputs, ["y" if i == count - 1 else f"v{i}"], f"n{i}"))
    if shuffled:
        random.Random(count).shuffle(nodes)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def clean(model: Model) -> None:
    """The pass, on a copy."""
    Clean().run(model.copy(), Context(Target("any")))


STEPS: dict[str, Callable[[Model], object]] = {
    "copy": Model.copy,
    "sort": lambda model: sort_nodes(model.graph),
    "infer shapes": infer_shapes,
    "check": problems,
    "print": print_model,
    "diff with itself": lambda model: diff(model, model),
    "clean": clean,
}


def measure(path: Path, repeats: int) -> dict[str, float]:
    """Processor seconds of each step on the model of a file, in order; the best of so many runs."""
    best: dict[str, float] = {}

    def timed(step: str, call: Callable[[], object]) -> object:
        start = time.process_time()
        result = call()
        best[step] = min(best.get(step, float("inf")), time.process_time() - start)
        return result

    for _ in range(repeats):
        model = timed("load", partial(load, path))
        assert isinstance(model, Model)
        for step, run in STEPS.items():
            timed(step, partial(run, model))
        timed("save", partial(model.save, path.with_suffix(".out.onnx")))
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--shuffled", action="store_true", help="nodes in random order")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    counts = [args.nodes // 4, args.nodes // 2, args.nodes]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            path = Path(folder) / f"{count}.onnx"
            onnx.save(chain(count, args.shuffled), path)
            found.append(measure(path, args.repeats))
    print(f"| step | {' | '.join(f'{count:,}' for count in counts)} | of half |")
    print("|" + "---|" * 5)
    for step in found[-1]:
        cells = " | ".join(f"{one[step]:.3f}" for one in found)
        print(f"| {step} | {cells} | {found[2][step] / max(found[1][step], 1e-9):.2f} |")


if __name__ == "__main__":
    main()
