"""`zc print` and `zc diff` from the outside."""

import json
from pathlib import Path

import numpy as np
import pytest

from zc.ir.model import load
from zc.ir.text import parse_text, print_model


@pytest.fixture
def digits(golden_models: Path) -> Path:
    return golden_models / "digits_cnn.onnx"


@pytest.fixture
def changed(digits: Path, tmp_path: Path) -> Path:
    """The model with one weight doubled."""
    model = load(digits)
    weight = next(c for c in model.constants() if len(c.shape) == 4)
    weight.values = weight.values * np.float32(2)
    model.save(tmp_path / "changed.onnx")
    return tmp_path / "changed.onnx"


def test_print_shows_every_value_with_its_type(zc, digits) -> None:
    done = zc("print", digits)
    assert (done.code, done.err) == (0, "")
    model = parse_text(done.out, hashed=True)
    assert all(t.dtype is not None and t.shape is not None for n in model.graph.nodes for t in n.outputs)


def test_print_full_reads_back(zc, digits, tmp_path) -> None:
    assert zc("print", digits, "--weights", "full", "-o", tmp_path / "m.txt").code == 0
    back = parse_text((tmp_path / "m.txt").read_text())
    assert back.weights_digest() != ""
    assert zc("diff", digits, tmp_path / "m.txt").out == "equal\n"


def test_print_is_the_same_from_run_to_run(zc, digits) -> None:
    assert zc("print", digits).out == zc("print", digits).out


def test_print_never_writes_over_the_model(zc, digits) -> None:
    before = digits.read_bytes()
    done = zc("print", digits, "-o", digits)
    assert done.code == 2
    assert "is the model itself" in done.err
    assert digits.read_bytes() == before


def test_print_tells_what_it_leaves_out(zc, digits, tmp_path) -> None:
    model = load(digits)
    model.nodes()[0].doc = "made at line 3"
    model.save(tmp_path / "doc.onnx")
    assert zc("print", tmp_path / "doc.onnx").err == "zc: doc.onnx: not shown: 1 node doc strings\n"


@pytest.mark.parametrize("name", ["missing.onnx", "missing.txt"])
def test_missing_files_are_one_line(zc, digits, name, tmp_path) -> None:
    for done in (zc("print", tmp_path / name), zc("diff", digits, tmp_path / name)):
        assert (done.code, done.out) == (2, "")
        assert done.err.count("\n") == 1
        assert "no such file" in done.err


def test_diff_of_equal_models_exits_0(zc, digits) -> None:
    done = zc("diff", digits, digits)
    assert (done.code, done.out, done.err) == (0, "equal\n", "")


def test_diff_of_other_models_exits_1_with_a_page(zc, digits, changed) -> None:
    done = zc("diff", digits, changed)
    assert done.code == 1
    assert done.out.startswith("1 weight differs\n\nWeights that differ (1)\n")
    assert "SQNR 0.0 dB" in done.out


def test_diff_json_and_html(zc, digits, changed, tmp_path) -> None:
    page = tmp_path / "diff.html"
    done = zc("diff", digits, changed, "--json", "--html", page)
    said = json.loads(done.out)
    assert (said["equal"], said["names"], len(said["weights"])) == (False, ["digits_cnn.onnx", "changed.onnx"], 1)
    assert said["sizes"]["parameters"][0] > 1000
    assert "Weights that differ (1)" in page.read_text()


def test_diff_takes_a_golden_text(zc, digits, changed, tmp_path) -> None:
    text = tmp_path / "expected.txt"
    text.write_text(print_model(load(digits)))
    assert zc("diff", digits, text).code == 0
    done = zc("diff", text, changed)
    assert done.code == 1
    assert "hashes differ" in done.out


def test_diff_of_a_text_that_is_none_is_an_error_with_its_place(zc, digits, tmp_path) -> None:
    text = tmp_path / "bad.txt"
    text.write_text("<ir_version: 8,")
    done = zc("diff", digits, text)
    assert done.code == 2
    assert "bad.txt: ONNX text: (line: 1" in done.err


def test_diff_never_writes_over_a_model(zc, digits, changed) -> None:
    before = changed.read_bytes()
    assert zc("diff", digits, changed, "--html", changed).code == 2
    assert changed.read_bytes() == before
