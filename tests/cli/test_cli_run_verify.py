import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zc.execute import Runner
from zc.ir.model import from_text, load

QUANTISED = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,4] x) => (float[N,4] y) <float s = {0.1}, uint8 z = {128}> {
        q = QuantizeLinear (x, s, z)
        d = DequantizeLinear (q, s, z)
        a = Add (d, d)
        b = QuantizeLinear (a, s, z)
        y = DequantizeLinear (b, s, z)
    }"""
FLOAT = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "int8.onnx"
    from_text(QUANTISED).save(path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(0).standard_normal((70, 4)).astype(np.float32))
    return path


@pytest.mark.parametrize("engine", ["reference", "ort"])
def test_run_writes_all_rows(zc: Callable[..., Any], model: Path, data: Path, tmp_path: Path, engine: str) -> None:
    out = tmp_path / "out.npz"
    done = zc("run", model, "--data", data, "-o", out, "--engine", engine, "--batch", 32)
    assert done.code == 0
    want = Runner(load(model)).run({"x": np.load(data)["x"]})["y"]
    np.testing.assert_array_equal(np.load(out)["y"], want)
    assert done.out.splitlines()[1].split()[:3] == ["y", "float32", "70x4"]


def test_run_refuses_a_float_model_and_writes_nothing(zc: Callable[..., Any], data: Path, tmp_path: Path) -> None:
    from_text(FLOAT).save(tmp_path / "float.onnx")
    done = zc("run", tmp_path / "float.onnx", "--data", data, "-o", tmp_path / "out.npz")
    assert done.code == 2
    assert "not quantised" in done.err
    assert "-p quantize" in done.err
    assert not (tmp_path / "out.npz").exists()


def test_run_takes_only_npz(zc: Callable[..., Any], model: Path, data: Path) -> None:
    assert "written as .npz" in zc("run", model, "--data", data, "-o", "out.bin").err


def test_verify_equal(zc: Callable[..., Any], model: Path, data: Path) -> None:
    done = zc("verify", model, "--data", data, "--json")
    assert done.code == 0
    verdict = json.loads(done.out)
    assert (verdict["rows"], verdict["differing"], verdict["first"]) == (70, 0, None)
    assert verdict["compared"] == 70 * 4 * 3  # q, b and y


def test_verify_names_the_first_difference(
    zc: Callable[..., Any], model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zc.kernels import rules

    right = rules.add_terms

    def wrong(*args: Any) -> tuple[np.float32, np.float32, np.float32]:
        ra, rb, fixed = right(*args)
        return ra, rb, np.float32(fixed + np.float32(1))

    monkeypatch.setattr(rules, "add_terms", wrong)
    done = zc("verify", model, "--data", data, "--rows", ":8")
    assert done.code == 1
    assert "of 'b' (Add 'Add -> a') differ from onnxruntime's" in done.err
    lines = dict(line.split("  ", 1) for line in done.out.splitlines() if "  " in line)
    assert lines["steps"].strip().startswith("+1: ")


def test_run_in_another_mode(zc: Callable[..., Any], model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    assert zc("run", model, "--data", data, "-o", out, "--mode", "tflite-double").code == 0
    x = np.load(data)["x"].astype(np.float64)
    codes = np.clip(np.trunc(x / np.float32(0.1) + np.copysign(0.5, x)), -128, 127)  # halves away from zero
    np.testing.assert_allclose(np.load(out)["y"], np.clip(2 * codes, -128, 127) * 0.1, rtol=1e-6)


def test_modes_are_of_our_kernels(zc: Callable[..., Any], model: Path, data: Path) -> None:
    done = zc("run", model, "--data", data, "--engine", "ort", "--mode", "tflite-single")
    assert done.code == 2
    assert "--strict and --mode are for the reference engine" in done.err


def test_verify_against_litert(zc: Callable[..., Any], model: Path, data: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="no package ai-edge-litert (zc[tflite])")
    done = zc("verify", model, "--data", data, "--mode", "tflite-double", "--json")
    assert done.code == 0
    verdict = json.loads(done.out)
    assert (verdict["mode"], verdict["against"], verdict["differing"]) == ("tflite-double", "litert", 0)


def test_verify_shows_how_far_modes_are_apart(zc: Callable[..., Any], tmp_path: Path) -> None:
    from_text(QUANTISED.replace("float s = {0.1}", "float s = {0.5}")).save(tmp_path / "half.onnx")
    np.savez(tmp_path / "x.npz", x=np.array([[0.25, -0.25, 0.75, 0.3]], np.float32))  # ties, but for the last
    done = zc(
        "verify",
        tmp_path / "half.onnx",
        "--data",
        tmp_path / "x.npz",
        "--mode",
        "tflite-double",
        "--against",
        "ort",
        "--json",
    )
    assert done.code == 1
    first = json.loads(done.out)["first"]
    assert (first["value"], first["steps"]) == ("q", {"-1": 1, "1": 1})
