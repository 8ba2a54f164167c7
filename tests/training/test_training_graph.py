"""A model as a torch module: the same numbers, and back into the same graph."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.diff import diff
from zc.ir.elements import dtype_of
from zc.ir.model import Model, from_text, load
from zc.pipeline.synthetic import synthetic_samples

torch = pytest.importorskip("torch", reason="torch is not installed (the extra train)")

from zc.training.gradient import require_gradient  # noqa: E402
from zc.training.graph import GraphModule  # noqa: E402

NET = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x) => (float[N,2] y)
    <float[3,4] w = {1,2,3,4,5,6,7,8,9,10,11,12}, float[4] b = {1,-1,0,2}, float[4,2] v = {1,0,0,1,1,1,-1,2}> {
        h = Gemm (x, w, b)
        r = Relu (h)
        y = MatMul (r, v)
    }"""


def some_feeds(model: Model, rows: int = 4) -> dict[str, np.ndarray]:
    return dict(next(iter(synthetic_samples(model, rows=rows, seed=0).batches(rows))))


def tensors(feeds: dict[str, np.ndarray]) -> dict[str, "torch.Tensor"]:
    return {k: torch.from_numpy(np.array(v)) for k, v in feeds.items()}


def test_weights_keep_their_names_and_go_back_into_the_same_graph() -> None:
    model = from_text(NET)
    module = GraphModule(model)
    assert list(module.weights) == ["w", "b", "v"]
    assert module.write(model) == 0
    with torch.no_grad():
        module.weights["b"].parameter += 1
    before = model.copy()
    assert module.write(model) == 1
    found = diff(before, model)
    assert [*found.added, *found.removed, *found.changed] == []
    assert [w.name for w in found.weights] == ["b"]
    feeds = some_feeds(model)
    got = module(tensors(feeds))["y"].detach().numpy()
    np.testing.assert_allclose(got, Runner(model).run(feeds)["y"], rtol=1e-5)


def ones(count: int) -> str:
    return ",".join(["1"] * count)


def layers(group: int) -> Model:
    """Weights of every kind; the first convolution in groups."""
    return from_text(f"""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N,4,6,6] x, int64[N] i) => (float[N,4,4,4] y, float[N,5] z, float[N,1,3] s)
        <float[4,{4 // group},3,3] first = {{{ones(144 // group)}}}, int8[8,4,1,1] codes = {{{ones(32)}}},
         float scale = {{0.1}}, float[4,8,1,1] last = {{{ones(32)}}}, float[5,3] table = {{{ones(15)}}},
         float[3,5] w = {{{ones(15)}}}, float[5] b = {{{ones(5)}}}, float[1,3,3] given = {{{ones(9)}}},
         float[1,3,3] hidden = {{{ones(9)}}}> {{
            p = Conv <group = {group}> (x, first)
            d = DequantizeLinear (codes, scale)
            q = Conv (p, d)
            y = Conv (q, last)
            e = Gather (table, i)
            z = Gemm (e, w, b)
            a = Constant <value = int64[1] {{0}}> ()
            t = Unsqueeze (e, a)
            r, s = RNN <hidden_size = 3> (t, given, hidden)
        }}""")


def test_what_layers_multiply_with_is_known_as_matrices() -> None:
    module = GraphModule(layers(group=1))
    assert {name: module.matrices().get(w.parameter) for name, w in module.weights.items()} == {
        "first": (1, 4, 36),
        "codes": (1, 8, 4),
        "last": (1, 4, 8),
        "table": None,
        "w": (1, 3, 5),
        "b": None,
        "given": (1, 3, 3),
        "hidden": (1, 3, 3),
    }
    grouped = GraphModule(layers(group=2))
    assert grouped.weights["first"].parameter not in grouped.matrices()


def test_what_a_layer_adds_is_no_matrix_and_does_not_decay() -> None:
    module = GraphModule(
        from_text("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2,3] x) => (float[2,2] y) <float[3,2] w = {1,2,3,4,5,6}, float[2,2] b = {1,2,3,4}> {
            y = Gemm (x, w, b)
        }""")
    )
    w, b = (module.weights[name].parameter for name in "wb")
    assert list(module.matrices()) == [w]
    assert [*module.trained(True)] == [w]
    assert [*module.trained(False)] == [b]


def test_arrays_that_copies_share_stay_as_they_are() -> None:
    model = from_text(NET)
    module, values = GraphModule(model), next(c for c in model.constants() if c.name == "w").values
    with torch.no_grad():
        module.weights["w"].parameter.zero_()
    module.write(model.copy())
    assert values.any()


def test_an_if_runs_the_branch_of_its_condition(same_as_onnxruntime: Callable[..., float]) -> None:
    model = from_text("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2,3] x, bool c) => (float[2,3] y) <float[3] w = {1,2,3}> {
            h = Mul (x, w)
            y = If (c) <
                then_branch = a () => (float[2,3] p) <float[3] u = {5,6,7}> { p = Add (h, u) },
                else_branch = b () => (float[2,3] q) { k = Neg (h) q = Relu (k) }>
        }""")
    x = np.array([[1, -2, 3], [-4, 5, 6]], np.float32)
    for condition in (True, False):
        assert same_as_onnxruntime(model, {"x": x, "c": np.array(condition)}) == 0
    module = GraphModule(model)
    assert list(module.weights) == ["w", "u"]
    module({"x": torch.from_numpy(x), "c": torch.tensor(True)})["y"].sum().backward()
    assert module.weights["u"].parameter.grad.tolist() == [2, 2, 2]


def test_only_what_wanted_values_need_is_compiled() -> None:
    model = from_text(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2,3] x) => (int64[M,3] y) <float[3] w = {1,2,3}> {
            h = Mul (x, w)
            b = Cast <to=9> (h)
            s = StringNormalizer (x)
            y = NonMaxSuppression (h, h)
        }""".replace("            s = StringNormalizer (x)\n", "")
    )
    assert GraphModule(model, outputs=["h"]).outputs == ["h"]
    with pytest.raises(ZcError, match="NonMaxSuppression cannot be trained: it has no torch form"):
        GraphModule(model)
    with pytest.raises(ZcError, match="has no value 'nothing'"):
        GraphModule(model, outputs=["nothing"])


def test_batch_normalization_in_either_mode() -> None:
    model = from_text("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N,2,3] x) => (float[N,2,3] y)
        <float[2] s = {1,2}, float[2] b = {0,1}, float[2] m = {0,0}, float[2] v = {1,1}> {
            y = BatchNormalization <momentum = 0.75> (x, s, b, m, v)
        }""")
    x = torch.randn(16, 2, 3, generator=torch.Generator().manual_seed(0)) * 3 + 2
    module = GraphModule(model)
    assert list(module.weights) == ["s", "b"]
    module({"x": x})
    assert module.write(model) == 0
    module.batch_statistics(True)
    y = module({"x": x})["y"]
    np.testing.assert_allclose(y.mean((0, 2)).detach(), [0, 1], atol=1e-5)
    assert module.write(model) == 2
    moved = {c.name: c.values for c in model.constants()}
    np.testing.assert_allclose(moved["m"], 0.25 * x.mean((0, 2)).numpy(), rtol=1e-5)
    np.testing.assert_allclose(moved["v"], 0.75 + 0.25 * x.var((0, 2)).numpy(), rtol=1e-5)


QDQ = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x) => (float[N,2] y)
    <float xs = {0.02}, uint8 xz = {128}, int8[2,3] w = {100,-7,3, 5,60,-128}, float[2] ws = {0.01,0.005},
     int8[2] wz = {0,0}, int32[2] b = {250,-1000}, float[2] bs = {0.0002,0.0001}, int32[2] bz = {0,0}> {
        xq = QuantizeLinear (x, xs, xz)
        xd = DequantizeLinear (xq, xs, xz)
        wd = DequantizeLinear <axis = 0> (w, ws, wz)
        bd = DequantizeLinear <axis = 0> (b, bs, bz)
        y = Gemm <transB = 1> (xd, wd, bd)
    }"""


def test_codes_are_trained_as_floats_and_written_back_as_codes(same_as_onnxruntime: Callable[..., float]) -> None:
    model = from_text(QDQ)
    assert same_as_onnxruntime(model, some_feeds(model)) <= 1e-6
    module = GraphModule(model)
    assert list(module.weights) == ["w", "b"]
    assert module.write(model) == 0
    module(tensors(some_feeds(model)))["y"].sum().backward()
    assert (module.weights["w"].parameter.grad != 0).all()
    with torch.no_grad():
        module.weights["w"].parameter += 0.012
    module.write(model)
    codes = next(c for c in model.constants() if c.name == "w").values
    assert codes.dtype == np.int8
    assert codes.tolist() == [[101, -6, 4], [7, 62, -126]]


def test_inner_values_can_be_given() -> None:
    model = from_text("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1,2,3,4}, float[2,2] v = {1,0,0,2}> {
            h = MatMul (x, w)
            y = MatMul (h, v)
        }""")
    module = GraphModule(model, inputs=["h"])
    assert list(module.weights) == ["v"]
    assert module({"h": torch.tensor([[3.0, 5.0]])})["y"].tolist() == [[3, 10]]
    with pytest.raises(ZcError, match="g: has no value 'k'"):
        GraphModule(model, inputs=["k"])


def test_codes_of_fewer_bits_keep_to_them(same_as_onnxruntime: Callable[..., float]) -> None:
    model = from_text("""
        <ir_version: 10, opset_import: ["" : 21]>
        g (float[N,2] x) => (float[N,2] y, float[N,2] z)
        <int8[2,2] w = {7,-7,3,1}, int8[2,2] v = {-7,6,3,1}, float s = {0.5}, int8 o = {0}> {
            c = Cast <to = 3> (w)
            d = DequantizeLinear (c, s, o)
            y = MatMul (x, d)
            e = DequantizeLinear (v, s, o)
            z = MatMul (x, e)
        }""")
    packed = next(c for c in model.constants() if c.name == "w")
    packed.values = packed.values.astype(dtype_of(TensorProto.INT4))
    assert same_as_onnxruntime(model, some_feeds(model)) <= 1e-6
    module = GraphModule(model)
    assert list(module.weights) == ["w", "v"]
    with torch.no_grad():
        for weight in module.weights.values():
            weight.parameter -= 20
    module(tensors(some_feeds(model)))["y"].sum().backward()
    assert module.arrays()["w"].astype(int).tolist() == [[-7, -7], [-7, -7]]
    assert module.arrays()["v"].tolist() == [[-7, -7], [-7, -7]]


def test_learned_scales_stay_tied_and_the_bias_scale_is_their_product() -> None:
    model = from_text(QDQ)
    module = GraphModule(model, learn_scales=True)
    with torch.no_grad():
        module.weights["w"].parameter += 0.003  # on the grid itself a scale has no gradient
    assert set(module.weights) == {"w", "b", "xs", "ws", "bs"}
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    module(tensors(some_feeds(model)))["y"].square().mean().backward()
    optimizer.step()
    arrays = module.arrays()
    assert arrays["xs"] != np.float32(0.02)
    assert (arrays["ws"] != np.array([0.01, 0.005], np.float32)).any()
    np.testing.assert_allclose(arrays["bs"], arrays["xs"] * arrays["ws"], rtol=1e-5)


def test_a_scale_learns_as_in_learned_step_size_quantization() -> None:
    model = from_text("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[4] x) => (float[4] y) <float s = {0.5}, int8 z = {0}> {
            q = QuantizeLinear (x, s, z)
            y = DequantizeLinear (q, s, z)
        }""")
    module = GraphModule(model, learn_scales=True)
    x = torch.tensor([0.6, -0.3, 1000.0, -1000.0])
    for i, code in enumerate((1, -1, 127, -128)):
        module.zero_grad()
        module({"x": x})["y"][i].backward()
        inside = abs(code) < 127
        want = code - (x[i].item() / 0.5 if inside else 0)  # Esser et al., equation 3
        assert module.weights["s"].parameter.grad.item() == pytest.approx(want * 0.5, rel=1e-5)  # of its logarithm


def test_half_precision_weights_are_trained_in_float32_and_stored_in_half() -> None:
    model = from_text("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N,2] x) => (float[N,2] y) <float16[2,2] w = {1,2,3,4}> {
            f = Cast <to = 1> (w)
            y = MatMul (x, f)
        }""")
    module = GraphModule(model)
    assert module.weights["w"].parameter.dtype == torch.float32
    assert module.arrays()["w"].dtype == np.float16


def test_what_is_no_weight_is_not_trained() -> None:
    model = from_text("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3] x, float[3,3] d) => (float[N,3] y, float[N,3] z)
        <float half = {0.5}, float[3] mask = {0,-10000,0}, float[3] lo = {0,0,0}, float[3,3] d = {1,0,0,0,1,0,0,0,1},
         float[3] twice = {1,2,3}> {
            a = Mul (x, half)
            b = Add (a, mask)
            c = Max (b, lo)
            z = MatMul (c, d)
            e = Max (c, twice)
            y = Add (e, twice)
        }""")
    module = GraphModule(model)
    assert list(module.weights) == []
    reasons = {one.name: one.why for one in module.left}
    assert reasons["d"] == "it is a graph input, so its values can change at run time"


def test_an_operator_without_a_gradient_on_the_trained_path_is_named() -> None:
    model = from_text("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3] x) => (float[N,3] y) <float[3,3] w = {1,0,0,0,1,0,0,0,1}, float[3] b = {1,2,3}> {
            h = MatMul (x, w)
            [step] r = Floor (h)
            s = Shape (h)
            t = Reshape (r, s)
            y = Add (t, b)
        }""")
    weights = GraphModule(model).weights
    with pytest.raises(
        ZcError, match=r"node 'step' \(Floor\) has no gradient, and weight 'w' acts on y through it alone"
    ):
        require_gradient(model, ["y"], weights)
    require_gradient(model, ["y"], ["b"])
    require_gradient(model, ["h"], ["w"])


@pytest.mark.parametrize("name", ["digits_cnn", "digits_cnn_bn", "lstm", "recommender", "transformer_block"])
def test_golden_models_say_the_same(
    name: str, golden_model: Callable[[str], Model], same_as_onnxruntime: Callable[..., float]
) -> None:
    model = golden_model(name)
    assert same_as_onnxruntime(model, some_feeds(model)) <= 1e-5


NOISY = {"magika_standard_v3_3"}  # its variance is the difference of large means: float32 itself moves it


@pytest.mark.real
def test_real_models_say_the_same(shared: Path, same_as_onnxruntime: Callable[..., float]) -> None:
    for path in sorted((shared / "models").glob("*.onnx")):
        model = load(path)
        error = same_as_onnxruntime(model, some_feeds(model, 2))
        assert error <= (1e-2 if path.stem in NOISY else 1e-5), path.name


@pytest.mark.real
def test_magika_is_as_near_to_the_truth_as_onnxruntime(shared: Path) -> None:
    model = load(shared / "models" / "magika_standard_v3_3.onnx")
    feeds = some_feeds(model, 4)
    exact, plain = GraphModule(model, learn_scales=False).double(), GraphModule(model)
    name = model.outputs[0].name
    with torch.no_grad():
        truth, got = exact(tensors(feeds))[name].numpy(), plain(tensors(feeds))[name].numpy()
    theirs = np.abs(Runner(model, level="off").run(feeds)[name] - truth).max()
    assert np.abs(got - truth).max() <= 2 * theirs + 1e-6
