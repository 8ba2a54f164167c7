import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from zc.ir.model import Model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Three layers on 6x6 images, 4 classes."""
    rng = np.random.default_rng(0)
    sizes = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (4, 8, 6, 6)}
    weights = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in sizes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], "first", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "w2"], ["c"], "second", pads=[1] * 4),
        helper.make_node("Conv", ["c", "w3"], ["d"], "third"),
        helper.make_node("Flatten", ["d"], ["y"], "flat"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", *s]) for n, s in (("x", [3, 6, 6]), ("y", [4]))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    Model.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])).save(tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "d.npz", x=rng.standard_normal((96, 3, 6, 6)).astype(np.float32), y=rng.integers(0, 4, 96))
    return tmp_path / "d.npz"


def test_layers_are_ranked_and_the_worst_left_in_float(zc: Callable[..., Any], model: Path, data: Path):
    done = zc("sensitivity", model, "--calib", data)
    assert done.code == 0
    lines = [line.split() for line in done.out.splitlines()]
    assert {line[0] for line in lines[1:4]} == {"first", "second", "third"}
    assert [line[0] for line in lines[6:9]] == ["none", "1", "2"]
    assert "3 layers in integers" in done.out
    assert "rows 77:96" in done.out


def test_a_metric_of_the_models_with_layers_in_float(zc: Callable[..., Any], model: Path, data: Path):
    args = ("--eval", data, "--metric", "agree", "--floats", 2, "--json")
    plain = json.loads(zc("sensitivity", model, "--calib", data, *args).out)
    assert plain["float_score"] == 100
    assert [step["floats"] for step in plain["steps"]] == [0, 1, 2]
    assert all(50 < step["score"] <= 100 for step in plain["steps"])
    assert plain["ranking"][0]["noise"] >= plain["ranking"][-1]["noise"] > 0


def test_only_the_ranking_and_options_of_the_pass(zc: Callable[..., Any], model: Path, data: Path):
    text = "quantize:method=minmax:skip=second"
    done = zc("sensitivity", model, "--calib", data, "--floats", 0, "--top", 1, "--quantize", text)
    assert len(done.out.splitlines()) == 3
    assert "2 layers in integers" in done.out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--quantize", "clean"], "give the pass quantize"),
        (["--quantize", "quantize,quantize"], "give the pass quantize"),
        (["--quantize", "quantize:skip=*"], "nothing to quantise"),
        (["--label-offset", "1"], "--eval DATA is not given"),
    ],
)
def test_what_is_wrong_is_said(zc: Callable[..., Any], model: Path, data: Path, args: list[str], words: str):
    done = zc("sensitivity", model, "--calib", data, *args)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
