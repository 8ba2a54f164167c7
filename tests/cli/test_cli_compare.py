import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zc.ir.model import from_text


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """Two layers, and the same with another second weight."""
    paths = []
    for name, last in (("a.onnx", "1"), ("b.onnx", "1.5")):
        paths.append(tmp_path / name)
        from_text(f"""<ir_version: 8, opset_import: ["" : 17]> g (float[N,2] x) => (float[N,2] y)
            <float[2,2] w = {{1, 2, 3, 4}}, float[2,2] v = {{1, -1, 2, {last}}}>
            {{ h = MatMul (x, w) y = MatMul (h, v) }}""").save(paths[-1])
    return paths


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).standard_normal((8, 2)).astype(np.float32))
    return tmp_path / "data.npz"


def test_the_layer_that_differs_is_named(zc: Callable[..., Any], models: list[Path], data: Path):
    done = zc("compare", *models, "--data", data, "--threshold", 30)
    assert done.code == 0
    table = [line.split() for line in done.out.splitlines()]
    assert [line[0] for line in table[:3]] == ["value", "y", "1"]
    assert "1 values to which their layer adds no error" in done.out
    assert "first bad layer: MatMul 'y': alone" in done.out
    assert "8 rows of" not in done.err


def test_all_values_and_the_worst_first(zc: Callable[..., Any], models: list[Path], data: Path):
    done = zc("compare", *models, "--data", data, "--all", "--sort", "accumulated")
    assert [line.split()[0] for line in done.out.splitlines()[1:3]] == ["y", "h"]
    done = zc("compare", *models, "--data", data, "--all", "--sort", "alone", "--top", 1)
    assert [line.split()[0] for line in done.out.splitlines()[:3]] == ["value", "y", "2"]


def test_json_and_page(zc: Callable[..., Any], models: list[Path], data: Path, tmp_path: Path):
    done = zc("compare", *models, "--data", data, "--json", "--html", tmp_path / "page.html")
    plain = json.loads(done.out)
    assert [v["value"] for v in plain["values"]] == ["h", "y"]
    assert plain["values"][0]["alone_db"] is None  # infinite
    assert plain["biggest_fall"] == "y"
    assert "<svg" in (tmp_path / "page.html").read_text()


def test_a_model_is_not_overwritten_by_the_page(zc: Callable[..., Any], models: list[Path], data: Path):
    before = models[0].read_bytes()
    done = zc("compare", *models, "--data", data, "--html", models[0])
    assert done.code == 2
    assert models[0].read_bytes() == before


def test_models_with_other_inputs_are_one_line(zc: Callable[..., Any], models: list[Path], data: Path):
    from_text("""<ir_version: 8, opset_import: ["" : 17]> g (float[N,2] z) => (float[N,2] y)
        { y = Relu (z) }""").save(models[1])
    done = zc("compare", *models, "--data", data)
    assert (done.code, done.out) == (2, "")
    assert "no input 'x'" in done.err
    assert len(done.err.splitlines()) == 1
