"""The folder that TensorRT engines are built from."""

import hashlib
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from zc.backends import find_backend
from zc.backends.base import NotHere, deliver
from zc.backends.folder import read_manifest
from zc.backends.tensorrt.sparsity import is_sparse
from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.model import Model, from_text, load
from zc.pipeline.base import Context

NET = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4,8,8] x) => (float[N,4,8,8] y) <
    float s = {0.5}, int8 z = {0}, int8[4,4,1,1] w = {1,2,0,0, 0,0,7,8, 1,0,3,0, 5,0,0,8},
    float[4] ws = {0.25,0.5,0.5,0.5}, int8[4] wz = {0,0,0,0}, float[4] b = {1,2,3,4}> {
    q = QuantizeLinear (x, s, z)
    d = DequantizeLinear (q, s, z)
    wd = DequantizeLinear <axis = 0> (w, ws, wz)
    c = Conv (d, wd, b)
    y = Relu (c)
}"""


def net(text: str = NET) -> Model:
    return from_text(text)


def emit(model: Model, path: Path, text: str = "tensorrt"):
    backend = find_backend(text)
    return deliver(backend, model, path, Context(backend.target))[0]


def test_the_folder_holds_what_builds_an_engine(tmp_path: Path) -> None:
    out = tmp_path / "net.trt"
    emit(net(), out)
    names = {"model.onnx", "build-10.sh", "build-11.sh", "build.py", "manifest.json"}
    assert {p.name for p in out.iterdir()} == names
    about = json.loads((out / "manifest.json").read_text())
    for name, one in about["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == one["sha256"]
    assert set(about["files"]) == names - {"manifest.json"}
    assert about["tensorrt"]["profiles"][0]["largest"] == [32, 4, 8, 8]


def test_the_same_model_gives_the_same_folder(tmp_path: Path) -> None:
    for name in ("a.trt", "b.trt"):
        emit(net(), tmp_path / name)
    assert (tmp_path / "a.trt/manifest.json").read_bytes() == (tmp_path / "b.trt/manifest.json").read_bytes()


def test_trtexec_is_told_the_profile_and_keeps_what_it_timed(tmp_path: Path) -> None:
    out = tmp_path / "net.trt"
    emit(net(), out, "tensorrt:dims=N/2/4/16:level=5")
    old, new = ((out / f"build-{major}.sh").read_text() for major in (10, 11))
    for text in (old, new):
        assert "--minShapes=x:2x4x8x8" in text
        assert "--optShapes=x:4x4x8x8" in text
        assert "--maxShapes=x:16x4x8x8" in text
        assert "--timingCacheFile=timing.cache" in text
        assert "--exportLayerInfo=layers.json" in text
        assert "--builderOptimizationLevel=5" in text
        assert not any(flag in text for flag in ("--int8", "--fp16", "--best"))
    assert "--stronglyTyped" in old
    assert "--stronglyTyped" not in new


@pytest.mark.parametrize("major", [10, 11])
def test_the_scripts_are_shell(tmp_path: Path, major: int) -> None:
    out = tmp_path / "a folder.trt"
    emit(net(), out)
    subprocess.run(["sh", "-n", out / f"build-{major}.sh"], check=True)
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "trtexec").write_text('#!/bin/sh\nprintf "%s\\n" "$PWD" "$@"\n')
    (fake / "trtexec").chmod(0o755)
    path = {"PATH": f"{fake}:/usr/bin:/bin"}
    done = subprocess.run(
        [out / f"build-{major}.sh", "--verbose"], capture_output=True, text=True, check=True, env=path
    )
    lines = done.stdout.splitlines()
    assert Path(lines[0]) == out
    assert lines[1] == "--onnx=model.onnx"
    assert lines[-1] == "--verbose"


def test_the_python_script_says_what_it_lacks(tmp_path: Path) -> None:
    out = tmp_path / "net.trt"
    emit(net(), out)
    done = subprocess.run([sys.executable, "-I", out / "build.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "build: No module named 'tensorrt'\n"


def test_a_folder_of_ours_is_replaced_and_another_is_not(tmp_path: Path) -> None:
    out = tmp_path / "net.trt"
    emit(net(), out)
    emit(net(), out, "tensorrt:calibration")
    assert (out / "calibration.cache").is_file()
    other = tmp_path / "mine.trt"
    other.mkdir()
    (other / "thesis.txt").write_text("all of it")
    with pytest.raises(ZcError, match=r"mine\.trt: is a folder that zc did not write"):
        emit(net(), other)
    assert [p.name for p in other.iterdir()] == ["thesis.txt"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.trt", "net.trt"]


def test_what_was_timed_outlives_a_new_model_and_the_old_engine_does_not(tmp_path: Path) -> None:
    out = tmp_path / "net.trt"
    emit(net(), out)
    for name in ("timing.cache", "model.plan", "layers.json"):
        (out / name).write_text(name)
    emit(net(), out)
    assert (out / "timing.cache").read_text() == "timing.cache"
    assert not (out / "model.plan").exists()


def test_what_somebody_put_into_the_folder_is_not_lost(tmp_path: Path) -> None:
    out = tmp_path / "net.trt"
    emit(net(), out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ZcError, match=r"net\.trt: holds 'notes\.txt', which zc did not write"):
        emit(net(), out)
    assert (out / "notes.txt").read_text() == "mine"


def test_a_failure_leaves_the_folder_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "net.trt"
    emit(net(), out)
    before = (out / "manifest.json").read_bytes()

    def full(model: Model, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Model, "save", full)
    with pytest.raises(ZcError, match=r"net\.trt: cannot be written: No space left"):
        emit(net(), out, "tensorrt:level=1")
    assert (out / "manifest.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net.trt"]


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    out = tmp_path / "net.trt"
    emit(net(), out)
    assert read_manifest(out)["target"] == "tensorrt"
    (out / "model.onnx").write_bytes(b"")
    with pytest.raises(ZcError, match=r"model\.onnx: is not as it was written"):
        read_manifest(out)


def test_the_calibration_cache_holds_big_endian_scales(tmp_path: Path) -> None:
    out = tmp_path / "net.trt"
    emit(net(), out, "tensorrt:calibration")
    lines = (out / "calibration.cache").read_text().splitlines()
    assert lines == ["TRT-100900-EntropyCalibration2", f"x: {struct.pack('>f', 0.5).hex()}"]


def test_a_float_model_has_no_calibration_cache(tmp_path: Path) -> None:
    model = net('<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Relu (x) }')
    with pytest.raises(ZcError, match="has no scales"):
        emit(model, tmp_path / "net.trt", "tensorrt:calibration")
    assert list(tmp_path.iterdir()) == []


DYNAMIC = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,S] x, float[N,?] v) => (float[N,S] y) { y = Add (x, v) }'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tensorrt", r"input 'x' leaves dimension 'S' open; give its sizes with --target tensorrt:dims=S/LEAST"),
        ("tensorrt:dims=S/1/2/4", r"input 'v' leaves dimension 'v\.1' open"),
        ("tensorrt:dims=S/1/2/4+v.1/1/1/1+T/1/2/3", r"no dimension 'T'.* its open dimensions are N, S, v\.1"),
        ("tensorrt:dims=S/4/2/1", "the sizes must rise"),
        ("tensorrt:dims=S/1", "expected NAME/LEAST/USUAL/LARGEST"),
        ("tensorrt:level=9", "level is 9; give 0 to 5"),
    ],
)
def test_open_dimensions_want_sizes(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ZcError, match=message):
        emit(net(DYNAMIC), tmp_path / "net.trt", text)
    assert list(tmp_path.iterdir()) == []


def test_open_dimensions_are_refused_before_the_passes_run(tmp_path: Path) -> None:
    with pytest.raises(ZcError, match="input 'x' leaves dimension 'S' open"):
        find_backend("tensorrt").foresee(net(DYNAMIC), tmp_path / "net.trt")
    find_backend("tensorrt").foresee(net(DYNAMIC), tmp_path / "net.onnx")


def test_a_dimension_without_a_name_is_called_after_its_input(tmp_path: Path) -> None:
    emit(net(DYNAMIC), tmp_path / "net.trt", "tensorrt:dims=S/1/2/4+v.1/1/2/4")
    profiles = read_manifest(tmp_path / "net.trt")["tensorrt"]["profiles"]
    assert [p["usual"] for p in profiles] == [[8, 2], [8, 2]]


def test_uint8_codes_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ZcError, match=r"no-uint8: .*: its codes are uint8 .*--target tensorrt"):
        emit(net(NET.replace("int8 z = {0}", "uint8 z = {0}")), tmp_path / "net.trt")
    assert list(tmp_path.iterdir()) == []


def test_without_tensorrt_the_engine_is_not_here_but_its_numbers_are(tmp_path: Path) -> None:
    out = tmp_path / "net.trt"
    artifact = emit(net(), out)
    assert any("tensorrt is not installed" in note.what for note in artifact.notes)
    backend = find_backend("tensorrt")
    with pytest.raises(NotHere, match="tensorrt is not installed"):
        backend.engine(out)
    x = np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)
    want = Runner(net(), level="off").run({"x": x})["y"]
    np.testing.assert_array_equal(backend.stand_in(out).run({"x": x})["y"], want)


@pytest.mark.parametrize(("rest", "name"), [("float16", "float16"), ("bfloat16", "bfloat16")])
def test_the_rest_may_be_half_precision(tmp_path: Path, rest: str, name: str) -> None:
    out = tmp_path / "net.trt"
    emit(net(), out, f"tensorrt:rest={rest}")
    model = load(out / "model.onnx")
    conv = next(n for n in model.graph.nodes if n.op == "Conv")
    assert {t.dtype.name for t in conv.inputs} == {name}
    assert {s.dtype.name for s in (*model.inputs, *model.outputs)} == {"float32"}
    kinds = {n.inputs[1].dtype.name for n in model.graph.nodes if n.op == "DequantizeLinear"}
    assert kinds == {name}  # the type of a scale is that of what DequantizeLinear puts out


def test_two_of_four_weights_are_noticed(tmp_path: Path) -> None:
    emit(net(), tmp_path / "net.trt")
    assert read_manifest(tmp_path / "net.trt")["tensorrt"]["sparse"] is True
    assert "--sparsity=enable" in (tmp_path / "net.trt/build-11.sh").read_text()
    assert is_sparse(np.array([[0, 1, 2, 0, 5]]))
    assert not is_sparse(np.array([[0, 1, 2, 3]]))
