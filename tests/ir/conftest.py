"""Models at scale, and what it means that two messages say the same."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

Chain = Callable[..., onnx.ModelProto]


@pytest.fixture(scope="session")
def chain() -> Chain:
    """`chain(n, shuffled=False)`: x -> Add -> Mul -> Relu -> Sub -> ... -> y of n nodes on three shared weights."""

    def build(n: int, *, shuffled: bool = False) -> onnx.ModelProto:
        weights = [numpy_helper.from_array(np.full(4, 1 + i / 8, np.float32), f"w{i}") for i in range(4)]
        nodes = []
        for i in range(n):
            op, source = ("Add", "Mul", "Relu", "Sub")[i % 4], f"v{i - 1}" if i else "x"
            inputs = [source] if op == "Relu" else [source, f"w{i % 4}"]
            nodes.append(helper.make_node(op, inputs, ["y" if i == n - 1 else f"v{i}"], f"n{i}"))
        if shuffled:
            random.Random(n).shuffle(nodes)
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
        graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
        return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])

    return build


@pytest.fixture(scope="session")
def normal() -> Callable[..., onnx.ModelProto]:
    """`normal(proto, data=False)`: a copy in which equal bytes mean an equal model.

    What reading changes on purpose is changed here too: the IR version is at least 8, initializers below IR version 4
    are no inputs, `ai.onnx` is written as the empty domain, types of values that no node makes are dropped.
    data: write tensors as raw data, as it happens to those that were touched.
    """

    def normalise(proto: onnx.ModelProto, *, data: bool = False) -> onnx.ModelProto:
        result = onnx.ModelProto()
        result.CopyFrom(proto)
        if result.ir_version < 4:
            listed = {t.name for t in result.graph.initializer}
            kept = [i for i in result.graph.input if i.name not in listed]
            del result.graph.input[:]
            result.graph.input.extend(kept)
        result.ir_version = max(8, result.ir_version)
        for imports in (result.opset_import, *(f.opset_import for f in result.functions)):
            sets = sorted(("" if o.domain == "ai.onnx" else o.domain, o.version) for o in imports)
            del imports[:]
            imports.extend(helper.make_opsetid(d, v) for d, v in sets)
        _graph(result.graph, data)
        for function in result.functions:
            _nodes(function.node, data)
            _value_infos(function, {n for node in function.node for n in node.output} | set(function.input))
        _drop_defaults(result)
        return result

    return normalise


def _graph(graph: onnx.GraphProto, data: bool) -> None:
    _nodes(graph.node, data)
    ends = {v.name for v in (*graph.input, *graph.output)}
    _value_infos(graph, {n for node in graph.node for n in node.output} - ends)
    if data:
        for tensor in graph.initializer:
            _raw(tensor)


def _nodes(nodes: Any, data: bool) -> None:
    for node in nodes:
        if node.domain == "ai.onnx":
            node.domain = ""
        for attr in node.attribute:
            for body in (*([attr.g] if attr.type == AttributeProto.GRAPH else []), *attr.graphs):
                _graph(body, data)
            if data and attr.type == AttributeProto.TENSOR:
                _raw(attr.t)


def _value_infos(owner: Any, told: set[str]) -> None:
    kept = {v.name: v for v in owner.value_info if v.name in told and v.HasField("type")}
    infos = [kept[name] for name in sorted(kept)]
    del owner.value_info[:]
    owner.value_info.extend(infos)


def _raw(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.STRING or tensor.HasField("raw_data"):
        return
    raw = numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data
    for field in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(field)  # type: ignore[arg-type]
    tensor.raw_data = raw


def _drop_defaults(message: Any) -> None:
    """A field that is set to nothing and one that is not set say the same, but for values and sizes."""
    for field, value in message.ListFields():
        if hasattr(value, "ListFields"):
            _drop_defaults(value)
        elif hasattr(value, "add"):
            for one in value:
                _drop_defaults(one)
        elif value in ("", 0) and field.name not in ("f", "i", "s", "dim_value", "elem_type", "raw_data"):
            message.ClearField(field.name)
