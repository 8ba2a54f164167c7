"""Repair: the layers behind a cut learn from samples to say what the original says."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from zc.data import Samples, load_samples
from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.model import Model
from zc.passes.layers.layers import find_layers
from zc.passes.layers.rows import choose_positions, rows_of
from zc.passes.prune.prune import Prune
from zc.pipeline.base import Context, PassResult
from zc.target import Target

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
BLOCKS = (
    HEAD
    + """
g (float[N,3,8,8] x) => (float[N,5] y)
<float[12,3,3,3] w0, float[12] b0, float[16,12,3,3] w1, float[16] b1, float[12,16,3,3] w2, float[16,12,3,3] w3,
 float[12,16,3,3] w4, float[12] b4, float[5,12] w5, float[5] b5>
{
    a = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
    t = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (t, w1, b1)
    d = Relu (c)
    e = Conv <pads = [1, 1, 1, 1]> (d, w2)
    f = Add (e, t)
    g = Conv <pads = [1, 1, 1, 1]> (f, w3)
    h = Relu (g)
    i = Conv <pads = [1, 1, 1, 1]> (h, w4, b4)
    j = Add (f, i)
    k = GlobalAveragePool (j)
    l = Flatten (k)
    y = Gemm <transB = 1> (l, w5, b5)
}"""
)
DEPTHWISE = (
    HEAD
    + """
g (float[N,4,9,9] x) => (float[N,6,5,5] y)
<float[16,4,1,1] w0, float[16] b0, float[16,1,3,3] wd, float[16] bd, float[6,16,1,1] w1, float[16,4,3,3] wg>
{
    a = Conv (x, w0, b0)
    b = Relu (a)
    c = Conv <group = 16, pads = [1, 1, 1, 1], strides = [2, 2]> (b, wd, bd)
    d = Relu (c)
    e = Conv <group = 4, pads = [2, 2, 2, 2], dilations = [2, 2]> (d, wg)
    f = Relu (e)
    y = Conv (f, w1)
}"""
)
PERCEPTRON = (
    HEAD
    + """
g (float[N,7,6] x) => (float[N,7,4] y) <float[6,24] w1, float[24] b1, float[24,24] w2, float[24,4] w3, float[4] b3>
{
    a = MatMul (x, w1)
    b = Add (b1, a)
    c = Relu (b)
    d = MatMul (c, w2)
    e = Relu (d)
    f = MatMul (e, w3)
    y = Add (f, b3)
}"""
)


@pytest.fixture
def samples(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Samples]:
    def make(model: Model, rows: int = 160) -> Samples:
        spec = model.inputs[0]
        shape = (rows, *[d if isinstance(d, int) else 7 for d in (spec.shape or ())[1:]])
        file = tmp_path_factory.mktemp("rows") / "x.npz"
        np.savez(file, **{spec.name: np.random.default_rng(3).standard_normal(shape).astype(np.float32)})
        return load_samples(str(file), model.inputs)

    return make


def prune(model: Model, samples: Samples | None, **options: object) -> PassResult:
    result = Prune(**options).run(model, Context(Target("test"), samples))  # type: ignore[arg-type]
    onnx.checker.check_model(model.to_proto(), full_check=True)
    return result


def noise(model: Model, original: Model, samples: Samples) -> float:
    """Squared error of the output as a share of its variance."""
    got, want = (
        np.concatenate([Runner(m).run(b)["y"] for b in samples.batches(32)]).astype(float) for m in (model, original)
    )
    return float(np.square(got - want).sum() / np.square(want - want.mean(axis=0)).sum())


@pytest.mark.parametrize("text", [BLOCKS, DEPTHWISE, PERCEPTRON], ids=["residual", "depthwise", "matmul"])
def test_repair_takes_most_of_the_error_away(graph: Callable, samples: Callable, text: str) -> None:
    original, raw, mended = graph(text), graph(text), graph(text)
    rows = samples(original)
    prune(raw, rows, ratio=0.25, repair=False)
    result = prune(mended, rows, ratio=0.25)
    assert noise(mended, original, rows) < 0.6 * noise(raw, original, rows)
    assert result.stats["sqnr_db"] > result.stats["sqnr_db_before_repair"]  # type: ignore[operator]
    assert result.stats["equivalence_error"] <= 1e-5  # type: ignore[operator]


def test_channels_that_others_can_stand_for_cost_nothing(graph: Callable, samples: Callable) -> None:
    original = graph(PERCEPTRON)
    weights = {c.name: c for c in original.constants()}
    for name in ("w1", "b1"):
        values = np.array(weights[name].values)
        values[..., 12:] = 2 * values[..., :12]  # each hidden unit of the first layer is there twice
        weights[name].values = values
    rows, pruned = samples(original), original.copy()
    prune(pruned, rows, ratio=0.5, only=("w1",))
    assert noise(pruned, original, rows) < 1e-3
    plain = original.copy()
    prune(plain, rows, ratio=0.5, only=("w1",), repair=False, criterion="l2")
    assert noise(plain, original, rows) > 0.05


def test_the_mean_of_a_removed_channel_goes_into_the_bias(graph: Callable, samples: Callable) -> None:
    original = graph(PERCEPTRON)
    weights = {c.name: c for c in original.constants()}
    w1, b1 = np.array(weights["w1"].values), np.array(weights["b1"].values)
    w1[:, 5:12] *= 1e-4  # these hidden units say the same for every input: their bias
    b1[5:12] = 3.0
    weights["w1"].values, weights["b1"].values = w1, b1
    text_has_no_bias_in_between = original.copy()
    rows = samples(original)
    result = prune(text_has_no_bias_in_between, rows, ratio=0.25, only=("w1",))
    assert result.stats["sqnr_db"] > 30  # type: ignore[operator]


def test_a_convolution_without_a_bias_gets_one(graph: Callable, samples: Callable) -> None:
    model = graph(BLOCKS)
    prune(model, samples(model), ratio=0.25)
    assert all(len(node.inputs) == 3 for node in model.nodes("Conv"))


def test_equal_biases_may_differ_after_the_repair(graph: Callable, samples: Callable) -> None:
    model = graph(BLOCKS.replace("w2)", "w2, b0)").replace("w4, b4)", "w4, b0)").replace("float[12] b4, ", ""))
    original = model.copy()
    prune(model, samples(model), ratio=0.25)
    biases = [node.inputs[2] for node in model.nodes("Conv")]
    assert len({id(b) for b in biases}) == len(biases)
    assert noise(model, original, samples(original)) < 0.5


def test_shared_weights_are_left_alone_and_said(graph: Callable, samples: Callable) -> None:
    text = PERCEPTRON.replace("f = MatMul (e, w3)", "q = MatMul (e, w2)\n r = Relu (q)\n f = MatMul (r, w3)")
    model = graph(text)
    result = prune(model, samples(model), ratio=0.25)
    assert any("was not repaired: its weight 'w2' is shared" in n.what for n in result.notes)


def test_without_samples_nothing_is_repaired(graph: Callable) -> None:
    model = graph(PERCEPTRON)
    result = prune(model, None, ratio=0.25)
    assert "repaired_layers" not in result.stats
    with pytest.raises(ZcError, match="repair=true needs samples"):
        prune(graph(PERCEPTRON), None, ratio=0.25, repair=True)


def test_repair_is_the_same_every_time(graph: Callable, samples: Callable) -> None:
    models = [graph(BLOCKS), graph(BLOCKS)]
    for model in models:
        prune(model, samples(model), ratio=0.25)
    assert models[0].weights_digest() == models[1].weights_digest()


@pytest.mark.parametrize("text", [BLOCKS, DEPTHWISE, PERCEPTRON], ids=["residual", "depthwise", "matmul"])
def test_layers_are_matrix_products(graph: Callable, samples: Callable, text: str) -> None:
    model = graph(text)
    feed = next(samples(model).batches(4))
    for layer in find_layers(model)[0]:
        names = [n for n in (layer.source.name, layer.end.name) if n not in feed]
        values = {**feed, **Runner(model, outputs=names, level="off").run(feed)}
        source = values[layer.source.name]
        positions = choose_positions(layer, source, 0)
        said = rows_of(layer, source, positions) @ layer.matrix() + layer.offset().reshape(layer.groups, 1, -1)
        flat = said.transpose(1, 0, 2).reshape(*positions.shape, -1)
        end = np.moveaxis(values[layer.end.name], 1, -1) if layer.convolves else values[layer.end.name]
        want = np.take_along_axis(end.reshape(4, -1, end.shape[-1]), positions[:, :, None], axis=1)
        np.testing.assert_allclose(flat, want, rtol=1e-4, atol=1e-5)
        before = layer.weight.values
        layer.set_matrix(layer.matrix())
        np.testing.assert_array_equal(layer.weight.values, before)
