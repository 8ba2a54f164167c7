"""Operators of quantised models that run on codes in the file, and as exactly as onnxruntime computes the model."""

import numpy as np
import pytest

from zc.backends.tflite.emit import flatten, to_tflite
from zc.backends.tflite.legalise import legalise
from zc.backends.tflite.litert import LiteRtRunner
from zc.backends.tflite.targets import TARGET
from zc.data.synthetic import synthesize
from zc.execute import Runner, relative_error
from zc.ir.model import Model, from_text
from zc.passes.quantize.quantize import Quantize
from zc.pipeline.base import Context

pytestmark = pytest.mark.usefixtures("litert")

TWO_CODES = 0.03
"""Of the outputs, as a share of the largest number."""

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '


def quantised(text: str, **options: object) -> Model:
    """The model of a text, its inputs behind the first random weights, quantised for LiteRT."""
    model = from_text(HEAD + text)
    rng = np.random.default_rng(0)
    for tensor in list(model.graph.inputs)[1:]:
        model.graph.inputs.remove(tensor)
        tensor.to_constant((rng.normal(size=tensor.shape) / 4).astype(np.float32))
    plain = {"method": "minmax", "rounding": "nearest", "equalize": False, "guard": False, "activations": "static"}
    Quantize(**plain | options).run(model, Context(TARGET, synthesize(model.inputs, 16, seed=1)))  # type: ignore[arg-type]
    return model


def kinds(model: Model, *codes: str) -> dict[str, str]:
    ops = flatten(legalise(model)).graph.ops
    return {op.code: op.outputs[0].dtype.name for op in ops if op.code in codes}


def difference(model: Model, kernels: str = "xnnpack") -> float:
    """Of the file from the model in onnxruntime, relative to the largest number."""
    feeds = next(synthesize(model.inputs, 4, seed=2).batches(4))
    ours = LiteRtRunner(to_tflite(model), kernels=kernels).run(feeds)["y"]
    return relative_error(ours, Runner(model, threads=1).run(feeds)["y"])


TRANSPOSED = """(float[N,3,8,8] x, float[8,3,3,3] w, float[8,6,4,4] t, float[6] b, float[4,6,3,3] v)
    => (float[N,4,16,16] y) {
        a = Conv <pads=[1,1,1,1]> (x, w)
        c = Relu (a)
        d = ConvTranspose <strides=[2,2], pads=[1,1,1,1]> (c, t, b)
        e = Relu (d)
        y = Conv <pads=[1,1,1,1]> (e, v)
    }"""


@pytest.mark.parametrize("kernels", ["xnnpack", "reference"])
def test_transposed_convolutions_run_on_codes(kernels: str) -> None:
    model = quantised(TRANSPOSED)
    assert kinds(model, "TRANSPOSE_CONV") == {"TRANSPOSE_CONV": "int8"}
    assert difference(model, kernels) < TWO_CODES


def test_transposed_convolutions_in_groups_stay_float() -> None:
    model = quantised(TRANSPOSED.replace("8,6,4,4", "8,3,4,4").replace("<strides", "<group=2, strides"))
    assert kinds(model, "TRANSPOSE_CONV") == {"TRANSPOSE_CONV": "float32"}
    assert difference(model) < TWO_CODES


SCALED = """(float[N,3,8,8] x, float[8,3,3,3] w, float[8,1,1] c, float[8,1,1] e, float[4,8,3,3] v)
    => (float[N,4,8,8] y) {
        a = Conv <pads=[1,1,1,1]> (x, w)
        b = Sigmoid (a)
        d = Mul (b, c)
        f = Tanh (d)
        g = Sub (f, e)
        h = Add (e, g)
        y = Conv <pads=[1,1,1,1]> (h, v)
    }"""


@pytest.mark.parametrize(("bits", "kind"), [(8, "int8"), (16, "int16")])
def test_constants_of_each_channel_are_codes_beside_codes(bits: int, kind: str) -> None:
    model = quantised(SCALED, activation_bits=bits)
    assert kinds(model, "MUL", "SUB", "ADD") == dict.fromkeys(("MUL", "SUB", "ADD"), kind)
    assert difference(model) < TWO_CODES


def test_constants_that_one_scale_cannot_hold_stay_numbers() -> None:
    model = from_text(f"""{HEAD} (float[N,4] x) => (float[N,4] y)
        <float[4,4] w = {{1,2,3,4, 4,3,2,1, 1,2,3,4, 4,3,2,1}}, float[4] c = {{1000,1,1,1}}> {{
            a = MatMul (x, w)
            b = Sigmoid (a)
            d = Mul (b, c)
            y = MatMul (d, w)
        }}""")
    options = Quantize(rounding="nearest", equalize=False, guard=False, activations="static")
    options.run(model, Context(TARGET, synthesize(model.inputs, 16, seed=1)))
    assert kinds(model, "MUL") == {"MUL": "float32"}
