import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zc.ir.model import from_text


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """A model that returns what it is given, and one that is right in three of four rows."""
    good, bad = tmp_path / "good.onnx", tmp_path / "bad.onnx"
    head = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y)'
    from_text(f"{head} {{ y = Identity (x) }}").save(good)
    from_text(f"{head} <float[4] s = {{9.0, 0.0, 0.0, 0.0}}> {{ y = Add (x, s) }}").save(bad)
    return [good, bad]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    ids = np.arange(40) % 4
    np.savez(tmp_path / "data.npz", x=np.eye(4, dtype=np.float32)[ids], y=ids)
    return tmp_path / "data.npz"


def test_one_model(zc: Callable[..., Any], models: list[Path], data: Path):
    done = zc("eval", models[0], "--data", data)
    assert done.code == 0
    assert done.out.splitlines()[1].split() == ["good.onnx", "100.00", "%", "0"]
    assert "40 rows of data.npz" in done.out


def test_two_models_show_their_difference(zc: Callable[..., Any], models: list[Path], data: Path):
    done = zc("eval", *models, "--data", data)
    assert done.out.splitlines()[2].split()[:4] == ["bad.onnx", "25.00", "%", "6.9"]
    assert "-75.00 points" in done.out


def test_the_first_of_two_models_is_the_reference(zc: Callable[..., Any], models: list[Path], data: Path):
    done = zc("eval", *models, "--data", data, "--metric", "mae", "--rows", ":8")
    assert done.code == 2  # the labels stand before it, and are class numbers
    assert "for class numbers use top1" in done.err
    done = zc("eval", *models, "--data", data, "--metric", "agree", "--json")
    scores = json.loads(done.out)["scores"]
    assert [s["value"] for s in scores] == [100, 25]


def test_a_reference_that_is_given(zc: Callable[..., Any], models: list[Path], data: Path):
    done = zc("eval", models[1], "--reference", models[0], "--data", data, "--metric", "mae", "--json")
    assert json.loads(done.out)["scores"][0]["value"] == pytest.approx(9 / 4)


def test_a_drop_within_the_gate_passes_and_beyond_it_is_exit_3(zc: Callable[..., Any], models: list[Path], data: Path):
    assert zc("eval", *models, "--data", data, "--max-drop", "75%").code == 0
    done = zc("eval", *models, "--data", data, "--max-drop", "74.9%")
    assert done.code == 3
    assert "bad.onnx: top1 is worse by 75 points" in done.err
    assert "good.onnx" in done.out
    assert zc("eval", *reversed(models), "--data", data, "--max-drop", "0").code == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--max-drop", "1%"], "compares models"),
        (["--max-drop", "much"], "points of the metric"),
        (["--metric", "top2"], "did you mean 'top"),
        (["--metric", "agree"], "--reference"),
        (["--label-offset", "1"], "outside of the 4 classes"),
        (["--rows", "100:200"], "rows"),
        (["--output", "z"], "no output 'z'"),
        (["--batch", "0"], "--batch"),
    ],
)
def test_what_is_wrong_is_said_and_exit_2(
    zc: Callable[..., Any], models: list[Path], data: Path, args: list[str], words: str
):
    done = zc("eval", models[0], "--data", data, *args)
    assert (done.code, done.out) == (2, "")
    assert words in done.err


def test_a_drop_from_an_infinite_figure_is_refused(zc: Callable[..., Any], models: list[Path], data: Path):
    done = zc("eval", *models, "--data", data, "--metric", "sqnr", "--max-drop", "1")
    assert done.code == 2
    assert "no drop from it can be told" in done.err


def test_a_difference_from_an_infinite_figure_is_not_shown(zc: Callable[..., Any], models: list[Path], data: Path):
    done = zc("eval", *models, "--data", data, "--metric", "sqnr")
    assert done.code == 0
    assert "inf" in done.out.splitlines()[1]
    assert "inf" not in "".join(done.out.splitlines()[2:])


def test_missing_labels_lead_to_agree(zc: Callable[..., Any], models: list[Path], tmp_path: Path):
    np.savez(tmp_path / "plain.npz", x=np.eye(4, dtype=np.float32))
    done = zc("eval", models[0], "--data", tmp_path / "plain.npz")
    assert done.code == 2
    assert "metric agree" in done.err


def test_an_infinite_figure_is_null_in_json(zc: Callable[..., Any], models: list[Path], data: Path):
    done = zc("eval", models[0], models[0], "--data", data, "--metric", "sqnr", "--json")
    assert [s["value"] for s in json.loads(done.out)["scores"]] == [None, None]
