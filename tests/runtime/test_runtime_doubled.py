"""Two pairs of Q/DQ in a row: onnxruntime makes one of them when it loads a model, and so do we."""

import numpy as np
import pytest

from zc.execute import Runner
from zc.ir.model import Model, from_text
from zc.runtime import Session

HEAD = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,8,8] x) => (float[N,4,8,8] y)
<float s = {0.05}, uint8 z = {100}, float t = {0.03}, uint8 u = {90}, uint8 o = {0}> {
    a = QuantizeLinear (x, s, z) """


def text(body: str) -> Model:
    return from_text(f"{HEAD} {body} }}")


SAME = {
    "two": "b = DequantizeLinear (a, s, z) c = QuantizeLinear (b, t, u) y = DequantizeLinear (c, t, u)",
    "with one zero point": "b = DequantizeLinear (a, s, z) c = QuantizeLinear (b, t, z) y = DequantizeLinear (c, t, z)",
    "three": """b = DequantizeLinear (a, s, z) c = QuantizeLinear (b, t, u) d = DequantizeLinear (c, t, u)
        e = QuantizeLinear (d, t, o) y = DequantizeLinear (e, t, o)""",
    "behind an operator": """b = DequantizeLinear (a, s, z) f = Add (b, b) c = QuantizeLinear (f, t, u)
        d = DequantizeLinear (c, t, u) e = QuantizeLinear (d, s, z) h = DequantizeLinear (e, s, z) i = Mul (h, b)
        j = QuantizeLinear (i, t, u) y = DequantizeLinear (j, t, u)""",
    "with two readers at the end": """b = DequantizeLinear (a, s, z) c = QuantizeLinear (b, t, u)
        d = DequantizeLinear (c, t, u) e = DequantizeLinear (c, t, u) f = Add (d, e)
        g = QuantizeLinear (f, s, z) y = DequantizeLinear (g, s, z)""",
    "with two readers in the middle": """b = DequantizeLinear (a, s, z) c = QuantizeLinear (b, t, u)
        d = DequantizeLinear (c, t, u) f = Add (d, b) g = QuantizeLinear (f, s, z) y = DequantizeLinear (g, s, z)""",
}


@pytest.mark.parametrize("how", SAME)
def test_codes_are_onnxruntimes(how: str) -> None:
    model = text(SAME[how])
    feeds = {"x": (np.random.default_rng(0).standard_normal((3, 4, 8, 8)) * 4).astype(np.float32)}
    session = Session(model, strict=True)
    np.testing.assert_array_equal(session.run(None, feeds)[0], Runner(model).run(feeds)["y"])


def test_one_pair_runs_for_two() -> None:
    assert [type(op).__name__ for op in Session(text(SAME["three"])).ops] == ["Quantize", "Dequantize"]


def test_what_nobody_reads_is_not_run() -> None:
    session = Session(text("b = DequantizeLinear (a, s, z) n = Sin (b) y = DequantizeLinear (a, s, z)"))
    assert not session.float_nodes
    feeds = {"x": np.ones((1, 4, 8, 8), np.float32)}
    np.testing.assert_allclose(session.run(None, feeds)[0], feeds["x"], atol=0.03)
