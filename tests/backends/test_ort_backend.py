"""What ONNX Runtime's backends write, say of a session, and predict."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from zc.backends import find_backend
from zc.backends.base import NotHere, deliver
from zc.backends.onnxruntime.ortfile import canonical
from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.model import Model, from_text
from zc.pipeline.base import Context

W = ",".join(f"{v:.3f}" for v in np.random.default_rng(0).standard_normal(144))
FLOAT = f"""<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4,8,8] x) => (float[N,4,6,6] y) <float[4,4,3,3] w = {{{W}}}> {{ c = Conv (x, w) y = Relu (c) }}"""
CODES = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4,8,8] x) => (float[N,4,8,8] y) <float s = {0.5}, KIND z = {0},
    int8[4,4,1,1] w = {1,2,3,4, 5,6,7,8, 1,2,3,4, 5,6,7,8}, float[4] ws = {0.1,0.1,0.1,0.1}, int8[4] wz = {0,0,0,0}> {
    q = QuantizeLinear (x, s, z)
    d = DequantizeLinear (q, s, z)
    wd = DequantizeLinear <axis = 0> (w, ws, wz)
    c = Conv (d, wd)
    p = QuantizeLinear (c, s, z)
    y = DequantizeLinear (p, s, z)
}"""


def named(text: str) -> Model:
    model = from_text(text)
    for node in model.graph.nodes:
        node.name = node.outputs[0].name
    return model


def emit(model: Model, path: Path, target: str = "ort-cpu"):
    backend = find_backend(target)
    return deliver(backend, model, path, Context(backend.target))[0]


@pytest.mark.parametrize("target", ["ort-cpu", "ort-cpu:blocked", "ort-arm"])
def test_an_ort_file_says_what_the_model_says(tmp_path: Path, target: str) -> None:
    path = tmp_path / "m.ort"
    emit(named(FLOAT), path, target)
    x = np.random.default_rng(1).standard_normal((2, 4, 8, 8)).astype(np.float32)
    want = Runner(named(FLOAT)).run({"x": x})["y"]
    np.testing.assert_allclose(Runner(path).run({"x": x})["y"], want, rtol=1e-4, atol=1e-5)


def test_an_ort_file_that_lacks_the_blocks_of_the_kernels_is_told(tmp_path: Path) -> None:
    text = FLOAT.replace("4,8,8", "16,8,8").replace("4,6,6", "16,6,6").replace("[4,4,3,3]", "[16,16,3,3]")
    model = named(text.replace(W, ",".join([W] * 16)))
    notes = {t: emit(model, tmp_path / "m.ort", t).notes for t in ("ort-cpu", "ort-cpu:blocked")}
    assert [(n.kind, n.what[:19]) for n in notes["ort-cpu"]] == [("warning", "1 float convolution")]
    assert notes["ort-cpu:blocked"] == emit(model, tmp_path / "m.onnx").notes == ()


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    model = named(CODES.replace("KIND", "uint8"))
    emit(model, tmp_path / "a.ort")
    command = [sys.executable, "-m", "zc", "emit", tmp_path / "m.onnx", "-o", tmp_path / "b.ort", "--no-bench"]
    model.save(tmp_path / "m.onnx")
    subprocess.run(command, check=True, capture_output=True)  # in another process tables have another order
    assert (tmp_path / "a.ort").read_bytes() == (tmp_path / "b.ort").read_bytes()


@pytest.mark.parametrize("data", [b"", b"ORTM", bytes(64), b"\x10\0\0\0ORTM" + bytes(40)])
def test_a_file_of_another_form_is_left_as_it_is(data: bytes) -> None:
    assert canonical(data) == data


def test_an_ort_file_holds_the_fused_graph(tmp_path: Path) -> None:
    path = tmp_path / "m.ort"
    artifact = emit(named(CODES.replace("KIND", "uint8")), path)
    assert b"QLinearConv" in path.read_bytes()
    assert artifact.facts["layers in integers"] == "1 of 1"
    assert artifact.bytes == path.stat().st_size


def test_signed_codes_want_a_session_that_allows_them(tmp_path: Path) -> None:
    artifact = emit(named(CODES.replace("KIND", "int8")), tmp_path / "m.onnx", "ort-arm")
    assert artifact.facts["session"] == "session.qdqisint8allowed=1"
    assert "add_session_config_entry('session.qdqisint8allowed', '1')" in artifact.notes[0].what
    plain = emit(named(FLOAT), tmp_path / "f.onnx", "ort-arm")
    assert (plain.facts["session"], plain.notes) == ("default", ())


def test_subnormal_weights_want_a_session_that_flushes_them(tmp_path: Path) -> None:
    tiny = FLOAT.replace(W.split(",")[0], "1e-40", 1)
    assert emit(named(tiny), tmp_path / "m.onnx").facts["session"] == "session.set_denormal_as_zero=1"


def test_a_prediction_is_read_from_what_really_runs() -> None:
    found = find_backend("ort-cpu").predict(named(CODES.replace("KIND", "uint8")))
    assert [len(part) for part in (found.integer, found.floats)] == [1, 0]
    found = find_backend("ort-cpu").predict(named(FLOAT))
    assert found.floats == (("c", "runs as FusedConv: its weight is float"),)
    assert len(found.fused) == 1  # Relu and Conv are one node now, called after one of them


def test_an_ort_file_is_no_file_for_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(
        ZcError, match=r"m\.ort: an \.ort holds the graph as the CPU wants it; for ort-cuda write \.onnx"
    ):
        emit(named(FLOAT), tmp_path / "m.ort", "ort-cuda")
    with pytest.raises(NotHere, match="no CUDA provider"):
        find_backend("ort-cuda").engine(tmp_path / "m.onnx")


def test_a_model_that_does_not_open_is_not_written(tmp_path: Path) -> None:
    odd = named(
        '<ir_version: 8, opset_import: ["" : 17, "odd" : 1]> g (float[2] x) => (float[2] y) { y = odd.Thing (x) }'
    )
    for name in ("m.onnx", "m.ort"):
        with pytest.raises(ZcError, match=r"onnxruntime does not run it"):
            emit(odd, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_weights_beyond_what_an_ort_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "nbytes", lambda self: 2**31)
    with pytest.raises(ZcError, match=r"an \.ort file holds 2 GiB; write \.onnx"):
        emit(named(FLOAT), tmp_path / "m.ort")


def test_arm_is_only_arm_on_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    emit(named(FLOAT), path, "ort-arm")
    backend = find_backend("ort-arm")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(NotHere, match="processor is x86_64, not ARM"):
        backend.engine(path)
    assert not backend.here
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert backend.here
    x = np.zeros((1, 4, 8, 8), np.float32)
    np.testing.assert_array_equal(backend.engine(path).run({"x": x})["y"], backend.stand_in(path).run({"x": x})["y"])
