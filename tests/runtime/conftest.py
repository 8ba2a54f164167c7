"""Quantised models of one operator, and the comparison with onnxruntime."""

from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from zc.execute import Runner
from zc.ir.model import Model
from zc.runtime import Session
from zc.runtime.reference import session_options

F32 = np.float32
Coding = tuple[float, int]


class Qdq:
    """Builds DQ -> op -> Q on codes that are inputs of the model, so that every code can be fed and seen."""

    def __init__(self, codes: type = np.uint8) -> None:
        self.codes, self.opset = codes, 17
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    @property
    def kind(self) -> int:
        return TensorProto.UINT8 if self.codes is np.uint8 else TensorProto.INT8

    def constant(self, name: str, values: Any) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def parameters(self, name: str, coding: Coding) -> list[str]:
        zero = coding[1] - (128 if self.codes is np.int8 else 0)
        return [self.constant(f"{name}_s", F32(coding[0])), self.constant(f"{name}_z", self.codes(zero))]

    def input(self, name: str, shape: Sequence[Any], coding: Coding) -> str:
        self.inputs.append(helper.make_tensor_value_info(f"{name}_q", self.kind, shape))
        self.nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", *self.parameters(name, coding)], [name]))
        return name

    def weight(self, name: str, codes: np.ndarray, scale: np.ndarray, zero: np.ndarray, axis: int) -> str:
        parts = [self.constant(f"{name}_q", codes), self.constant(f"{name}_s", scale), self.constant(f"{name}_z", zero)]
        self.nodes.append(helper.make_node("DequantizeLinear", parts, [name], axis=axis))
        return name

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def output(self, name: str, coding: Coding) -> None:
        self.nodes.append(
            helper.make_node("QuantizeLinear", [name, *self.parameters(f"{name}_y", coding)], [f"{name}_c"])
        )
        self.outputs.append(helper.make_tensor_value_info(f"{name}_c", self.kind, None))

    def model(self) -> Model:
        graph = helper.make_graph(self.nodes, "g", self.inputs, self.outputs, self.initializers)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return Model.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=9))


@pytest.fixture(scope="session")
def qdq() -> type[Qdq]:
    return Qdq


def _agree(model: Model, feeds: dict[str, np.ndarray], threads: int = 1, islands: int = 0) -> list[np.ndarray]:
    session = Session(model, threads=threads)
    assert len(session.float_nodes) == islands, session.float_nodes
    want = Runner(model, threads=1, config=session_options(signed=session.signed)).run(feeds)
    with patch.multiple("zc.runtime.plan", LEAST_WORK=1, LEAST_SHARED=0):  # threads share every step, however small
        got = session.run(None, feeds)
    for array, name in zip(got, want, strict=True):
        assert array.dtype == want[name].dtype
        assert array.shape == want[name].shape
        assert int((array != want[name]).sum()) == 0
    return got


@pytest.fixture(scope="session")
def agree() -> Callable[..., list[np.ndarray]]:
    """`agree(model, feeds)`: our session gives onnxruntime's codes, every one; the outputs."""
    return _agree
