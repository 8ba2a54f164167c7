"""Where the time of a run goes: the kernels that onnxruntime really runs, with their shapes and times."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zc.execute import Feeds, Runner
from zc.ir.edit import Names
from zc.ir.graph import Node
from zc.ir.model import Model, load

_WARM_UP = 2
_EVENT = "_kernel_time"


@dataclass(frozen=True)
class Kernel:
    """One node of the graph that onnxruntime runs."""

    name: str
    op: str
    domain: str
    attrs: dict[str, Any]
    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    """Element type (as onnxruntime spells it) and shape of each input."""
    outputs: tuple[tuple[str, tuple[int, ...]], ...]
    us: float
    """Microseconds of one run: the mean of the fastest quarter of the runs, which other processes disturb least.
    The profiler's own cost is in it, about 2."""


def profile(model: Model, feeds: Sequence[Feeds], *, repeats: int = 40) -> tuple[Kernel, ...]:
    """The kernels of a model in the order in which they run, on one thread.

    feeds: used one after the other; of the same shapes. Nodes inside bodies are counted in the node that holds them.

    Raises:
        ZcError: onnxruntime does not run the model on the feeds.
    """
    with tempfile.TemporaryDirectory(prefix="zc-") as folder:
        optimized = Path(folder) / "optimized.onnx"
        runner = Runner(_named(model), threads=1, save_optimized=optimized, profile=Path(folder) / "profile")
        for i in range(repeats + _WARM_UP):
            runner.run(feeds[i % len(feeds)])
        events = json.loads(Path(runner.session.end_profiling()).read_text())
        nodes = {node.name: node for node in load(optimized).graph.nodes if isinstance(node, Node)}
    times: dict[str, list[float]] = {}
    told: dict[str, dict[str, Any]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_EVENT):
            name = event["name"].removesuffix(_EVENT)
            times.setdefault(name, []).append(event["dur"])
            told[name] = event["args"]
    return tuple(_kernel(nodes[name], told[name], times[name]) for name in times if name in nodes)


def _kernel(node: Node, told: dict[str, Any], times: list[float]) -> Kernel:
    settled = np.sort(times[_WARM_UP:] or times)
    return Kernel(
        name=node.name,
        op=node.op,
        domain="" if node.standard else node.domain or "",
        attrs=dict(node.attrs),
        inputs=_typed(told.get("input_type_shape", [])),
        outputs=_typed(told.get("output_type_shape", [])),
        us=float(settled[: max(len(settled) // 4, 1)].mean()),
    )


def _typed(listed: list[dict[str, list[int]]]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((kind, tuple(shape)) for one in listed for kind, shape in one.items())


def _named(model: Model) -> Model:
    """The model with a name for every node: it is all that the profiler tells nodes by."""
    if all(node.name for node in model.graph.nodes):
        return model
    model = model.copy()
    names = Names(model.graph)
    for node in model.graph.nodes:
        node.name = node.name or names.take(node.op)
    return model
