"""zc emit, zc check, zc targets, zc parity, and what --target and the ending of -o do in zc opt."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from zc.execute import Runner
from zc.ir.model import from_text, load

NET = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,16,6,6] x) => (float[N,8] y) <float[16,16,1,1] w, float[8,16] u> {
    c = Conv (x, w)
    r = Relu (c)
    p = GlobalAveragePool (r)
    f = Flatten (p)
    y = Gemm <transB = 1> (f, u)
}"""
WEIGHTS = {"w": (16, 16, 1, 1), "u": (8, 16)}


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A small classifier in a file."""
    rng = np.random.default_rng(0)
    text = NET
    for name, shape in WEIGHTS.items():
        values = ", ".join(f"{v:.4f}" for v in rng.standard_normal(shape).ravel() / 4)
        text = text.replace(f" {name}, ", f" {name} = {{{values}}}, ").replace(f" {name}>", f" {name} = {{{values}}}>")
    model = from_text(text)
    for node in model.graph.nodes:
        node.name = node.outputs[0].name
    model.save(tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Rows with labels: what the float model says of them, mostly."""
    rng = np.random.default_rng(1)
    path = tmp_path / "rows.npz"
    np.savez(path, x=rng.standard_normal((64, 16, 6, 6)).astype(np.float32), y=rng.integers(0, 8, 64))
    return path


PLAIN = "quantize:method=minmax:rounding=nearest:equalize=false:guard=false:float_if_faster=false"


def test_an_ort_file_computes_what_the_model_does(zc, net: Path, data: Path, tmp_path: Path) -> None:
    done = zc("emit", net, "-o", tmp_path / "net.ort")
    assert done.code == 0, done.err
    assert "net.ort: ort-cpu" in done.out
    x = np.load(data)["x"]
    want, got = (Runner(path).run({"x": x})["y"] for path in (net, tmp_path / "net.ort"))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_opt_writes_what_the_ending_implies(zc, net: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.trt"
    done = zc("opt", net, "-p", PLAIN, "--calib", data, "-o", out)
    assert done.code == 0, done.err
    model = load(out / "model.onnx")
    assert {n.inputs[2].values.dtype.name for n in model.nodes("QuantizeLinear")} == {"int8"}
    assert json.loads((out / "manifest.json").read_text())["model"]["zc.target"] == "tensorrt"


def test_what_a_target_did_is_made_again_too(zc, net: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.trt"
    done = zc("opt", net, "-p", PLAIN, "--calib", data, "--target", "tensorrt:rest=float16", "-o", out)
    assert done.code == 0, done.err
    again = zc("replay", out / "model.onnx", "--source", net, "--calib", data)
    assert (again.code, "the same again" in again.out) == (0, True), again.err


def test_opt_for_a_target_may_write_the_model_alone(zc, net: Path, data: Path, tmp_path: Path) -> None:
    done = zc("opt", net, "-p", PLAIN, "--calib", data, "--target", "tensorrt", "-o", tmp_path / "q.onnx")
    assert done.code == 0, done.err
    assert zc("check", tmp_path / "q.onnx", "--target", "tensorrt").code == 0
    other = zc("check", tmp_path / "q.onnx", "--target", "ort-cpu")
    assert (other.code, "activations-uint8" in other.out) == (0, True)


def test_options_of_a_target_count_for_the_model_alone_too(zc, net: Path, data: Path, tmp_path: Path) -> None:
    words = ("--calib", data, "--target", "tensorrt:rest=float16", "-o", tmp_path / "q.onnx")
    done = zc("opt", net, "-p", PLAIN, *words)
    assert done.code == 0, done.err
    assert {t.dtype.name for n in load(tmp_path / "q.onnx").nodes("Conv") for t in n.inputs} == {"float16"}


def test_check_says_what_is_wrong_where_and_what_mends_it(zc, net: Path, data: Path, tmp_path: Path) -> None:
    zc("opt", net, "-p", PLAIN, "--calib", data, "-o", tmp_path / "q.onnx")
    done = zc("check", tmp_path / "q.onnx", "--target", "tensorrt")
    assert done.code == 1
    assert "no-uint8" in done.out
    assert "x_QuantizeLinear" in done.out
    assert "bias-in-float" in done.out
    found = json.loads(zc("check", tmp_path / "q.onnx", "--target", "tensorrt", "--json").out)
    first = found["violations"][0]
    assert {"rule", "node", "what", "source", "fix", "severity"} == set(first)


def test_check_predicts_what_stays_float(zc, net: Path, data: Path, tmp_path: Path) -> None:
    zc("opt", net, "-p", f"{PLAIN}:skip=y", "--calib", data, "-o", tmp_path / "q.onnx")
    done = zc("check", tmp_path / "q.onnx")
    assert "1 in float" in done.out
    assert "float  y: runs as Gemm: its weight is float" in done.out


def test_targets_are_listed_and_explained(zc) -> None:
    listed = zc("targets").out
    assert [name in listed for name in ("ort-cpu", "ort-arm", "ort-cuda", "tensorrt", "tflite")] == [True] * 5
    one = zc("targets", "tensorrt").out
    assert "activations: int8, zero point 0" in one
    assert "rest  float32|float16|bfloat16 (default float32)" in one
    assert "bias-in-float (error)" in one


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-o", "net.trt", "--target", "ort-cpu"), r".trt is what target tensorrt writes; for ort-cpu name it .onnx"),
        (("-o", "net.txt"), "the name must end in .onnx or .ort for target ort-cpu"),
        (("-o", "net.ort", "--target", "tensorrtt"), "unknown target 'tensorrtt' (did you mean 'tensorrt'?)"),
        (("-o", "no/net.ort"), "there is no folder"),
        (("-o", "net.ort", "--shape", "x=1,16,6"), "a shape of 3 numbers does not fit it"),
        (("-o", "net.ort", "--shape", "x=1,8,6,6"), "8 does not fit where it has 16"),
        (("-o", "net.ort", "--shape", "z=1"), "has no input 'z'"),
        (("-o", "net.ort", "--shape", "x=1,a"), "expected INPUT=SIZES"),
        (("-o", "net.ort", "--prep", "unit"), "--calib DATA is not given"),
        (("-o", "net.onnx"), "is the input itself"),
        (("-o", "net.trt", "--target", "tensorrt:dims=Z/1/2/3"), "no dimension 'Z'"),
        (("-o", "net.trt", "--target", "tensorrt:rest=int8"), "takes float32|float16|bfloat16, not 'int8'"),
    ],
)
def test_a_wrong_order_is_one_line_and_nothing_is_written(
    zc, net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    done = zc("emit", "net.onnx", *words)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_fixed_shape_is_fixed_throughout(zc, net: Path, tmp_path: Path) -> None:
    zc("emit", net, "-o", tmp_path / "one.onnx", "--shape", "x=2,16,6,6")
    model = load(tmp_path / "one.onnx")
    assert [s.shape for s in (*model.inputs, *model.outputs)] == [(2, 16, 6, 6), (2, 8)]


def test_a_float_model_in_text_is_refused_by_a_place_before_it_is_written(zc, tmp_path: Path) -> None:
    from_text('<ir_version: 8, opset_import: ["" : 17]> g (float[4] x) => (float[U] y) { y = Unique (x) }').save(
        tmp_path / "u.onnx"
    )
    done = zc("emit", tmp_path / "u.onnx", "-o", tmp_path / "u.trt")
    assert done.code == 2
    assert "supported-operators: " in done.err
    assert not (tmp_path / "u.trt").exists()


def test_parity_is_one_table(zc, net: Path, data: Path, tmp_path: Path) -> None:
    words = ("--targets", "ort-cpu,tensorrt", "-p", PLAIN, "--keep", tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    done = zc("parity", net, "--data", data, *words)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines] == ["target", "float", "ort-cpu", "tensorrt"]
    assert " here " in lines[2]
    assert " predicted " in lines[3]
    assert {p.name for p in (tmp_path / "kept").iterdir()} == {"net-ort-cpu.onnx", "net-tensorrt.trt"}
    found = json.loads(zc("parity", net, "--data", data, *words, "--json").out)["places"]
    assert found[0]["latency"]["ratio"] == 1
    assert found[2]["latency"] is None  # its time here says nothing of TensorRT
    assert found[2]["steps"]["equal"] > 0.99
    assert found[1]["agreement"] > 80


def test_parity_shows_no_difference_from_an_infinite_figure(zc, net: Path, data: Path) -> None:
    done = zc("parity", net, "--data", data, "--targets", "ort-cpu", "-p", PLAIN, "--metric", "sqnr")
    assert (done.code, "-inf" in done.out) == (0, False), done.err


def test_parity_tells_what_cannot_be_made(zc, data: Path, tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,16,6,6] x) => (float[U] y) { y = Unique (x) }'
    from_text(text).save(tmp_path / "u.onnx")
    done = zc("parity", tmp_path / "u.onnx", "--targets", "tensorrt", "--data", data, "--metric", "mae", "-p", "clean")
    assert "tensorrt: u.onnx: supported-operators" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--targets", "ort-cpu,ort-x"), "unknown target 'ort-x'"),
        (("--keep", "nowhere"), "--keep nowhere: there is no such folder"),
        (("--rows", ":1"), "too few to calibrate and to compare"),
    ],
)
def test_parity_refuses_in_one_line(zc, net: Path, data: Path, words: tuple[str, ...], message: str) -> None:
    done = zc("parity", net, "--data", data, *words)
    assert (done.code, message in done.err) == (2, True)


def test_a_package_that_is_missing_is_named_before_any_work(
    zc, net: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.schema_py_generated", None)
    done = zc("opt", net, "-p", "quantize", "--calib", data, "-o", tmp_path / "net.tflite")
    assert done.code == 2
    assert done.err == "zc: TFLite files need the package ai-edge-litert; install zc[tflite]\n"
