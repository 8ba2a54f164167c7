"""Factors on channels: whatever the analysis lets through leaves the outputs as they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.passes.quantize.conftest import fill
from zc.execute import Runner, relative_error
from zc.ir.edit import sort_nodes
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes
from zc.passes.quantize.scaling.balance import Classes
from zc.passes.quantize.scaling.flow import Flow
from zc.passes.quantize.scaling.interpret import interpret
from zc.passes.quantize.scaling.rescale import rescale

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '

# Each graph with the number of factors that are free in it.
FREE = {
    "relu": (
        4,
        """(float[N,3,6,6] x) => (float[N,2,6,6] z) <float[4,3,1,1] w, float[4] b, float[2,4,1,1] v> {
            c = Conv (x, w, b)  r = Relu (c)  z = Conv (r, v) }""",
    ),
    "depthwise": (
        12,
        """(float[N,3,6,6] x) => (float[N,2,4,4] z)
            <float[4,3,1,1] w, float[8,1,3,3] d, float[8] b, float[2,8,1,1] v> {
            c = Conv (x, w)  r = LeakyRelu (c)  e = Conv <group = 4> (r, d, b)  s = Relu (e)  z = Conv (s, v) }""",
    ),
    "grouped": (
        14,
        """(float[N,3,6,6] x) => (float[N,2,6,6] z) <float[6,3,1,1] w, float[8,3,1,1] d, float[2,8,1,1] v> {
            c = Conv (x, w)  e = Conv <group = 2> (c, d)  z = Conv (e, v) }""",
    ),
    "transposed convolution": (
        10,
        """(float[N,3,6,6] x) => (float[N,2,12,12] z)
            <float[4,3,1,1] w, float[4,3,2,2] d, float[6] b, float[2,6,1,1] v> {
            c = Conv (x, w)
            e = ConvTranspose <group = 2, strides = [2, 2]> (c, d, b)
            z = Conv (e, v) }""",
    ),
    "residual": (
        8,
        """(float[N,3,6,6] x) => (float[N,2,6,6] z)
            <float[4,3,1,1] w, float[4,4,1,1] d, float[4,4,1,1] e, float[1,4,1,1] k, float[2,4,1,1] v> {
            c = Conv (x, w)  r = Relu (c)  a = Conv (r, d)  b = Relu (a)  t = Conv (b, e)
            s = Add (t, r)  u = Add (s, k)  z = Conv (u, v) }""",
    ),
    "concat": (
        7,
        """(float[N,3,6,6] x) => (float[N,2,3,3] z) <float[4,3,1,1] w, float[3,3,1,1] u, float[2,7,1,1] v> {
            a = Conv (x, w)  b = Conv (x, u)  c = Concat <axis = 1> (a, b)
            m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)  z = Conv (m, v) }""",
    ),
    "shuffle": (
        8,
        """(float[N,3,6,6] x) => (float[N,2,6,6] z)
            <float[8,3,1,1] w, float[2,8,1,1] v, int64[5] a = {0,2,4,6,6}, int64[4] b = {0,8,6,6}> {
            c = Conv (x, w)  r = Reshape (c, a)  t = Transpose <perm = [0,2,1,3,4]> (r)
            s = Reshape (t, b)  z = Conv (s, v) }""",
    ),
    "flatten": (
        4,
        """(float[N,3,2,2] x) => (float[N,5] z) <float[4,3,1,1] w, float[16,5] v, float[5] b> {
            c = Conv (x, w)  f = Flatten (c)  z = Gemm (f, v, b) }""",
    ),
    "mean": (
        4,
        """(float[N,3,6,6] x) => (float[N,5] z) <float[4,3,1,1] w, float[5,4] v> {
            c = Conv (x, w)  m = ReduceMean <axes = [2, 3], keepdims = 0> (c)  z = Gemm <transB = 1> (m, v) }""",
    ),
    "split and slice": (
        5,
        """(float[N,3,6,6] x) => (float[N,2,6,6] z, float[N,2,6,6] y)
            <float[6,3,1,1] w, float[2,2,1,1] v, float[2,3,1,1] u, int64[2] parts = {3,3},
             int64[1] one = {1}, int64[1] nine = {9}> {
            c = Conv (x, w)  a, b = Split <axis = 1> (c, parts)
            s = Slice (a, one, nine, one)  z = Conv (s, v)  y = Conv (b, u) }""",
    ),
    "padded channels": (
        8,  # with the four that are zero
        """(float[N,3,6,6] x) => (float[N,2,6,6] z)
            <float[4,3,1,1] w, float[2,8,1,1] v, int64[8] pads = {0,2,0,0,0,2,0,0}> {
            c = Conv (x, w)  p = Pad (c, pads)  z = Conv (p, v) }""",
    ),
    "prelu, pools and resizing": (
        4,
        """(float[N,3,6,6] x) => (float[N,2,6,6] z)
            <float[4,3,1,1] w, float[4,1,1] slope, float[2,4,1,1] v, float[4] f = {1,1,2,2}> {
            c = Conv (x, w)  r = PRelu (c, slope)
            a = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (r)
            s = Resize <mode = "linear"> (a, , f)  z = Conv (s, v) }""",
    ),
    "depth to space and back": (
        2,
        """(float[N,3,6,6] x) => (float[N,2,6,6] z) <float[8,3,1,1] w, float[2,8,1,1] v> {
            c = Conv (x, w)  d = DepthToSpace <blocksize = 2> (c)
            s = SpaceToDepth <blocksize = 2> (d)  z = Conv (s, v) }""",
    ),
    "batch normalisation": (
        4,
        """(float[N,3,6,6] x) => (float[N,2,6,6] z)
            <float[4,3,1,1] w, float[4] g, float[4] b, float[4] m, float[4] d = {1,2,3,4}, float[2,4,1,1] v> {
            c = Conv (x, w)  n = BatchNormalization (c, g, b, m, d)  r = Relu (n)  z = Conv (r, v) }""",
    ),
    "layer normalisation": (
        8,
        """(float[N,5,8] x) => (float[N,5,3] z) <float[8] g, float[8] b, float[8,3] v> {
            n = LayerNormalization (x, g, b)  z = MatMul (n, v) }""",
    ),
    "layer normalisation written out": (
        8,
        """(float[N,5,8] x) => (float[N,5,3] z)
            <float[8] g, float[8] b, float[8,3] v, float two = {2.0}, float tiny = {1e-5}> {
            m = ReduceMean <axes = [-1]> (x)  c = Sub (x, m)  q = Pow (c, two)  d = ReduceMean <axes = [-1]> (q)
            e = Add (d, tiny)  s = Sqrt (e)  u = Div (c, s)  f = Mul (u, g)  n = Add (f, b)  z = MatMul (n, v) }""",
    ),
    "embedding": (
        8,
        """(int64[N,5] i) => (float[N,5,3] z) <float[7,8] table, float[1,5,8] p, float[8,3] v> {
            e = Gather (table, i)  a = Add (e, p)  z = MatMul (a, v) }""",
    ),
    "values that attention weighs": (
        8,
        """(float[N,4,8] x) => (float[N,4,3] z)
            <float[8,8] q, float[8,8] w, float[8,3] o, int64[4] heads = {0,4,2,4}, int64[3] whole = {0,4,8}> {
            a = MatMul (x, q)  ah = Reshape (a, heads)  at = Transpose <perm = [0,2,1,3]> (ah)
            k = Transpose <perm = [0,2,3,1]> (ah)  l = MatMul (at, k)  p = Softmax (l)
            y = MatMul (x, w)  yh = Reshape (y, heads)  yt = Transpose <perm = [0,2,1,3]> (yh)
            m = MatMul (p, yt)  mt = Transpose <perm = [0,2,1,3]> (m)  f = Reshape (mt, whole)  z = MatMul (f, o) }""",
    ),
    "gate": (
        4,
        """(float[N,3,6,6] x) => (float[N,2,6,6] z) <float[4,3,1,1] w, float[4,3,1,1] u, float[2,4,1,1] v> {
            c = Conv (x, w)  p = GlobalAveragePool (x)  h = Conv (p, u)  s = Sigmoid (h)
            m = Mul (c, s)  z = Conv (m, v) }""",
    ),
    "gather of channels, tiling and choice": (
        3,
        """(float[N,6] x, bool[N,1] c) => (float[N,2] z)
            <float[6,4] w, float[6,2] v, int64[3] i = {2,0,1}, int64[2] twice = {1,2}, float[3] k> {
            m = MatMul (x, w)  g = Gather <axis = 1> (m, i)  h = Where (c, g, k)  t = Tile (h, twice)
            z = MatMul (t, v) }""",
    ),
}

# Graphs in which nothing is free, and the reason.
PINNED = {
    "reaches Sigmoid 's', through which no factor passes": """(float[N,3] x) => (float[N,2] z)
        <float[3,4] w, float[4,2] v> { m = MatMul (x, w)  s = Sigmoid (m)  z = MatMul (s, v) }""",
    "reaches Clip 's', whose bounds are the same for all channels": """(float[N,3] x) => (float[N,2] z)
        <float[3,4] w, float[4,2] v, float lo = {0.0}, float hi = {6.0}> {
        m = MatMul (x, w)  s = Clip (m, lo, hi)  z = MatMul (s, v) }""",
    "reaches 'm', an output of the model": """(float[N,3] x) => (float[N,2] z, float[N,4] m)
        <float[3,4] w, float[4,2] v> { m = MatMul (x, w)  z = MatMul (m, v) }""",
    "reaches MatMul 'z': weight 'v' is shared with another node": """(float[N,3] x) => (float[N,4] z)
        <float[3,4] w, float[4,4] v> { m = MatMul (x, w)  y = MatMul (m, v)  z = MatMul (y, v) }""",
    "reaches Add 's': it has one number for all channels": """(float[N,3] x) => (float[N,2] z)
        <float[3,4] w, float[4,2] v, float k = {3.0}> {
        m = MatMul (x, w)  s = Add (m, k)  z = MatMul (s, v) }""",
    "reaches Pad 's', which pads with a number that is not zero": """(float[N,3] x) => (float[N,2] z)
        <float[3,4] w, float[6,2] v, float k = {3.0}, int64[4] pads = {0,1,0,1}> {
        m = MatMul (x, w)  s = Pad (m, pads, k)  z = MatMul (s, v) }""",
    "is read inside If 'z'": """(float[N,3] x, bool c) => (float[N,2] z) <float[3,4] w, float[4,2] v> {
        m = MatMul (x, w)
        y = MatMul (m, v)
        z = If (c) <then_branch = t () => (float[N,2] a) <int64[1] o = {0}, int64[1] e = {2}, int64[1] l = {1}> {
                        a = Slice (m, o, e, l) },
                    else_branch = f () => (float[N,2] b) { b = Identity (y) }> }""",
}


def opened(model: Model, **options: bool) -> Flow:
    infer_shapes(model)
    sort_nodes(model.graph)
    return interpret(model, **options)


def scale_all(flow: Flow, seed: int) -> int:
    """Put a random factor on every class that is free; how many there are that a layer reads."""
    classes = Classes.of(flow)
    factors = np.exp2(np.random.default_rng(seed).uniform(-3, 3, flow.labels.count))
    rescale(flow, classes.by_label(factors))
    read = np.concatenate([classes.roots[r.layout.reshape(-1)] for r in flow.readers])
    return len(np.unique(read[classes.free[read]]))


def feeds_of(model: Model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    shapes = {s.name: [d if isinstance(d, int) else 3 for d in s.shape] for s in model.inputs}
    return {
        s.name: rng.standard_normal(shapes[s.name]).astype(np.float32)
        if s.dtype == np.float32
        else rng.integers(0, 2, shapes[s.name]).astype(s.dtype)
        for s in model.inputs
    }


@pytest.mark.parametrize("name", FREE)
def test_factors_pass(name, graph):
    expected, text = FREE[name]
    model = graph(HEAD + text)
    want = Runner(model).run(feeds_of(model))
    before = {c.name: c.values for c in model.constants()}
    assert scale_all(opened(model), 1) == expected
    assert any(c.values is not before.get(c.name) for c in model.constants())
    got = Runner(model).run(feeds_of(model))
    assert max(relative_error(got[k], want[k]) for k in want) < 2e-5


@pytest.mark.parametrize("reason", PINNED)
def test_what_stops_them_is_told(reason, graph):
    model = graph(HEAD + PINNED[reason])
    want = Runner(model).run(feeds_of(model))
    flow = opened(model)
    assert reason in flow.labels.reasons
    assert scale_all(flow, 1) == 0
    got = Runner(model).run(feeds_of(model))
    assert max(relative_error(got[k], want[k]) for k in want) == 0


def test_a_residual_sum_may_be_left_alone(graph):
    model = graph(HEAD + FREE["residual"][1])
    assert scale_all(opened(model, residual=False), 1) == 4


def test_a_constant_that_others_read_is_copied(graph):
    text = """(float[N,3] x) => (float[N,4] y, float[N,4] z) <float[3,4] w, float[4] k, float[4,4] v> {
        m = MatMul (x, w)  a = Add (m, k)  y = MatMul (a, v)  z = Add (y, k) }"""
    model = graph(HEAD + text)
    want = Runner(model).run(feeds_of(model))
    flow = opened(model)
    assert scale_all(flow, 1) == 4
    got = Runner(model).run(feeds_of(model))
    assert max(relative_error(got[k], want[k]) for k in want) < 2e-5


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**16),
    st.lists(st.sampled_from(["conv", "relu", "add", "cat", "pool", "dw"]), min_size=2, max_size=9),
)
def test_random_nets_keep_their_outputs(seed, ops):

    lines, weights = [], []
    width, now, trunk = 3, "x", None
    for i, op in enumerate(ops):
        out = f"t{i}"
        if op == "conv":
            weights += [f"float[4,{width},3,3] w{i}", f"float[4] b{i}"]
            lines.append(f"{out} = Conv <pads = [1,1,1,1]> ({now}, w{i}, b{i})")
            width = 4
        elif op == "dw":
            weights.append(f"float[{width},1,3,3] w{i}")
            lines.append(f"{out} = Conv <group = {width}, pads = [1,1,1,1]> ({now}, w{i})")
        elif op == "add" and trunk is not None and trunk[1] == width:
            lines.append(f"{out} = Add ({now}, {trunk[0]})")
        elif op == "cat" and trunk is not None:
            lines.append(f"{out} = Concat <axis = 1> ({now}, {trunk[0]})")
            width += trunk[1]
        elif op == "pool":
            lines.append(f"{out} = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> ({now})")
        else:
            lines.append(f"{out} = Relu ({now})")
        trunk = (now, width) if op == "relu" else trunk
        now = out
        trunk = (out, width) if op in ("conv", "dw") else trunk
    weights.append(f"float[2,{width},1,1] last")
    body = "\n".join([*lines, f"z = Conv ({now}, last)"])
    model = fill(HEAD + f"(float[N,3,5,5] x) => (float[N,2,5,5] z) <{', '.join(weights)}> {{ {body} }}")
    want = Runner(model).run(feeds_of(model))
    scale_all(opened(model), seed)
    got = Runner(model).run(feeds_of(model))
    assert relative_error(got["z"], want["z"]) < 5e-5
