"""Engines are built, run and timed where TensorRT is at hand: with a stand-in for it, which makes its checks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from zc.ir.model import from_text

FAKES = Path(__file__).parent / "fakes"
ROOT = Path(__file__).parents[2]
NET = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,8,8] x) => (float[N,4,8,8] y) <
    float s = {0.5}, int8 z = {0}, int8[4,4,1,1] w = {1,2,3,4, 1,2,3,4, 1,2,3,4, 5,6,7,8}, float[4] ws = {1,1,1,1},
    int8[4] wz = {0,0,0,0}> {
    q = QuantizeLinear (x, s, z)
    d = DequantizeLinear (q, s, z)
    wd = DequantizeLinear <axis = 0> (w, ws, wz)
    y = Conv (d, wd)
}"""
DET = '<ir_version: 8, opset_import: ["" : 17]> g (float[2,2] x) => (float y) { y = Det (x) }'


def zc(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": f"{FAKES}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "zc", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=env)


def save(text: str, path: Path) -> Path:
    from_text(text).save(path)
    return path


def test_the_engine_is_built_and_timed_beside_the_model(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).standard_normal((6, 4, 8, 8)).astype(np.float32))
    save(NET, tmp_path / "net.onnx")
    done = zc("emit", "net.onnx", "-o", "net.trt", "--calib", "data.npz", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)
    assert about["facts"]["engine"].startswith("TensorRT 11.0.0, ")
    assert about["speed"]
    folder = tmp_path / "net.trt"
    assert json.loads((folder / "layers.json").read_text())["form"] == "JSON"
    assert (folder / "timing.cache").read_bytes() == b"+"
    # A second build begins with what the first has timed.
    assert zc("emit", "net.onnx", "-o", "net.trt", "--no-bench", cwd=tmp_path).returncode == 0
    assert (folder / "timing.cache").read_bytes() == b"++"


def test_build_py_builds_it_anywhere(tmp_path: Path) -> None:
    save(NET, tmp_path / "net.onnx")
    assert zc("emit", "net.onnx", "-o", "net.trt", "--no-bench", cwd=tmp_path).returncode == 0
    (tmp_path / "net.trt/model.plan").unlink()
    command = [sys.executable, tmp_path / "net.trt/build.py", "--engine", tmp_path / "net.trt/other.plan"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(FAKES)}
    )
    assert done.returncode == 0, done.stderr
    assert "TensorRT 11.0.0" in done.stdout
    assert (tmp_path / "net.trt/other.plan").is_file()


def test_what_tensorrt_does_not_parse_is_one_line(tmp_path: Path) -> None:
    save(DET, tmp_path / "net.onnx")
    folder = tmp_path / "net.trt"
    folder.mkdir()
    (folder / "model.onnx").write_bytes((tmp_path / "net.onnx").read_bytes())
    settings = {"level": 3, "sparse": False, "profiles": []}
    (folder / "manifest.json").write_text(json.dumps({"tensorrt": settings}))
    code = "import pathlib; from zc.backends.tensorrt.engine import build_engine; build_engine(pathlib.Path('net.trt'))"
    env = os.environ | {"PYTHONPATH": f"{FAKES}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=env
    )
    assert "TensorRT builds no engine: model.onnx is not parsed: In node 0: no importer for Det" in done.stderr
