import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zc.ir.model import from_text

MODEL = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,S] x) => (float[N,S] y) { y = Relu (x) }'
QUANTISED = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,S] x) => (float[N,S] y) <float s = {0.1}, uint8 z = {128}> {
        a = Sin (x)
        q = QuantizeLinear (a, s, z)
        d = DequantizeLinear (q, s, z)
        b = Sin (d)
        y = Sin (b)
    }"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    from_text(MODEL).save(path)
    return path


def test_a_table_with_ratios(zc: Callable[..., Any], model: Path):
    done = zc("bench", model, model, "--repeats", 5, "--batch", 2)
    lines = done.out.splitlines()
    assert done.code == 0
    assert lines[0].split() == ["model", "median", "ms", "quartiles", "ratio", "quartiles"]
    assert lines[1].split()[3] == "1.000"
    assert lines[3].startswith("batch 2, 1 thread, processor time, 5 turns; SYNTHETIC")


def test_one_model_has_no_ratio(zc: Callable[..., Any], model: Path):
    assert "ratio" not in zc("bench", model, "--repeats", 5).out


def test_json(zc: Callable[..., Any], model: Path):
    done = zc("bench", model, "--repeats", 5, "--dim", "S=3", "--threads", 2, "--json")
    (latency,) = json.loads(done.out)["latency"]
    assert latency["threads"] == 2
    assert latency["ms"] == latency["wall_ms"] > 0


def test_real_samples_fill_whole_batches(zc: Callable[..., Any], model: Path, tmp_path: Path):
    np.save(tmp_path / "x.npy", np.ones((5, 3), np.float32))
    done = zc("bench", model, "--data", tmp_path / "x.npy", "--batch", 2, "--repeats", 5)
    assert "batch 2" in done.out
    assert "x.npy rows 0:4" in done.out
    done = zc("bench", model, "--data", tmp_path / "x.npy", "--batch", 6, "--repeats", 5)
    assert done.code == 2
    assert "5 rows do not fill a batch of 6" in done.err


def test_a_quantised_model_that_is_slower_is_warned_of_with_a_cause(
    zc: Callable[..., Any], model: Path, tmp_path: Path
):
    from_text(QUANTISED).save(tmp_path / "int8.onnx")
    done = zc("bench", model, tmp_path / "int8.onnx", "--repeats", 15, "--dim", "S=20000")
    assert "warning: int8.onnx is quantised and slower than model.onnx" in done.err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--rows", "0:3"], "--data DATA is not given"),
        (["--data", "x.npy", "--dim", "S=3"], "--dim is for synthetic"),
        (["--dim", "S"], "NAME=SIZE"),
        (["--dim", "T=3"], "not a size of an open dimension"),
        (["--dim", "N=3"], "see --batch"),
        (["--threads", "0"], "--threads"),
    ],
)
def test_options_that_do_not_go_together_are_exit_2(zc: Callable[..., Any], model: Path, args: list[str], words: str):
    done = zc("bench", model, *args)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
