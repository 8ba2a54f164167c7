"""`zc.testing` and the pytest plugin, as other people use them."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from zc.errors import CheckFailed, ZcError
from zc.ir.model import Model, from_text
from zc.ir.text import print_model
from zc.pipeline.base import Context, Pass, PassResult
from zc.testing import assert_golden, assert_same_outputs, ops, random_feeds, run_pass, run_pass_report

NET = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,5] x) => (float[N,5] y) <float[5,5] w = {NUMBERS}> {
  [mul] m = MatMul (x, w)
  [dead] d = Neg (m)
  [relu] y = Relu (m)
}
""".replace("NUMBERS", ", ".join(str(i) for i in range(25)))


@pytest.fixture
def model() -> Model:
    return from_text(NET)


@pytest.fixture(autouse=True)
def compare_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests decide themselves when a golden file is written, also under --update-golden."""
    monkeypatch.delenv("ZC_UPDATE_GOLDEN", raising=False)


@dataclass(frozen=True)
class Double(Pass):
    """Doubles a weight: the outputs move."""

    name: ClassVar[str] = "double"
    exact: ClassVar[bool] = True

    def run(self, model: Model, ctx: Context) -> PassResult:
        weight = model.constants()[0]
        weight.values = weight.values * np.float32(2)
        return PassResult(changed=True)


def test_a_golden_file_is_written_once_and_holds(model, tmp_path) -> None:
    path = tmp_path / "new" / "net.txt"
    assert_golden(model, path, update=True)
    assert path.read_text() == print_model(model)
    before = path.stat().st_mtime_ns
    assert_golden(model, path, update=True)
    assert path.stat().st_mtime_ns == before
    assert_golden(model, path)


def test_a_missing_golden_file_is_no_pass(model, tmp_path) -> None:
    with pytest.raises(AssertionError, match=r"no golden file .*net\.txt; `pytest --update-golden` makes it"):
        assert_golden(model, tmp_path / "net.txt")


def test_a_failure_shows_the_structural_diff_and_the_lines(model, tmp_path) -> None:
    path = tmp_path / "net.txt"
    assert_golden(model, path, update=True)
    model.graph.nodes[2].op = "Sigmoid"
    model.constants()[0].values = model.constants()[0].values + 1
    with pytest.raises(AssertionError) as caught:
        assert_golden(model, path)
    said = str(caught.value)
    assert "1 node changed; 1 weight differs" in said
    assert "operator Relu -> Sigmoid" in said
    assert "hashes differ" in said
    assert "\n-  [relu] y = Relu (m)\n" in said
    assert "--update-golden" in said


def test_a_failure_in_order_alone_says_so(model, tmp_path) -> None:
    path = tmp_path / "net.txt"
    assert_golden(model, path, update=True)
    model.graph.nodes[1:] = model.graph.nodes[:0:-1]
    with pytest.raises(AssertionError, match="the models are equal; the text differs in order"):
        assert_golden(model, path)


def test_a_golden_file_that_is_no_text_still_shows_the_lines(model, tmp_path) -> None:
    (tmp_path / "net.txt").write_text("spoiled\n")
    with pytest.raises(AssertionError, match=r"not compared by structure: ONNX text(.|\n)*-spoiled"):
        assert_golden(model, tmp_path / "net.txt")


def test_shape_goldens_do_not_depend_on_computed_weights(model, tmp_path) -> None:
    path, source = tmp_path / "net.txt", model.copy()
    assert_golden(model, path, update=True, weights="shape", source=source)
    assert "sha256" in path.read_text()
    model.constants()[0].values = model.constants()[0].values * np.float32(1.0000001)
    with pytest.raises(AssertionError, match="now computed"):
        assert_golden(model, path, weights="shape", source=source)
    assert_golden(model, path, update=True, weights="shape")
    model.constants()[0].values = model.constants()[0].values * np.float32(1.0000001)
    assert_golden(model, path, weights="shape")


def test_run_pass_takes_text_and_leaves_its_input_alone(model) -> None:
    assert ops(run_pass("dce", NET)) == ["MatMul", "Relu"]
    assert ops(run_pass("dce", model)) == ["MatMul", "Relu"]
    assert ops(model) == ["MatMul", "Neg", "Relu"]


def test_run_pass_proves_exact_passes(model) -> None:
    with pytest.raises(CheckFailed, match="output 'y' moved"):
        run_pass(Double(), model)


def test_run_pass_feeds_the_arrays_that_the_test_gives(golden_models) -> None:
    images = np.load(golden_models / "digits_calib.npz")["x"][:64]
    after, report = run_pass_report("quantize", golden_models / "digits_cnn.onnx", {"input": images})
    assert "QuantizeLinear" in ops(after)
    assert [run.name for run in report.passes] == ["clean", "quantize"]
    assert not any("synthetic" in note.what.lower() for note in report.notes)


def test_wrong_options_are_named(model) -> None:
    with pytest.raises(ZcError, match=r"pass 'dce': .*nonsense"):
        run_pass("dce", model, nonsense=1)


def test_same_outputs(model) -> None:
    feeds = {"x": np.ones((1, 5), np.float32)}
    assert_same_outputs(run_pass("dce", model), model)
    other = model.copy()
    other.constants()[0].values = other.constants()[0].values * np.float32(1.5)
    with pytest.raises(AssertionError, match=r"output 'y' is off by 0\.5 relative"):
        assert_same_outputs(other, model, feeds)


def test_random_feeds_are_the_same_for_the_same_seed(golden_model) -> None:
    recommender = golden_model("recommender")
    feeds = random_feeds(recommender, seed=3, rows=5)
    assert {k: v.shape for k, v in feeds.items()} == {"user": (5,), "item": (5,), "features": (5, 8)}
    assert all(np.array_equal(v, feeds[k]) for k, v in random_feeds(recommender, seed=3, rows=5).items())
    assert not np.array_equal(random_feeds(recommender, seed=4, rows=5)["features"], feeds["features"])


TEST_FILE = f'''
from zc.ir.model import from_text

def test_net(golden):
    golden(from_text("""{NET}"""), "expected/net.txt")
'''


def test_the_plugin_makes_golden_files_and_compares(tmp_path: Path) -> None:
    (tmp_path / "test_net.py").write_text(TEST_FILE)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "ZC_"))}

    def pytest_exits(*args: str) -> int:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args, str(tmp_path)]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=False).returncode

    assert pytest_exits() == 1
    assert pytest_exits("--update-golden") == 0
    assert (tmp_path / "expected" / "net.txt").read_text() == print_model(from_text(NET))
    assert pytest_exits() == 0


def test_the_plugin_imports_nothing_heavy() -> None:
    probe = "import sys, zc.pytest_plugin; print([m for m in ('onnx', 'numpy', 'onnxruntime') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
