"""Graph clean-up side by side: zc, onnxslim and onnxsim on the same loaded models, in one process, turn by turn.

    python benchmarks/clean.py [MODEL.onnx ...] [--repeats 5]

Without models: those of the folder `shared/models` beside the repository, and the `light_*` models that onnx ships.
Nodes are those of all scopes, Constant nodes not counted; time is the median of the clean-up alone, without loading;
error is max |got - want| / max |want| over all outputs against the model as it was, on random inputs.
A tool that is not installed is skipped by name.
"""

import argparse
import contextlib
import importlib
import io
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from zc.errors import ZcError
from zc.execute import Runner, relative_error
from zc.ir.model import Model
from zc.passes.cleanup.clean import Clean
from zc.pipeline.base import Context
from zc.target import Target

Load = Callable[[Path], Any]
Work = Callable[[Any], onnx.ModelProto]


@dataclass
class Tool:
    """A peer: how it loads, and the part that is timed."""

    name: str
    load: Load
    clean: Callable[[Any], Any]
    proto: Callable[[Any], onnx.ModelProto]
    seconds: list[float] = field(default_factory=list)
    nodes: int | None = None
    error: float | str = ""


def zc_tool() -> Tool:
    """The pass `clean`, shapes inferred, on a model in memory."""

    def clean(model: Model) -> Model:
        Clean().run(model, Context(Target("any")))
        return model

    return Tool("zc", lambda path: Model.from_proto(onnx.load(path), path), clean, lambda model: model.to_proto())


def peers() -> Iterator[Tool]:
    """The other tools that are installed."""
    for name, call in (("onnxslim", "slim"), ("onnxsim", "simplify")):
        try:
            module = importlib.import_module(name)
        except ImportError as err:
            print(f"{name} is not installed ({err}): skipped", file=sys.stderr)
            continue
        work = getattr(module, call)
        yield Tool(name, onnx.load, work, lambda got: got[0] if isinstance(got, tuple) else got)


def count(graph: onnx.GraphProto) -> int:
    """Nodes of a graph and its bodies; Constant nodes are values, not work."""
    bodies = (a.g for n in graph.node for a in n.attribute if a.type == onnx.AttributeProto.GRAPH)
    return sum(n.op_type != "Constant" for n in graph.node) + sum(count(g) for g in bodies)


def random_feeds(model: Model, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Inputs drawn from a fixed seed; dynamic dimensions take 2 unless `sizes` names them."""
    rng = np.random.default_rng(0)
    feeds = {}
    for spec in model.inputs:
        shape = [d if isinstance(d, int) and d > 0 else sizes.get(str(d), 2) for d in spec.shape or ()]
        dtype = spec.dtype or np.dtype(np.float32)
        if dtype.kind == "f":
            feeds[spec.name] = rng.standard_normal(shape).astype(dtype)
        else:
            feeds[spec.name] = rng.integers(0, 2, shape).astype(dtype)
    return feeds


def measure(path: Path, tools: list[Tool], repeats: int, verify: bool, sizes: dict[str, int]) -> None:
    """Fill in the measures of every tool on one model; tools take turns."""
    before = Model.from_proto(onnx.load(path), path)
    feeds = random_feeds(before, sizes)
    want = Runner(before, level="off").run(feeds) if verify else {}
    for turn in range(repeats + 1):  # the first turn warms up
        for tool in tools:
            loaded = tool.load(path)
            quiet = io.StringIO()
            start = time.perf_counter()
            try:
                with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
                    got = tool.clean(loaded)
            except Exception as err:  # a peer may raise anything
                tool.error = f"{type(err).__name__}: {' '.join(str(err).split())[:60]}"
                continue
            spent = time.perf_counter() - start
            if turn:
                tool.seconds.append(spent)
                continue
            proto = tool.proto(got)
            tool.nodes = count(proto.graph)
            if verify:
                tool.error = compare(proto, feeds, want)


def compare(proto: onnx.ModelProto, feeds: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> float | str:
    """The worst error of all outputs, or why there is none."""
    try:
        got = Runner(Model.from_proto(proto), level="off").run(feeds)
    except ZcError as err:
        return f"does not run: {str(err)[:60]}"
    if list(got) != list(want):
        return "other outputs"
    return max(relative_error(got[k], want[k]) for k in want)


def default_models() -> list[Path]:
    """The models beside the repository, and those inside the onnx package."""
    root = Path(__file__).resolve().parent.parent
    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    return [*sorted((root / ".." / "shared" / "models").glob("*.onnx")), *sorted(light.glob("*.onnx"))]


def main() -> int:
    """Measure and print; 1 when zc is behind anywhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dim", action="append", default=[], metavar="NAME=SIZE", help="size of a dynamic dimension")
    args = parser.parse_args()
    sizes = {"H": 20, "W": 24, "S": 16, "sequence": 576} | {k: int(v) for k, v in (d.split("=") for d in args.dim)}
    others = list(peers())
    names = ["zc", *(t.name for t in others)]
    print("| model | nodes | " + " | ".join(f"{n}: nodes, ms, error" for n in names) + " | |")
    print("|---|---|" + "---|" * len(names) + "---|")
    behind = 0
    for path in args.models or default_models():
        tools = [zc_tool(), *(Tool(t.name, t.load, t.clean, t.proto) for t in others)]
        # light models make hundreds of megabytes of weights when folded: once is enough
        big = path.name in ("light_vgg19.onnx", "light_bvlc_alexnet.onnx", "light_zfnet512.onnx")
        measure(path, tools, 1 if big else args.repeats, True, sizes)
        cells = [f"{t.nodes}, {1000 * statistics.median(t.seconds or [0]):.1f}, {shown(t.error)}" for t in tools]
        verdict = judge(tools)
        behind += bool(verdict)
        print(f"| {path.stem} | {count(onnx.load(path).graph)} | {' | '.join(cells)} | {verdict} |", flush=True)
    print(f"\nzc is behind on {behind} models" if behind else "\nzc is behind nowhere")
    return 1 if behind else 0


def shown(error: float | str) -> str:
    """An error as a cell."""
    return error if isinstance(error, str) else f"{error:.0e}"


def judge(tools: list[Tool]) -> str:
    """Where zc is behind, or an empty text."""
    own, others = tools[0], [t for t in tools[1:] if t.nodes is not None and t.seconds]
    found = []
    if isinstance(own.error, str) or own.error > 1e-5:
        found.append("outputs differ")
    if others and (own.nodes or 0) > min(t.nodes or 0 for t in others):
        found.append("more nodes")
    slim = next((t for t in others if t.name == "onnxslim"), None)
    if slim is not None and statistics.median(own.seconds) > statistics.median(slim.seconds):
        found.append("slower than onnxslim")
    return ", ".join(found)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    raise SystemExit(main())
