"""Graphs written as ONNX text, with weights filled in, and a pruner that checks what every pruned model must keep."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from zc.ir.model import Model
from zc.passes.prune.prune import Prune
from zc.pipeline.base import Context, PassResult
from zc.target import Target


@dataclass
class Pruned:
    """A pruned model and what the pass said."""

    model: Model
    result: PassResult

    def shape(self, weight: str) -> tuple[int, ...]:
        return next(tuple(c.shape) for c in self.model.constants() if c.name == weight)

    def reasons(self) -> str:
        return "\n".join(f"{n.where}: {n.what}" for n in self.result.notes if n.kind == "declined")


def fill(text: str) -> Model:
    """The model of a text; what it declares as a value that nothing makes becomes a random weight."""
    proto = onnx.parser.parse_model(text)
    graph = proto.graph
    made = {o for n in graph.node for o in n.output}
    for value in [v for v in graph.value_info if v.name not in made]:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        rng = np.random.default_rng(zlib.crc32(value.name.encode()))
        fan = max(int(np.prod(shape[1:])), 1)
        array = (rng.standard_normal(shape) / np.sqrt(fan) if len(shape) > 1 else rng.uniform(0.5, 1.5, shape)).astype(
            helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        )
        graph.initializer.append(numpy_helper.from_array(array, value.name))
        graph.value_info.remove(value)
    for node in graph.node:
        node.name = node.name or node.output[0]
    onnx.checker.check_model(proto, full_check=True)
    return Model.from_proto(proto)


def run_prune(model: Model, **options: Any) -> Pruned:
    """Prune; the result is valid in full, and its inputs and outputs are as before. (The pass proves equivalence.)"""
    ends = model.inputs, model.outputs
    result = Prune(**options).run(model, Context(target=Target("test")))
    onnx.checker.check_model(model.to_proto(), full_check=True)
    assert (model.inputs, model.outputs) == ends
    if result.changed:
        error = float(result.stats["equivalence_error"])
        assert error <= 1e-5 or any(n.kind == "info" and "but for rounding" in n.what for n in result.notes)
        assert result.stats["params_after"] < result.stats["params_before"]  # type: ignore[operator]
    return Pruned(model, result)


@pytest.fixture
def prune() -> Callable[..., Pruned]:
    return lambda text, **options: run_prune(fill(text), **options)


@pytest.fixture
def prune_model() -> Callable[..., Pruned]:
    return run_prune


@pytest.fixture
def graph() -> Callable[[str], Model]:
    return fill
