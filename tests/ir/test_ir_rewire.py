import numpy as np
import onnx
import onnxruntime as ort

from zc.ir.model import from_text
from zc.ir.rewire import rewire

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x, bool c) => (float[N,4] y) {
    a = Relu (x)
    b = Neg (a)
    y = If (c) <
        then_branch = t () => (float[N,4] u) { u = Exp (b) },
        else_branch = e () => (float[N,4] v) { v = Identity (a) }
    >
    lost = Sin (x)
}
"""


def test_a_file_returns_other_values_and_keeps_only_what_they_need(tmp_path):
    from_text(TEXT).save(tmp_path / "a.onnx")
    rewire(tmp_path / "a.onnx", tmp_path / "b.onnx", ["b"])
    found = onnx.load(tmp_path / "b.onnx").graph
    assert [n.op_type for n in found.node] == ["Relu", "Neg"]
    assert [o.name for o in found.output] == ["b"]


def test_what_a_body_reads_is_kept(tmp_path):
    from_text(TEXT).save(tmp_path / "a.onnx")
    rewire(tmp_path / "a.onnx", tmp_path / "b.onnx", ["y"])
    assert [n.op_type for n in onnx.load(tmp_path / "b.onnx").graph.node] == ["Relu", "Neg", "If"]


def test_weights_beside_the_file_stay_there(tmp_path):
    model = from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1, 2, 3, 4}> '
        "{ a = MatMul (x, w)  y = Relu (a) }"
    )
    model.save(tmp_path / "a.onnx", external=True)
    (tmp_path / "a.onnx.data").rename(tmp_path / "away")
    rewire(tmp_path / "a.onnx", tmp_path / "b.onnx", ["a"])
    (tmp_path / "away").rename(tmp_path / "a.onnx.data")
    session = ort.InferenceSession(tmp_path / "b.onnx")
    assert session.run(None, {"x": np.float32([[1, 0]])})[0].tolist() == [[1, 2]]
