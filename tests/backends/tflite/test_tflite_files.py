"""The file as a whole: forms of weights, signatures, what is refused, what stays the same."""

import sys
from pathlib import Path

import numpy as np
import pytest

from zc.backends import find_backend
from zc.backends.base import deliver
from zc.backends.tflite.backend import BACKEND
from zc.backends.tflite.emit import TfliteOptions, bundle, flatten, to_tflite
from zc.backends.tflite.legalise import legalise
from zc.backends.tflite.litert import LiteRtRunner, metadata
from zc.data.synthetic import synthesize
from zc.errors import CheckFailed, ZcError
from zc.execute import Runner
from zc.ir.model import Model, from_text, load
from zc.pipeline.base import Context

pytestmark = pytest.mark.usefixtures("litert")


def dense(seed: int = 0) -> Model:
    model = from_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,64] x, float[64,32] w) => (float[N,32] y) { y = MatMul (x, w) }""")
    weight = model.graph.inputs.pop()
    weight.to_constant(np.random.default_rng(seed).normal(size=(64, 32)).astype(np.float32))
    return model


def error(model: Model, data: bytes) -> float:
    feeds = next(synthesize(model.inputs, 4, seed=2).batches(4))
    got, want = LiteRtRunner(data).run(feeds)["y"], Runner(model).run(feeds)["y"]
    return float(np.abs(got - want).max() / np.abs(want).max())


@pytest.mark.parametrize(("form", "share", "off"), [("float16", 0.5, 2e-3), ("dynamic", 0.25, 3e-2)])
def test_smaller_forms_of_weights(form: str, share: float, off: float) -> None:
    model = dense()
    small = to_tflite(model, TfliteOptions(form=form))
    assert len(small) < len(to_tflite(model)) * share + 2000
    assert 0 < error(model, small) < off


def test_numbers_beyond_half_precision_stay_as_they_are() -> None:
    model = dense()
    weight = model.graph.nodes[0].inputs[1]
    weight.values = weight.values * np.float32(1e6)
    assert error(model, to_tflite(model, TfliteOptions(form="float16"))) < 1e-5


def test_equal_weights_of_several_signatures_are_stored_once() -> None:
    parts = {name: flatten(legalise(dense())) for name in ("one", "two")}
    alone = len(bundle({"one": flatten(legalise(dense()))}))
    both = bundle(parts)
    assert len(both) < alone + 2000
    feeds = {"x": np.ones((1, 64), np.float32)}
    runs = [LiteRtRunner(both, signature=name).run(feeds)["y"] for name in parts]
    np.testing.assert_array_equal(*runs)
    with pytest.raises(ZcError, match="no signature 'three' in the file; it has one, two"):
        LiteRtRunner(both, signature="three")


def test_one_command_writes_several_models_into_a_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        dense(len(name) if name == "one" else 7).save(tmp_path / f"{name}.onnx")
    backend = find_backend(f"tflite:signature=one:also=two@{tmp_path}/two.onnx")
    model = load(tmp_path / "one.onnx")
    model.metadata["author"] = "me"
    deliver(backend, model, tmp_path / "both.tflite", Context(backend.target))
    feeds = {"x": np.ones((1, 64), np.float32)}
    for name in ("one", "two"):
        got = LiteRtRunner(tmp_path / "both.tflite", signature=name).run(feeds)["y"]
        np.testing.assert_allclose(got, Runner(load(tmp_path / f"{name}.onnx")).run(feeds)["y"], rtol=1e-5)
    assert metadata((tmp_path / "both.tflite").read_bytes())["author"] == b"me"


def test_further_models_need_a_name_of_their_own() -> None:
    with pytest.raises(ZcError, match=r"also=two\.onnx: expected NAME@MODEL\.onnx"):
        find_backend("tflite:also=two.onnx")


UNSURE = """<ir_version: 8, opset_import: ["" : 17]> g (float[2,3,3] x, float[2,3,3] w) => (float[2] y) {
    a = Add (x, w)
    y = Det (a)
}"""


def test_what_no_pass_mends_is_said_before_the_passes_run(tmp_path: Path) -> None:
    with pytest.raises(ZcError, match=r"no-form: .*Det: .*compute it outside in float, or write \.onnx"):
        BACKEND.foresee(from_text(UNSURE), tmp_path / "out.tflite")
    BACKEND.foresee(from_text(UNSURE), tmp_path / "out.onnx")
    open_image = from_text("""<ir_version: 8, opset_import: ["" : 17]> g (float[N,3,H,W] x) => (float[N,3,A,B] y)
        <float[4] s = {1,1,2,2}> { y = Resize <mode = "linear"> (x, , s) }""")
    with pytest.raises(ZcError, match=r"open-size: .*--shape x=1,3,H,W"):
        BACKEND.foresee(open_image, tmp_path / "out.tflite")


def test_a_branch_chosen_at_run_time_is_refused_with_what_to_do() -> None:
    model = from_text("""<ir_version: 8, opset_import: ["" : 17]> g (float[2] x, bool c) => (float[2] y) {
        y = If (c) <then_branch = t () => (float[2] a) { a = Add (x, x) },
                    else_branch = e () => (float[2] b) { b = Mul (x, x) }>
    }""")
    with pytest.raises(ZcError, match="make its condition a constant"):
        to_tflite(model)


def test_the_same_model_gives_the_same_bytes() -> None:
    assert to_tflite(dense()) == to_tflite(dense())


def test_metadata_is_kept() -> None:
    assert metadata(to_tflite(dense(), TfliteOptions(metadata={"author": b"me"})))["author"] == b"me"


def test_any_batch_runs() -> None:
    runner = LiteRtRunner(to_tflite(dense()))
    assert [runner.run({"x": np.ones((n, 64), np.float32)})["y"].shape for n in (1, 5, 2)] == [
        (1, 32),
        (5, 32),
        (2, 32),
    ]


def test_emit_compares_with_the_model_and_says_so(tmp_path: Path) -> None:
    artifact, _ = deliver(BACKEND, dense(), tmp_path / "m.tflite", Context(BACKEND.target))
    assert float(artifact.facts["difference"]) < 1e-5
    assert artifact.bytes == (tmp_path / "m.tflite").stat().st_size


def test_a_file_that_computes_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = LiteRtRunner.run
    monkeypatch.setattr(LiteRtRunner, "run", lambda self, feeds: {k: v + 1 for k, v in wrong(self, feeds).items()})
    with pytest.raises(CheckFailed, match="LiteRT computes something else than the model"):
        BACKEND.emit(dense(), tmp_path / "m.tflite", Context(BACKEND.target))
    assert not (tmp_path / "m.tflite").exists()


def test_every_node_without_a_form_is_listed() -> None:
    model = from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2,3] x) => (float[3,2] y, float[2,3] z) {
            y = Einsum <equation="...ij->...ji"> (x)
            d = Det (s)
            z = Add (x, d)
        }""".replace("d = Det (s)", "t = Transpose (x) s = MatMul (x, t) d = Det (s)")
    )
    found = BACKEND.check(model)
    assert [(one.rule, one.node) for one in found] == [("no-form", "Einsum -> y"), ("no-form", "Det -> d")]


def test_the_package_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.schema_py_generated", None)
    with pytest.raises(ZcError, match=r"TFLite files need the package ai-edge-litert; install zc\[tflite\]"):
        to_tflite(dense())


def test_options_are_given_with_the_target() -> None:
    assert find_backend("tflite:form=dynamic:io=int8").form == "dynamic"
