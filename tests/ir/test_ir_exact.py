"""The numbers of a quantised model are those of its codes, whether or not this processor's kernels saturate."""

import numpy as np

from zc.execute import Runner
from zc.ir.exact import precise
from zc.ir.graph import Constant
from zc.ir.model import Model, from_text

DEPTH = 64
TWO_LAYERS = """<ir_version: 8, opset_import: ["" : 17]>
g (float[3,64] x) => (float[3,16] y)
<float step = {0.1}, uint8 low = {0}, int8 nil = {0}, float fine = {0.01}, float wide = {900.0}> {
    a = QuantizeLinear (x, step, low)
    b = DequantizeLinear (a, step, low)
    v1 = DequantizeLinear (w1, fine, nil)
    c = MatMul (b, v1)
    d = QuantizeLinear (c, wide, low)
    e = DequantizeLinear (d, wide, low)
    v2 = DequantizeLinear (w2, fine, nil)
    f = MatMul (e, v2)
    g = QuantizeLinear (f, wide, low)
    y = DequantizeLinear (g, wide, low)
}"""


def two_layers() -> Model:
    """Products of the largest codes, whose pairs leave 16 bits; both weights have one zero point."""
    model = from_text(TWO_LAYERS)
    for name, shape in (("w1", (DEPTH, DEPTH)), ("w2", (DEPTH, 16))):
        reader = next(n for n in model.graph.nodes if n.inputs[0].name == name)
        reader.inputs[0] = Constant(name, np.full(shape, 127, np.int8))
    return model


def test_sums_of_large_codes_are_exact_on_any_processor() -> None:
    found = Runner(two_layers()).run({"x": np.full((3, DEPTH), 25.5, np.float32)})["y"]
    first = np.rint(255 * 127 * DEPTH * 0.1 * 0.01 / 900)
    want = np.rint(first * 900 * 1.27 * DEPTH / 900) * 900
    np.testing.assert_allclose(found, np.clip(want, 0, 255 * 900), rtol=1e-6)


def test_each_int8_constant_gets_one_reader_and_the_model_stays_as_it_is() -> None:
    model = two_layers()
    text = str(model.to_proto())
    split = precise(model)
    codes = [t for n in split.graph.nodes for t in n.inputs if isinstance(t, Constant) and t.dtype == np.int8]
    assert len(codes) == len(set(codes)) == 4
    assert str(model.to_proto()) == text


def test_weights_by_channel_without_zero_points_get_them() -> None:
    model = from_text("""<ir_version: 8, opset_import: ["" : 17]> g (float[N,2] x) => (float[N,2] y)
    <int8[2,2] w = {1,2,3,4}, float[2] s = {0.5,0.25}> {
        d = DequantizeLinear <axis = 1> (w, s)
        y = MatMul (x, d)
    }""")
    (zeros,) = (t.values for n in precise(model).graph.nodes for t in n.inputs[2:])
    assert zeros.tolist() == [0, 0]
    np.testing.assert_array_equal(Runner(model).run({"x": np.eye(2, dtype=np.float32)})["y"], [[0.5, 0.5], [1.5, 1]])
