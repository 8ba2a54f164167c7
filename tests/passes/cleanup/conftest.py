"""Runs one pass on a graph in ONNX text and holds it to its promises."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest

from zc.execute import Runner, relative_error
from zc.ir.model import Model
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import find
from zc.target import Target

SIZES = {"N": 3, "M": 2, "S": 5, "H": 6, "W": 7}
CONTEXT = Context(Target("any"))


@dataclass
class After:
    """What a pass left behind."""

    model: Model
    result: PassResult
    before: Model
    worst: float = 0.0
    reasons: str = field(init=False)

    def __post_init__(self) -> None:
        self.reasons = "\n".join(f"{n.where}: {n.what}" for n in self.result.notes if n.kind == "declined")

    @property
    def ops(self) -> list[str]:
        return [n.op for n in self.model.graph.nodes]

    def attrs(self, op: str) -> dict:
        return next(n.attrs for n in self.model.graph.nodes if n.op == op)

    def constant(self, name: str) -> np.ndarray:
        return next(c.values for c in self.model.constants() if c.name == name)


def read(text: str, opset: int = 17, seed: int = 0) -> Model:
    """A model from text; values that nobody makes become random weights."""
    if not text.lstrip().startswith("<"):
        text = f'<ir_version: 8, opset_import: ["" : {opset}]> {text}'
    proto = onnx.parser.parse_model(text)
    graph, rng = proto.graph, np.random.default_rng(seed)
    made = {n for node in graph.node for n in node.output} | {t.name for t in (*graph.initializer, *graph.output)}
    for info in [v for v in graph.value_info if v.name not in made]:
        kind = info.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        values = rng.uniform(0.5, 1.5, [d.dim_value for d in kind.shape.dim])
        if "var" not in info.name:
            values *= rng.choice([-1, 1], values.shape)
        graph.initializer.append(onnx.numpy_helper.from_array(values.astype(dtype), info.name))
        graph.value_info.remove(info)
    return Model.from_proto(proto)


def feeds_of(model: Model, seed: int, sizes: dict[str, int] | None = None) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    feeds = {}
    for spec in model.inputs:
        shape = [d if isinstance(d, int) else (sizes or SIZES).get(str(d), 2) for d in spec.shape]
        if spec.dtype.kind == "f":
            feeds[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
        elif spec.dtype.kind == "b":
            feeds[spec.name] = rng.integers(0, 2, shape).astype(bool)
        else:
            feeds[spec.name] = rng.integers(0, 4, shape).astype(spec.dtype)
    return feeds


def signature(model: Model) -> list[tuple]:
    return [(t.name, t.dtype, tuple(t.shape)) for t in (*model.graph.inputs, *model.graph.outputs)]


def hold(before: Model, model: Model, limit: float = 1e-5) -> float:
    """Valid, same signature, same outputs for two batch sizes."""
    assert signature(before) == signature(model)
    onnx.checker.check_model(model.to_proto(), full_check=True)
    worst = 0.0
    for seed, sizes in enumerate((SIZES, {"N": 1, "M": 4, "S": 1, "H": 8, "W": 9})):
        feeds = feeds_of(before, seed, sizes)
        want = Runner(before, level="off").run(feeds)
        got = Runner(model, level="off").run(feeds)
        assert list(want) == list(got)
        for name in want:
            worst = max(worst, relative_error(got[name], want[name]))
    assert worst <= limit
    return worst


Run = Callable[..., After]


@pytest.fixture
def run_pass() -> Run:
    def run(name: str | Pass, graph: str | Model, opset: int = 17, limit: float = 1e-5) -> After:
        model = read(graph, opset) if isinstance(graph, str) else graph
        before = model.copy()
        one = find(name)() if isinstance(name, str) else name
        if name not in ("fold", "clean"):  # the others read shapes that were inferred before
            from zc.ir.shapes import infer_shapes

            infer_shapes(model)
        result = one.run(model, CONTEXT)
        again = one.run(model.copy(), CONTEXT)
        assert not again.changed, f"a second run finds more: {again.stats}"
        same = [n.op for n in before.graph.nodes] == [n.op for n in model.graph.nodes]
        assert result.changed or same
        return After(model, result, before, hold(before, model, limit))

    return run


@pytest.fixture
def text_model() -> Callable[..., Model]:
    return read
