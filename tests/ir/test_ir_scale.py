"""Twenty thousand nodes: what is done to every model is linear."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from zc.ir.check import problems
from zc.ir.edit import sort_nodes
from zc.ir.model import Model, load
from zc.ir.shapes import infer_shapes

Chain = Callable[..., onnx.ModelProto]


def everything(path: Path) -> Model:
    """Load, copy, sort, infer, check and save."""
    model = load(path).copy()
    sort_nodes(model.graph)
    infer_shapes(model)
    assert problems(model) == []
    model.save(path.with_suffix(".out.onnx"))
    return model


@pytest.mark.parametrize("shuffled", [False, True], ids=["sorted", "shuffled"])
def test_a_graph_of_20000_nodes_is_read_and_written(tmp_path: Path, chain: Chain, shuffled: bool) -> None:
    path = tmp_path / "chain.onnx"
    path.write_bytes(chain(20_000, shuffled=shuffled).SerializeToString())
    assert [node.name for node in everything(path).graph.nodes] == [f"n{i}" for i in range(20_000)]


@pytest.mark.parametrize("shuffled", [False, True], ids=["sorted", "shuffled"])
def test_what_every_model_goes_through_is_linear(
    tmp_path: Path, chain: Chain, growth: Callable[..., float], shuffled: bool
) -> None:
    def make(n: int) -> Path:
        path = tmp_path / f"{n}.onnx"
        path.write_bytes(chain(n, shuffled=shuffled).SerializeToString())
        return path

    assert growth(make, everything, 500) < 5


def test_many_bodies_in_a_wide_graph_are_linear(growth: Callable[..., float]) -> None:
    def make(n: int) -> onnx.ModelProto:
        ifs = [
            f"y{i} = If (c) <then_branch = t{i} () => (float[2] p{i}) {{ p{i} = Add (x, w{i}) }},"
            f" else_branch = e{i} () => (float[2] r{i}) {{ r{i} = Identity (x) }}>"
            for i in range(n)
        ]
        weights = ", ".join(f"float[2] w{i} = {{1, 2}}" for i in range(n))
        text = f'<ir_version: 8, opset_import: ["" : 17]> g (bool c, float[2] x) => (float[2] y0) <{weights}> {{'
        return onnx.parser.parse_model(text + "\n".join(ifs) + "}")

    def run(proto: onnx.ModelProto) -> None:
        model = Model.from_proto(proto).copy()
        sort_nodes(model.graph)
        problems(model)

    assert growth(make, run, 100) < 5
