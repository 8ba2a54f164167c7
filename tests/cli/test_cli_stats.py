import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zc.ir.model import from_text

ENCODER = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,S,8] x) => (float[N,S,5] y)
    <float[8,5] w = {VALUES}> {
        y = MatMul (x, w)
    }""".replace("VALUES", ", ".join(["1.0"] * 40))


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    path = tmp_path / "encoder.onnx"
    from_text(ENCODER).save(path)
    return path


def test_stats_of_a_known_model(zc: Callable[..., Any], encoder: Path):
    done = zc("stats", encoder, "--dim", "S=10")
    lines = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert done.code == 0
    assert lines["parameters"] == "40"
    assert lines["MACs"] == "400, batch 1"
    assert lines["weights"] == "160 bytes"
    assert lines["operators"] == "MatMul 1"
    assert done.err == ""


def test_what_cannot_be_counted_is_told_with_the_option_that_helps(zc: Callable[..., Any], encoder: Path):
    done = zc("stats", encoder)
    assert done.code == 0
    assert "not known; 1 layer cannot be counted" in done.out
    assert "--dim S=..." in done.err


def test_layers_are_not_folded_or_cut_in_a_pipe(zc: Callable[..., Any], golden_models: Path):
    done = zc("stats", golden_models / "transformer_block.onnx", "--per-layer")
    head, _, layers = done.out.partition("\n\n")
    lines = layers.splitlines()
    assert lines[0].split() == ["layer", "op", "output", "params", "bytes", "MACs", "share"]
    assert len(lines) > 5
    assert all("…" not in line for line in lines)
    assert "operators" in head


def test_json_holds_every_layer(zc: Callable[..., Any], encoder: Path):
    data = json.loads(zc("stats", encoder, "--dim", "S=3", "--json").out)
    assert (data["params"], data["macs"], data["file_bytes"]) == (40, 120, encoder.stat().st_size)
    assert data["layers"][0]["op"] == "MatMul"
    assert data["layers"][0]["output_shape"] == [1, 3, 5]


@pytest.mark.parametrize("dim", ["S", "S=x", "=3", "T=4", "S=0"])
def test_a_wrong_dimension_is_one_line_and_exit_2(zc: Callable[..., Any], encoder: Path, dim: str):
    done = zc("stats", encoder, "--dim", dim)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("zc: ")


@pytest.mark.parametrize("command", ["stats", "bench"])
def test_a_file_that_is_no_model_is_one_line_and_exit_2(zc: Callable[..., Any], tmp_path: Path, command: str):
    (tmp_path / "junk.onnx").write_bytes(b"\xff\xfejunk")
    for name in ("junk.onnx", "absent.onnx", "."):
        done = zc(command, tmp_path / name)
        assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)


@pytest.mark.parametrize("command", ["stats", "eval", "bench"])
def test_help_shows_examples_a_line_each(zc: Callable[..., Any], command: str):
    lines = [line.strip() for line in zc(command, "--help").out.splitlines()]
    assert "Examples:" in lines
    assert sum(line.startswith(f"zc {command} ") for line in lines) >= 3
