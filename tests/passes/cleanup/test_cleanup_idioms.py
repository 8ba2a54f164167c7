import numpy as np
import pytest

from zc.execute import Runner

HALF = "float root = {1.4142135}, float one = {1.0}, float half = {0.5}"
ERF = {
    "torch": "d = Div (x, root) e = Erf (d) a = Add (e, one) p = Mul (x, a) y = Mul (p, half)",
    "half first": "h = Mul (half, x) d = Div (x, root) e = Erf (d) a = Add (one, e) y = Mul (h, a)",
    "half on the sum": "d = Mul (x, r) e = Erf (d) a = Add (e, one) p = Mul (a, half) y = Mul (x, p)",
    "divided by two": "d = Mul (r, x) e = Erf (d) a = Add (e, one) p = Mul (a, x) y = Div (p, two)",
}
TANH = {
    "jax": """a = Mul (c, x) b = Mul (x, a) e = Mul (x, b) s = Add (x, e) u = Mul (k, s) t = Tanh (u)
              v = Add (one, t) w = Mul (half, v) y = Mul (x, w)""",
    "torch": """p = Pow (x, three) e = Mul (p, c) s = Add (x, e) u = Mul (s, k) t = Tanh (u)
                v = Add (t, one) w = Mul (x, half) y = Mul (w, v)""",
    "fast": """q = Mul (x, x) e = Mul (c, q) s = Add (one, e) z = Mul (x, k) u = Mul (z, s) t = Tanh (u)
               v = Add (t, one) w = Mul (x, v) y = Mul (w, half)""",
}


def gelu(body: str) -> str:
    return f"""g (float[N,3,8] x) => (float[N,3,8] y)
    <{HALF}, float r = {{0.70710677}}, float two = {{2.0}}, float c = {{0.044715}}, float k = {{0.7978846}},
     float three = {{3.0}}> {{ {body} }}"""


@pytest.mark.parametrize("form", ERF)
def test_gelu_is_recognised_however_its_factors_stand(run_pass, form):
    after = run_pass("fuse", gelu(ERF[form]), opset=20)
    assert after.ops == ["Gelu"]
    assert not after.model.graph.nodes[0].attrs


@pytest.mark.parametrize("form", TANH)
def test_gelu_with_tanh_is_recognised_whatever_its_cube(run_pass, form):
    after = run_pass("fuse", gelu(TANH[form]), opset=20)
    assert after.ops == ["Gelu"]
    assert after.model.graph.nodes[0].attrs == {"approximate": "tanh"}


@pytest.mark.parametrize(
    "body",
    [
        "d = Div (x, two) e = Erf (d) a = Add (e, one) p = Mul (x, a) y = Mul (p, half)",
        "d = Div (x, root) e = Erf (d) a = Add (e, half) p = Mul (x, a) y = Mul (p, half)",
        "d = Div (x, root) e = Erf (d) a = Add (e, one) p = Mul (d, a) y = Mul (p, half)",
        "d = Div (x, root) e = Erf (d) a = Add (e, one) p = Mul (x, a) y = Mul (p, two)",
    ],
    ids=["inside", "sum", "factor", "half"],
)
def test_what_only_looks_like_gelu_is_left(run_pass, body):
    assert "Gelu" not in run_pass("fuse", gelu(body), opset=20).ops


def test_a_sum_that_is_read_elsewhere_keeps_gelu_written_out(run_pass):
    text = """g (float[N,8] x) => (float[N,8] y, float[N,8] a)
    <float root = {1.4142135}, float one = {1.0}, float half = {0.5}> {
        d = Div (x, root) e = Erf (d) a = Add (e, one) p = Mul (x, a) y = Mul (p, half)
    }"""
    assert "Gelu" not in run_pass("fuse", text, opset=20).ops


def test_an_older_operator_set_keeps_the_factors_of_gelu_out_of_the_layer_behind(run_pass):
    """Onnxruntime looks for them, and computes the GELU in one go only if it finds all."""
    after = run_pass(
        "clean",
        """g (float[N,3,8] x) => (float[N,3,4] y)
        <float[8,4] w, float root = {1.4142135}, float one = {1.0}, float half = {0.5}> {
            d = Div (x, root) e = Erf (d) a = Add (e, one) p = Mul (x, a) g = Mul (p, half) y = MatMul (g, w)
        }""",
        opset=17,
    )
    assert after.ops == ["Div", "Erf", "Add", "Mul", "Mul", "MatMul"]


CENTRED = {
    "torch": """m = ReduceMean <axes = [-1]> (x) c = Sub (x, m) s = Pow (c, two) v = ReduceMean <axes = [-1]> (s)
                w = Add (v, eps) d = Sqrt (w) n = Div (c, d) g = Mul (n, scale) y = Add (g, offset)""",
    "subtracted twice": """m = ReduceMean <axes = [-1]> (x) c = Sub (x, m) b = Sub (x, m) s = Mul (b, b)
                v = ReduceMean <axes = [2]> (s) w = Add (eps, v) d = Sqrt (w) n = Div (c, d) g = Mul (scale, n)
                y = Add (offset, g)""",
    "reciprocal": """m = ReduceMean <axes = [-1]> (x) c = Sub (x, m) s = Mul (c, c) v = ReduceMean <axes = [-1]> (s)
                w = Add (v, eps) d = Sqrt (w) i = Div (one, d) r = Mul (i, scale) g = Mul (c, r) y = Add (g, offset)""",
}


def norm(body: str, more: str = "") -> str:
    return f"""g (float[N,3,8] x) => (float[N,3,8] y)
    <float[8] scale, float[8] offset, float eps = {{0.01}},
    float two = {{2.0}}, float one = {{1.0}}{more}> {{ {body} }}"""


@pytest.mark.parametrize("form", CENTRED)
def test_layer_normalisation_is_recognised(run_pass, form):
    after = run_pass("fuse", norm(CENTRED[form]), opset=17)
    assert after.ops == ["LayerNormalization"]
    assert after.model.graph.nodes[0].attrs["axis"] == -1
    assert np.isclose(after.model.graph.nodes[0].attrs["epsilon"], 0.01)


def test_layer_normalisation_without_scale_gets_ones(run_pass):
    body = CENTRED["torch"].partition("n = Div")[0] + "y = Div (c, d)"
    after = run_pass("fuse", norm(body), opset=17)
    assert after.ops == ["LayerNormalization"]
    assert (after.model.graph.nodes[0].inputs[1].values == 1).all()


def test_normalisation_along_an_inner_axis_is_turned_there_and_back(run_pass):
    after = run_pass(
        "fuse",
        """g (float[N,8,3] x) => (float[N,8,3] y)
        <float[8,1] scale, float[1,8,1] offset, float eps = {0.01}, float two = {2.0}> {
            m = ReduceMean <axes = [1]> (x) c = Sub (x, m) s = Pow (c, two) v = ReduceMean <axes = [1]> (s)
            w = Add (v, eps) d = Sqrt (w) n = Div (c, d) g = Mul (n, scale) y = Add (g, offset)
        }""",
        opset=17,
    )
    assert after.ops == ["Transpose", "LayerNormalization", "Transpose"]


DIFFERENCE = """g (float[N,3,8] x) => (float[N,3,8] y)
    <float[8] scale, float[8] offset, float eps = {0.01}, float n = {0.125}, float none = {0.0},
     int64[1] last = {2}, int64[3] wide = {0, 3, 1}> {
        t = ReduceSum <keepdims = 0> (x, last) q = Mul (x, x) u = ReduceSum <keepdims = 0> (q, last)
        m = Mul (t, n) e = Mul (u, n) p = Mul (m, m) v = Sub (e, p) b = Max (none, v)
        k = Reshape (b, wide) w = Add (k, eps) d = Sqrt (w) i = Reciprocal (d) r = Mul (i, scale)
        l = Reshape (m, wide) c = Sub (x, l) g = Mul (c, r) y = Add (g, offset)
    }"""


def test_a_variance_that_loses_digits_is_left_as_the_model_has_it(run_pass):
    after = run_pass("fuse", DIFFERENCE, opset=17)
    assert "LayerNormalization" not in after.ops
    assert "loses digits" in after.reasons


def test_a_variance_that_loses_digits_is_recognised_on_request(text_model):
    from zc.ir.shapes import infer_shapes
    from zc.passes.cleanup.dce import drop_dead_nodes
    from zc.passes.cleanup.fuse_idioms import BOLD
    from zc.passes.cleanup.rules import rewrite

    model = text_model(DIFFERENCE, 17)
    before = model.copy()
    infer_shapes(model)
    rewrite(model, BOLD)
    drop_dead_nodes(model)
    assert [n.op for n in model.graph.nodes] == ["LayerNormalization"]
    x = {"x": np.random.default_rng(0).standard_normal((2, 3, 8)).astype(np.float32)}
    np.testing.assert_allclose(Runner(model).run(x)["y"], Runner(before).run(x)["y"], atol=1e-5)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("v = ReduceMean <axes = [-1]> (s)", "v = ReduceMean <axes = [1]> (s)"),
        ("w = Add (v, eps)", "o = Mul (v, two) w = Add (o, eps)"),
        ("n = Div (c, d)", "n = Div (x, d)"),
        ("s = Pow (c, two)", "s = Pow (x, two)"),
    ],
    ids=["another axis", "twice the variance", "not centred", "square of x"],
)
def test_what_only_looks_like_normalisation_is_left(run_pass, old, new):
    body = CENTRED["torch"]
    assert old in body
    assert "LayerNormalization" not in run_pass("fuse", norm(body.replace(old, new)), opset=17).ops


def test_an_older_operator_set_keeps_scale_and_offset_with_the_normalisation(run_pass):
    body = CENTRED["torch"].replace("y = Add", "h = Add") + " y = MatMul (h, w2)"
    after = run_pass("clean", norm(body, ", float[8,8] w2"), opset=13)
    assert after.ops[-3:] == ["Mul", "Add", "MatMul"]


def test_idioms_in_a_branch_are_recognised(run_pass):
    after = run_pass(
        "fuse",
        """g (bool c, float[N,8] x) => (float[N,8] y) {
            y = If (c) <then_branch = t () => (float[N,8] a)
            <float root = {1.4142135}, float one = {1.0}, float half = {0.5}> {
                d = Div (x, root) e = Erf (d) s = Add (e, one) p = Mul (x, s) a = Mul (p, half)
            }, else_branch = f () => (float[N,8] b) { b = Identity (x) }>
        }""",
        opset=20,
    )
    (node,) = after.model.graph.nodes
    assert [n.op for n in node.attrs["then_branch"].nodes] == ["Gelu"]
