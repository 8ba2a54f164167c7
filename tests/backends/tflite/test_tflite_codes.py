"""Quantised models: which nodes run on codes, and that the codes are those of onnxruntime."""

from collections import Counter

import numpy as np
import pytest

from zc.backends.onnxruntime import TARGET as ORT
from zc.backends.tflite.emit import TfliteOptions, flatten, to_tflite
from zc.backends.tflite.legalise import legalise
from zc.backends.tflite.litert import LiteRtRunner
from zc.backends.tflite.targets import TARGET, WHOLE
from zc.data.synthetic import synthesize
from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.model import Model, from_text
from zc.passes.quantize.quantize import Quantize
from zc.pipeline.base import Context
from zc.target import Target

pytestmark = pytest.mark.usefixtures("litert")


def net() -> Model:
    """A residual block with a stride, a pool, a flattened image and a layer behind it."""
    model = from_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3,8,8] x, float[8,3,3,3] w1, float[8,8,3,3] w2, float[8] b2, float[8,1,3,3] w3, float[5,128] v)
          => (float[N,5] y) {
            a = Conv <pads=[1,1,1,1]> (x, w1)
            b = Relu (a)
            c = Conv <pads=[1,1,1,1]> (b, w2, b2)
            d = Add (b, c)
            e = Relu (d)
            f = Conv <group=8, pads=[1,1,1,1]> (e, w3)
            p = MaxPool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (f)
            q = Flatten (p)
            y = Gemm <transB=1> (q, v)
        }""")
    rng = np.random.default_rng(0)
    for tensor in list(model.graph.inputs)[1:]:
        model.graph.inputs.remove(tensor)
        tensor.to_constant((rng.normal(size=tensor.shape) / 4).astype(np.float32))
    return model


def quantised(target: Target, **options: object) -> Model:
    model = net()
    samples = synthesize(model.inputs, 16, seed=1)
    plain = {"rounding": "nearest", "equalize": False, "guard": False, "float_if_faster": False}
    Quantize(**{**plain, **options}).run(model, Context(target, samples))
    return model


@pytest.fixture(scope="module")
def int8() -> Model:
    return quantised(TARGET)


def outputs(model: Model, data: bytes, kernels: str = "xnnpack") -> tuple[np.ndarray, np.ndarray]:
    feeds = next(synthesize(model.inputs, 4, seed=2).batches(4))
    return LiteRtRunner(data, kernels=kernels).run(feeds)["y"], Runner(model, threads=1).run(feeds)["y"]


def step(model: Model) -> float:
    """One code of the output."""
    return float(model.graph.outputs[0].inputs[0].inputs[1].values)


def test_a_net_of_convolutions_runs_in_integers_from_end_to_end(int8: Model) -> None:
    graph = flatten(legalise(int8)).graph
    counts = Counter(op.code for op in graph.ops)
    assert (counts["QUANTIZE"], counts["DEQUANTIZE"], counts["TRANSPOSE"]) == (1, 1, 0)
    assert all(t.dtype == np.int8 for op in graph.ops[:-1] for t in op.outputs)


def test_codes_of_the_default_delegate_are_those_of_onnxruntime(int8: Model) -> None:
    ours, theirs = outputs(int8, to_tflite(int8))
    assert np.abs(ours - theirs).max() <= step(int8) * 1.01


def test_plain_kernels_differ_by_a_code_or_two(int8: Model) -> None:
    ours, theirs = outputs(int8, to_tflite(int8), "reference")
    assert np.abs(ours - theirs).max() <= step(int8) * 3.01


def test_what_onnxruntime_has_as_uint8_becomes_int8() -> None:
    model = quantised(ORT)
    assert any(n.inputs[2].values.dtype == np.uint8 for n in model.graph.nodes if n.op == "QuantizeLinear")
    ours, theirs = outputs(model, to_tflite(model))
    assert np.abs(ours - theirs).max() <= 0.02 * np.abs(theirs).max()


def test_activations_of_16_bits_stand_around_zero() -> None:
    model = quantised(TARGET, activation_bits=16)
    ops = flatten(legalise(model)).graph.ops
    assert {op.outputs[0].dtype.name for op in ops if op.code == "CONV_2D"} == {"int16"}
    ours, theirs = outputs(model, to_tflite(model))
    assert np.abs(ours - theirs).max() <= 1e-3 * np.abs(theirs).max()


def test_ends_may_be_codes(int8: Model) -> None:
    data = to_tflite(int8, TfliteOptions(ends="int8"))
    runner = LiteRtRunner(data)
    assert (runner.inputs["x"]["dtype"], runner.outputs["y"]["dtype"]) == (np.int8, np.int8)
    np.testing.assert_array_equal(outputs(int8, data)[0], outputs(int8, to_tflite(int8))[0])


def test_a_relu_on_codes_is_part_of_the_operator_in_front() -> None:
    model = from_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[2,4] x) => (float[2,4] y)
          <float s = {0.5}, int8 z = {3}, float t = {1.0}, int8 o = {-5}, int8 h = {127}> {
            a = QuantizeLinear (x, s, z)
            b = DequantizeLinear (a, s, z)
            c = Add (b, b)
            d = QuantizeLinear (c, t, o)
            e = Clip (d, o, h)
            y = DequantizeLinear (e, t, o)
        }""")
    assert [op.code for op in flatten(legalise(model)).graph.ops] == ["QUANTIZE", "ADD", "DEQUANTIZE"]
    ours, theirs = outputs(model, to_tflite(model))
    np.testing.assert_array_equal(ours, theirs)


def test_with_everything_in_integers_likelihoods_are_codes_too() -> None:
    model = net()
    tail = model.graph.outputs[0]
    model.graph.outputs = [model.graph.layer(op="Softmax", inputs=[tail], outputs=["p"])[0]]
    model.graph.outputs[0].dtype, model.graph.outputs[0].shape = np.dtype(np.float32), list(tail.shape)
    options = Quantize(rounding="nearest", equalize=False, guard=False, float_if_faster=False)
    options.run(model, Context(WHOLE, synthesize(model.inputs, 16, seed=1)))
    graph = flatten(legalise(model), TfliteOptions(ends="int8")).graph
    (quant,) = (tensor.quant for tensor in graph.outputs.values())
    assert graph.ops[-1].code == "SOFTMAX"
    assert quant is not None
    assert (float(quant.scale[0]), int(quant.zero[0])) == (1 / 256, -128)


def test_ends_of_a_float_model_cannot_be_codes() -> None:
    with pytest.raises(ZcError, match="x, y cannot be int8: what reads or makes it computes in float; quantise for"):
        to_tflite(net(), TfliteOptions(ends="int8"))


def test_codes_at_the_inputs_of_a_model_are_taken_as_they_are() -> None:
    model = from_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (uint8[2,3] x) => (float[2,3] y) <float s = {0.5}, uint8 z = {100}> { y = DequantizeLinear (x, s, z) }""")
    feeds = {"x": np.array([[0, 100, 255], [99, 101, 1]], np.uint8)}
    np.testing.assert_array_equal(LiteRtRunner(to_tflite(model)).run(feeds)["y"], Runner(model).run(feeds)["y"])


def test_rows_of_a_table_with_a_scale_for_each_column_are_rounded_anew_as_numbers() -> None:
    model = from_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (int64[1,2] x) => (float[1,2,2] y)
        <int8[3,2] table = {1,2, 30,40, 100,-100}, float[2] each = {0.01, 0.5}, int8[2] nil = {0, 0}, float s = {0.4},
         int8 z = {3}> {
            rows = Gather (table, x)
            numbers = DequantizeLinear <axis = 2> (rows, each, nil)
            q = QuantizeLinear (numbers, s, z)
            y = DequantizeLinear (q, s, z)
        }""")
    feeds = {"x": np.array([[2, 1]], np.int64)}
    want = Runner(model, level="basic").run(feeds)["y"]
    for kernels in ("xnnpack", "builtin"):
        np.testing.assert_allclose(LiteRtRunner(to_tflite(model), kernels=kernels).run(feeds)["y"], want)
