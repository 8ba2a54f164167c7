"""Graphs in ONNX text with weights filled in, and a quantiser that checks what every quantised model must keep."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from zc.backends.onnxruntime import TARGET
from zc.data import Samples
from zc.data.batching import batching
from zc.execute import Runner
from zc.ir.graph import Node
from zc.ir.model import Model
from zc.passes.quantize.quantize import Quantize
from zc.pipeline.base import Context, PassResult

ROWS = 24

INTEGERS = replace(TARGET, costs=None)
"""The default target without its cost table: nothing is too small to be quantised."""


@dataclass(frozen=True)
class Rows:
    """Arrays of one row each along the first axis, as samples."""

    arrays: dict[str, Any]
    whole: bool = False

    @property
    def count(self) -> int:
        return len(next(iter(self.arrays.values())))

    def read(self, start: int, stop: int) -> dict[str, Any]:
        return {name: array[start:stop] if array.ndim else array for name, array in self.arrays.items()}

    def fingerprint(self, start: int, stop: int) -> Iterator[bytes]:
        yield b""


@dataclass(frozen=True)
class Feeds:
    """Whole feeds, which may differ in shape."""

    feeds: list[dict[str, Any]]
    whole: bool = True

    @property
    def count(self) -> int:
        return len(self.feeds)

    def read(self, start: int, stop: int) -> dict[str, Any]:
        return self.feeds[start]

    def fingerprint(self, start: int, stop: int) -> Iterator[bytes]:
        yield b""


def samples_for(model: Model, arrays: dict[str, Any]) -> Samples:
    rows = Rows(arrays)
    batch = batching(model.inputs).size
    return Samples(model.inputs, rows, "arrays", 0, rows.count, batch=batch)


def normal(model: Model, rows: int = ROWS) -> dict[str, Any]:
    """Normal rows for every float input; a dynamic dimension behind the first is 6."""
    rng = np.random.default_rng(0)
    return {
        s.name: rng.standard_normal((rows, *(d if isinstance(d, int) else 6 for d in s.shape[1:]))).astype(s.dtype)
        for s in model.inputs
    }


def fill(text: str) -> Model:
    """The model of a text; what it declares as a value that nothing makes becomes a random weight."""
    proto = onnx.parser.parse_model(text)
    graph = proto.graph
    made = {o for n in graph.node for o in n.output}
    for value in [v for v in graph.value_info if v.name not in made]:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        rng = np.random.default_rng(zlib.crc32(value.name.encode()))
        array = rng.standard_normal(shape) / np.sqrt(max(int(np.prod(shape[1:])), 1))
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        graph.initializer.append(numpy_helper.from_array(array.astype(dtype), value.name))
        graph.value_info.remove(value)
    for node in graph.node:
        node.name = node.name or node.output[0]
    onnx.checker.check_model(proto, full_check=True)
    return Model.from_proto(proto)


@dataclass
class Quantised:
    """A quantised model, what the pass said, and how to look at both."""

    model: Model
    float_model: Model
    result: PassResult
    arrays: dict[str, Any]
    optimized: Path

    def ops(self) -> list[str]:
        return [n.op for n in self.model.graph.nodes]

    def runs(self) -> list[str]:
        """The operators of the graph that onnxruntime really runs."""
        Runner(self.model, save_optimized=self.optimized)
        return [n.op_type for n in onnx.load(self.optimized).graph.node]

    def node(self, name: str) -> Node:
        return next(n for n in self.model.graph.nodes if n.name == name)  # type: ignore[return-value]

    def values(self, name: str) -> Any:
        return next(c.values for c in self.model.constants() if c.name == name)

    def reasons(self) -> str:
        return "\n".join(f"{n.where}: {n.what}" for n in self.result.notes if n.kind in ("declined", "warning"))

    def outputs(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the quantised and the float model give on the samples."""
        return Runner(self.model).run(self.arrays), Runner(self.float_model).run(self.arrays)


@pytest.fixture
def quantize_model(tmp_path: Path) -> Callable[..., Quantised]:
    def run(model: Model, arrays: dict[str, Any] | None = None, target: Any = INTEGERS, **options: Any) -> Quantised:
        before = model.copy()
        arrays = normal(model) if arrays is None else arrays
        ends = [(s.name, s.dtype) for s in (*model.inputs, *model.outputs)]
        plain = {"rounding": "nearest", "equalize": False, "guard": False}  # what is not tested is not tried
        result = Quantize(**plain | options).run(model, Context(target, samples_for(model, arrays)))
        onnx.checker.check_model(model.to_proto(), full_check=True)
        assert [(s.name, s.dtype) for s in (*model.inputs, *model.outputs)] == ends
        return Quantised(model, before, result, arrays, tmp_path / "optimized.onnx")

    return run


@pytest.fixture
def quantize(quantize_model: Callable[..., Quantised]) -> Callable[..., Quantised]:
    return lambda text, arrays=None, **options: quantize_model(fill(text), arrays, **options)


@pytest.fixture
def samples_of() -> Callable[[Model, dict[str, Any]], Samples]:
    return samples_for


@pytest.fixture
def feeds_of() -> Callable[[Model, list[dict[str, Any]]], Samples]:
    return lambda model, feeds: Samples(model.inputs, Feeds(feeds), "feeds", 0, len(feeds))


@pytest.fixture(name="samples_for")
def _samples_for() -> Callable[..., Samples]:
    return samples_for


@pytest.fixture
def smooth() -> Callable[..., dict[str, Any]]:
    """Rows whose neighbours along every axis vary together, as those of images do."""

    def make(model: Model, rows: int) -> dict[str, Any]:
        arrays = normal(model, rows)
        for name, values in arrays.items():
            for axis in range(1, values.ndim):
                values = values + 0.8 * np.roll(values, 1, axis) + 0.6 * np.roll(values, 2, axis)
            arrays[name] = values.astype(np.float32)
        return arrays

    return make


@pytest.fixture
def graph() -> Callable[[str], Model]:
    return fill
