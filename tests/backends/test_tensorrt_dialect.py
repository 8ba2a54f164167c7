"""What quantize writes for TensorRT: where Q/DQ stand, held against the rules of its checker."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from zc.backends import find_backend, find_target
from zc.data import load_samples, synthesize
from zc.execute import Runner
from zc.ir.graph import Node
from zc.ir.model import Model, load, parse_proto
from zc.passes.quantize.quantize import Quantize
from zc.pipeline.base import Context
from zc.pipeline.manager import run_pipeline

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,16,8,8] x) => (float[N,16,H,W] z)'


def filled(text: str) -> Model:
    """The model of a text; what it declares as a value that nothing makes becomes a random weight."""
    proto = parse_proto(text)
    rng = np.random.default_rng(0)
    made = {name for node in proto.graph.node for name in node.output}
    for value in [v for v in proto.graph.value_info if v.name not in made]:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        array = rng.standard_normal(shape) / np.sqrt(max(np.prod(shape[1:]), 1))
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), value.name))
        proto.graph.value_info.remove(value)
    for node in proto.graph.node:
        node.name = node.name or node.output[0]
    onnx.checker.check_model(proto, full_check=True)
    return Model.from_proto(proto)


@pytest.fixture
def quantised() -> Callable[[str], Model]:
    """The model of a text in TensorRT's dialect: near the float one, and without violations."""

    def run(text: str, **options: object) -> Model:
        model = filled(text)
        before, samples = model.copy(), synthesize(model.inputs, 16)
        plain = {"method": "minmax", "rounding": "nearest", "equalize": False, "guard": False}
        Quantize(**plain | options).run(model, Context(find_target("tensorrt"), samples))  # type: ignore[arg-type]
        feed = next(samples.batches(16))
        got, want = (Runner(m, level="basic").run(feed)["z"] for m in (model, before))
        assert np.abs(got - want).max() < 0.05 * np.abs(want).max()
        assert [one.line for one in find_backend("tensorrt").check(model)] == []
        return model

    return run


def made_by(model: Model, name: str) -> list[str]:
    """Of each input of a node: the operators that make it, back to the first that is no Q/DQ."""
    node = next(n for n in model.graph.nodes if n.name == name)
    return [_chain(t) for t in node.inputs]


def _chain(tensor: object) -> str:
    ops, made = [], list(tensor.inputs)  # type: ignore[attr-defined]
    while made and made[0].op in ("QuantizeLinear", "DequantizeLinear"):
        ops.append({"QuantizeLinear": "Q", "DequantizeLinear": "DQ"}[made[0].op])
        made = list(made[0].inputs[0].inputs)
    return " ".join([*([made[0].op] if made else []), *ops[::-1]])


W = "float[16,16,3,3] w, float[16,16,3,3] v, float[16,16,1,1] u, float[16] b"
SAME = "<pads = [1,1,1,1]>"


def test_inputs_of_layers_are_quantised_and_outputs_are_not(quantised) -> None:
    model = quantised(f"{HEAD} <{W}> {{ c = Conv {SAME} (x, w, b) r = Relu (c) z = Conv {SAME} (r, v) }}")
    assert made_by(model, "c") == ["Q DQ", "DQ", ""]
    assert made_by(model, "z")[:2] == ["Relu Q DQ", "DQ"]
    assert model.graph.outputs[0].inputs[0].op != "DequantizeLinear"
    codes = [n for n in model.graph.nodes if n.op == "QuantizeLinear"]
    assert all(n.inputs[2].values.dtype == np.int8 and not n.inputs[2].values.any() for n in codes)


def test_a_residual_sum_takes_its_convolution_in_float_and_the_skip_in_codes(quantised) -> None:
    body = f"r = Relu (x) c = Conv {SAME} (r, w) d = Relu (c) e = Conv {SAME} (d, v) y = Add (e, r) z = Conv (y, u)"
    model = quantised(f"{HEAD} <{W}> {{ {body} }}")
    assert made_by(model, "y") == ["Conv", "Relu Q DQ"]
    assert made_by(model, "z")[0] == "Add Q DQ"
    skip, first = (next(n for n in model.graph.nodes if n.name == name) for name in ("y", "c"))
    assert skip.inputs[1] is first.inputs[0]  # one pair of Q/DQ for both


def test_of_two_convolutions_the_longer_branch_stays_in_float(quantised) -> None:
    body = f"c = Conv {SAME} (x, w) d = Relu (c) e = Conv {SAME} (d, v) s = Conv (x, u) y = Add (s, e) z = Relu (y)"
    model = quantised(f"{HEAD} <{W}> {{ {body} }}")
    assert made_by(model, "y") == ["Conv Q DQ", "Conv"]


def test_all_that_a_dense_block_concatenates_shares_a_scale(quantised) -> None:
    body = f"""
        a = Conv {SAME} (x, w) ar = Relu (a)
        k1 = Concat <axis = 1> (x, ar)
        c = Conv {SAME} (k1, p) cr = Relu (c)
        k2 = Concat <axis = 1> (k1, cr)
        z = Conv {SAME} (k2, q)"""
    model = quantised(f"{HEAD} <{W}, float[16,32,3,3] p, float[16,48,3,3] q> {{ {body} }}")
    assert made_by(model, "k1") == ["Q DQ", "Relu Q DQ"]
    assert made_by(model, "k2") == ["Concat Q DQ", "Relu Q DQ"]
    scales = {n.inputs[1].name for n in model.graph.nodes if n.op == "QuantizeLinear"}
    assert len(scales) == 1


def test_a_pool_runs_on_codes_with_one_scale(quantised) -> None:
    body = f"c = Conv {SAME} (x, w) r = Relu (c) p = MaxPool <kernel_shape = [2,2]> (r) z = Conv (p, u)"
    model = quantised(f"{HEAD} <{W}> {{ {body} }}")
    assert made_by(model, "p") == ["Relu Q DQ"]
    assert made_by(model, "z")[0] == "MaxPool Q DQ"


def test_a_transposed_convolution_has_its_channels_on_axis_1(quantised) -> None:
    model = quantised(f"{HEAD} <float[16,16,2,2] t> {{ r = Relu (x) z = ConvTranspose <strides = [2,2]> (r, t) }}")
    weight = next(n for n in model.graph.nodes if n.name == "z").inputs[1].inputs[0]
    assert weight.attrs["axis"] == 1
    assert weight.inputs[1].shape == (16,)


def test_small_products_and_products_of_one_row_stay_float(quantised) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[1,32] x, float[N,32] s) => (float[M,8] z)
        <float[32,32] w, float[32,32] v, float[32,8] u>
        { a = MatMul (x, w) b = MatMul (s, v) r = Add (a, b) z = MatMul (r, u) }"""
    model = quantised(text)
    assert [made_by(model, name)[0] for name in "abz"] == ["", "Q DQ", "Add"]


def test_normalisations_and_softmax_read_floats(quantised) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,6,32] x) => (float[N,6,32] z)
        <float[32,32] w, float[32,32] v, float[32] s>
        { a = MatMul (x, w) b = Softmax (a) c = LayerNormalization (b, s) z = MatMul (c, v) }"""
    model = quantised(text)
    assert [made_by(model, name)[0] for name in "bcz"] == ["MatMul", "Softmax", "LayerNormalization Q DQ"]


PLACED = "quantize:method=minmax:rounding=nearest:equalize=false:smooth=false:bias_correct=false:guard=false"
"""What it takes to see where Q/DQ stand."""

REAL = [
    ("superres_espcn", "superres.npz", "unit", 4),
    ("magika_standard_v3_3", "magika.npz", None, 2),
    ("minilm_l6_trim", "minilm.npz", None, 36),
]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(("name", "data", "prep", "layers"), REAL)
def test_real_models_break_no_rule(shared: Path, name: str, data: str, prep: str | None, layers: int) -> None:
    model = load(shared / "models" / f"{name}.onnx")
    samples = load_samples(str(shared / "data" / data), model.inputs, rows="0:8", prep=prep)
    run_pipeline(model, PLACED, Context(find_target("tensorrt"), samples), verify="structure")
    backend = find_backend("tensorrt")
    assert [one.line for one in backend.check(model)] == []
    assert len(backend.predict(model).integer) == layers


def _sums(model: Model) -> list[Node]:
    return [n for n in model.nodes("Add") if all(t.inputs for t in n.inputs)]


@pytest.mark.real
@pytest.mark.slow
def test_the_sums_of_a_residual_net_stand_as_tensorrt_wants_them(shared: Path) -> None:
    model = load(shared / "models" / "resnet20_cifar10.onnx")
    samples = load_samples(str(shared / "data" / "cifar10_train15k.npz"), model.inputs, rows="0:8", prep="imagenet")
    run_pipeline(model, PLACED, Context(find_target("tensorrt"), samples), verify="structure")
    sums = [sorted(_chain(t).replace("Pad", "Relu") for t in n.inputs) for n in _sums(model)]
    assert sums == [["Conv", "Relu Q DQ"]] * 9
    assert [one.line for one in find_backend("tensorrt").check(model)] == []


def test_weights_of_four_bits_are_blocks_that_tensorrt_reads() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,64] x) => (float[N,32] z) <float[64,32] w>
        { z = MatMul (x, w) }"""
    model = filled(text)
    run_pipeline(model, "quantize-weights:bits=4:block=32:min_size=1", Context(find_target("tensorrt")))
    node = next(n for n in model.graph.nodes if n.op == "DequantizeLinear")
    assert (node.attrs["block_size"], node.inputs[0].values.dtype.name) == (32, "int4")
    backend = find_backend("tensorrt")
    assert [one.line for one in backend.check(model)] == []
    assert "its weight alone is in codes" in backend.predict(model).floats[0][1]
