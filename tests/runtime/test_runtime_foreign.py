"""Q/DQ in the forms that other tools write: the same codes as onnxruntime's."""

import numpy as np
import pytest

from tests.passes.quantize.conftest import fill
from zc.execute import Runner
from zc.runtime import Session

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
SCALES = "float s = {0.05}, uint8 z = {100}, float ws = {0.01}, int8 wz = {0}"


@pytest.fixture
def session():
    """Of a text with random weights, checked against onnxruntime on random rows."""

    def check(text: str, **feeds: np.ndarray) -> Session:
        model = fill(HEAD + text)
        feeds = feeds or {"x": np.random.default_rng(0).standard_normal((3, 4, 8, 8)).astype(np.float32)}
        made = Session(model)
        want = Runner(model).run(feeds)
        for got, name in zip(made.run(None, feeds), want, strict=True):
            np.testing.assert_array_equal(got, want[name])
        return made

    return check


def test_weights_whose_rounding_is_left_to_nodes(session) -> None:
    text = f"""(float[N,4,8,8] x) => (float[N,4,8,8] y) <{SCALES}, float[4,4,3,3] w> {{
        xq = QuantizeLinear (x, s, z)  xd = DequantizeLinear (xq, s, z)
        wq = QuantizeLinear (w, ws, wz)  wd = DequantizeLinear (wq, ws, wz)
        c = Conv <pads = [1,1,1,1]> (xd, wd)
        cq = QuantizeLinear (c, s, z)  y = DequantizeLinear (cq, s, z)
    }}"""
    assert not session(text).float_nodes


def test_constants_as_nodes(session) -> None:
    text = """(float[N,4,8,8] x) => (float[N,256] y) {
        s = Constant <value = float {0.05}> ()  z = Constant <value = uint8 {100}> ()
        shape = Constant <value_ints = [0, -1]> ()
        xq = QuantizeLinear (x, s, z)  xd = DequantizeLinear (xq, s, z)
        r = Reshape (xd, shape)
        rq = QuantizeLinear (r, s, z)  y = DequantizeLinear (rq, s, z)
    }"""
    assert not session(text).float_nodes


def test_float_biases_are_rounded_where_the_output_becomes_codes(session) -> None:
    text = f"""(float[N,4,8,8] x) => (float[N,4,8,8] y) <{SCALES}, float[4,4,3,3] w, float[4] b> {{
        xq = QuantizeLinear (x, s, z)  xd = DequantizeLinear (xq, s, z)
        wq = QuantizeLinear (w, ws, wz)  wd = DequantizeLinear (wq, ws, wz)
        c = Conv <pads = [1,1,1,1]> (xd, wd, b)
        cq = QuantizeLinear (c, s, z)  y = DequantizeLinear (cq, s, z)
    }}"""
    assert not session(text).float_nodes


def test_a_layer_that_is_read_in_float_too_keeps_its_bias(session) -> None:
    text = f"""(float[N,4,8,8] x) => (float[N,4,8,8] y, float[N,4,8,8] e) <{SCALES}, float[4,4,3,3] w, float[4] b> {{
        xq = QuantizeLinear (x, s, z)  xd = DequantizeLinear (xq, s, z)
        wq = QuantizeLinear (w, ws, wz)  wd = DequantizeLinear (wq, ws, wz)
        c = Conv <pads = [1,1,1,1]> (xd, wd, b)
        cq = QuantizeLinear (c, s, z)  cd = DequantizeLinear (cq, s, z)
        d = Conv <pads = [1,1,1,1]> (cd, wd)
        dq = QuantizeLinear (d, s, z)  y = DequantizeLinear (dq, s, z)
        e = Exp (c)
    }}"""
    assert {n.op for n in session(text).float_nodes} == {"Conv", "Exp"}


def test_codes_that_an_island_makes_and_reads_itself(session) -> None:
    text = f"""(float[N,4,8,8] x) => (float[N,4,8,8] y) <{SCALES}> {{
        t = Sin (x)
        tq = QuantizeLinear (t, s, z)  td = DequantizeLinear (tq, s, z)
        u = Sin (td)
        uq = QuantizeLinear (u, s, z)  ud = DequantizeLinear (uq, s, z)
        a = Add (td, ud)
        aq = QuantizeLinear (a, s, z)  y = DequantizeLinear (aq, s, z)
    }}"""
    assert {n.op for n in session(text).float_nodes} == {"Sin"}


def test_sizes_that_are_computed(session) -> None:
    text = f"""(float[N,4,8,8] x) => (float[N,K] y) <{SCALES}, int64 zero = {{0}}, int64[1] rest = {{-1}}> {{
        xq = QuantizeLinear (x, s, z)  xd = DequantizeLinear (xq, s, z)
        all = Shape (xd)
        n = Gather (all, zero)
        rows = Unsqueeze (n, rest_axis)
        flat = Concat <axis = 0> (rows, rest)
        r = Reshape (xd, flat)
        t = Sin (r)
        tq = QuantizeLinear (t, s, z)  y = DequantizeLinear (tq, s, z)
    }}""".replace("int64[1] rest =", "int64[1] rest_axis = {0}, int64[1] rest =")
    session(text)


def test_branches_run_as_an_island(session) -> None:
    text = f"""(float[N,4,8,8] x, bool c) => (float[N,4,8,8] y) <{SCALES}> {{
        xq = QuantizeLinear (x, s, z)  xd = DequantizeLinear (xq, s, z)
        i = If (c) <
            then_branch = t () => (float[N,4,8,8] p) {{ a = Sin (xd) p = Neg (a) }},
            else_branch = e () => (float[N,4,8,8] q) {{ b = Cos (xd) q = Abs (b) }}
        >
        iq = QuantizeLinear (i, s, z)  y = DequantizeLinear (iq, s, z)
    }}"""
    x = np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)
    for c in (True, False):
        session(text, x=x, c=np.array(c))
