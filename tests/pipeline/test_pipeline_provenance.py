import pytest

from zc.errors import ZcError
from zc.ir.model import from_text
from zc.pipeline.provenance import Provenance

TEXT = '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Relu (x) }'


def test_what_was_written_is_read_back() -> None:
    model = from_text(TEXT)
    model.metadata["author"] = "someone"
    how = Provenance("clean,prune", "clean,prune", "ort-cpu", 3, "m.onnx", "ab" * 32, "c.npz", "0:8", "unit", "cd" * 32)
    how.write(model)
    assert Provenance.read(model) == how
    assert model.metadata["author"] == "someone"


def test_writing_again_leaves_nothing_of_before() -> None:
    model = from_text(TEXT)
    Provenance("quantize", "clean,quantize", "ort-cpu", 0, "m.onnx", "ab" * 32, data="c.npz").write(model)
    Provenance("clean", "clean", "ort-cpu", 0, "m.onnx", "ab" * 32).write(model)
    assert "zc.data" not in model.metadata


def test_a_model_that_zc_did_not_make_is_refused() -> None:
    with pytest.raises(ZcError, match="does not say how it was made"):
        Provenance.read(from_text(TEXT))


def test_damaged_metadata_is_one_line() -> None:
    model = from_text(TEXT)
    Provenance("clean", "clean", "ort-cpu", 0, "m.onnx", "ab" * 32).write(model)
    model.metadata["zc.seed"] = "many"
    with pytest.raises(ZcError, match="damaged"):
        Provenance.read(model)
