"""Every operator on codes against onnxruntime's default level: no code may differ, ties included."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

F32 = np.float32
MORE = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)

# Scales whose ratios are powers of two or small fractions make ties; the others are what calibration finds.
SCALES = st.sampled_from([0.5, 0.25, 0.125, 0.1, 0.3, 0.0123, 0.7, 0.02, 1.0])
ZEROS = st.sampled_from([0, 1, 100, 127, 128, 254, 255])
CODING = st.tuples(SCALES, ZEROS)
SEEDS = st.integers(0, 2**31)
TYPES = st.sampled_from([np.uint8, np.int8])


def codes(rng: np.random.Generator, shape: tuple[int, ...], kind: type) -> np.ndarray:
    info = np.iinfo(kind)
    return rng.integers(info.min, info.max + 1, shape).astype(kind)


def weights(rng: np.random.Generator, shape: tuple[int, ...], axis: int, exact: bool) -> tuple[np.ndarray, ...]:
    """int8 codes and scales by channel; exact: powers of two, so that many results are ties."""
    count = shape[axis]
    scale = 2.0 ** rng.integers(-9, -5, count) if exact else rng.uniform(0.001, 0.02, count)
    return rng.integers(-128, 128, shape).astype(np.int8), scale.astype(F32), np.zeros(count, np.int8)


@MORE
@given(
    seed=SEEDS,
    kind=TYPES,
    x=CODING,
    y=CODING,
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    groups=st.sampled_from(["one", "some", "depthwise", "multiplied"]),
    size=st.tuples(st.integers(1, 3), st.integers(9, 14), st.integers(9, 13)),
    exact=st.booleans(),
    threads=st.sampled_from([1, 1, 3]),
)
def test_conv(qdq, agree, seed, kind, x, y, kernel, strides, dilations, pads, groups, size, exact, threads) -> None:
    rng = np.random.default_rng(seed)
    group = {"one": 1, "some": int(rng.integers(2, 4))}.get(groups, int(rng.integers(2, 150)))
    per_in, per_out = (1, 1) if groups == "depthwise" else (int(rng.integers(1, 20)), int(rng.integers(1, 90)))
    if groups == "multiplied":
        group, per_in, per_out = min(group, 20), 1, 2
    w, scale, zero = weights(rng, (group * per_out, per_in, *kernel), 0, exact)
    b = qdq(kind)
    b.input("x", ["N", group * per_in, *size[1:]], x)
    b.weight("w", w, scale, zero, 0)
    bias = rng.integers(-3000, 3000, len(w)).astype(np.int32)
    b.weight("b", bias, (F32(x[0]) * scale).astype(F32), np.zeros(len(w), np.int32), 0)
    attributes = {"strides": strides, "dilations": dilations, "pads": pads, "group": group, "kernel_shape": kernel}
    b.output(b.node("Conv", ["x", "w", "b"], "y", **attributes), y)
    agree(b.model(), {"x_q": codes(rng, (size[0], group * per_in, *size[1:]), kind)}, threads=threads)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("images", "channels", "columns", "size", "kernel", "stride"),
    [
        (1, 130, 200, 14, 3, 1),  # more than one block of channels on either side
        (3, 64, 64, 6, 1, 1),  # just more than one group of 32 pixels an image
        (5, 70, 48, 4, 3, 1),  # images smaller than a group
        (2, 192, 97, 15, 3, 2),
        (1, 1024, 65, 9, 3, 1),  # long sums
        (1, 256, 513, 7, 1, 2),
    ],
)
def test_conv_of_many_channels(qdq, agree, images, channels, columns, size, kernel, stride, threads) -> None:
    rng = np.random.default_rng(channels)
    w, scale, zero = weights(rng, (columns, channels, kernel, kernel), 0, exact=True)
    b = qdq()
    b.input("x", [images, channels, size, size], (0.02, 3))
    b.weight("w", w, scale, zero, 0)
    b.output(b.node("Conv", ["x", "w"], "y", strides=[stride] * 2, pads=[kernel // 2] * 4), (0.9, 100))
    agree(b.model(), {"x_q": codes(rng, (images, channels, size, size), np.uint8)}, threads=threads)


@pytest.mark.parametrize("rows", [1, 15, 16, 31, 32, 33, 100])
def test_product_of_some_rows(qdq, agree, rows) -> None:
    rng = np.random.default_rng(rows)
    w, scale, zero = weights(rng, (150, 90), 1, exact=True)
    b = qdq()
    b.input("x", [rows, 150], (0.02, 3))
    b.weight("w", w, scale, zero, 1)
    b.output(b.node("MatMul", ["x", "w"], "y"), (0.5, 100))
    agree(b.model(), {"x_q": codes(rng, (rows, 150), np.uint8)})


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [1, 3, 64, 70, 130])
def test_depthwise_3x3(qdq, agree, stride, channels) -> None:
    rng = np.random.default_rng(channels)
    w, scale, zero = weights(rng, (channels, 1, 3, 3), 0, exact=True)
    b = qdq()
    b.input("x", [2, channels, 11, 10], (0.25, 128))
    b.weight("w", w, scale, zero, 0)
    b.output(b.node("Conv", ["x", "w"], "y", strides=[stride] * 2, pads=[1, 1, 0, 1], group=channels), (0.5, 3))
    agree(b.model(), {"x_q": codes(rng, (2, channels, 11, 10), np.uint8)})


@pytest.mark.parametrize("group", [1, 4, 8])
def test_conv_in_one_dimension(qdq, agree, group) -> None:
    rng = np.random.default_rng(group)
    w, scale, zero = weights(rng, (8, 8 // group, 5), 0, exact=False)
    b = qdq()
    b.input("x", [2, 8, 40], (0.1, 100))
    b.weight("w", w, scale, zero, 0)
    b.output(b.node("Conv", ["x", "w"], "y", strides=[2], pads=[2, 1], dilations=[2], group=group), (0.3, 100))
    agree(b.model(), {"x_q": codes(rng, (2, 8, 40), np.uint8)})


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_conv_that_pads_itself(qdq, agree, auto_pad) -> None:
    rng = np.random.default_rng(1)
    w, scale, zero = weights(rng, (8, 3, 3, 2), 0, exact=False)
    b = qdq()
    b.input("x", [1, 3, 8, 9], (0.1, 100))
    b.weight("w", w, scale, zero, 0)
    b.output(b.node("Conv", ["x", "w"], "y", strides=[2, 2], auto_pad=auto_pad), (0.3, 100))
    agree(b.model(), {"x_q": codes(rng, (1, 3, 8, 9), np.uint8)})


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_share_the_weights_of_a_layer_that_has_more_of_them_than_codes(qdq, agree, threads) -> None:
    rng = np.random.default_rng(threads)
    w, scale, zero = weights(rng, (200, 64, 3, 3), 0, exact=True)
    b = qdq()
    b.input("x", [1, 64, 9, 9], (0.25, 128))
    b.weight("w", w, scale, zero, 0)
    b.output(b.node("Conv", ["x", "w"], "y", pads=[1] * 4), (0.5, 3))
    agree(b.model(), {"x_q": codes(rng, (1, 64, 9, 9), np.uint8)}, threads=threads)


def test_a_dilated_filter_wider_than_a_chunk(qdq, agree) -> None:
    rng = np.random.default_rng(3)
    w, scale, zero = weights(rng, (12, 16, 3, 3), 0, exact=True)
    b = qdq()
    b.input("x", [1, 16, 100, 90], (0.25, 128))
    b.weight("w", w, scale, zero, 0)
    b.output(b.node("Conv", ["x", "w"], "y", dilations=[40, 40]), (0.5, 3))
    agree(b.model(), {"x_q": codes(rng, (1, 16, 100, 90), np.uint8)})


def test_uint8_weights_with_a_zero_point_that_needs_nine_bits(qdq, agree) -> None:
    rng = np.random.default_rng(2)
    b = qdq()
    b.input("x", [1, 5, 6, 6], (0.1, 100))
    b.weight("w", rng.integers(0, 256, (70, 5, 3, 3)).astype(np.uint8), np.array(F32(0.01)), np.array(np.uint8(77)), 0)
    b.output(b.node("Conv", ["x", "w"], "y"), (0.3, 100))
    agree(b.model(), {"x_q": codes(rng, (1, 5, 6, 6), np.uint8)})


@MORE
@given(
    seed=SEEDS,
    x=CODING,
    y=CODING,
    rows=st.integers(1, 40),
    k=st.integers(1, 90),
    n=st.integers(1, 150),
    op=st.sampled_from(["Gemm", "Gemm float", "MatMul"]),
    exact=st.booleans(),
    threads=st.sampled_from([1, 2]),
)
def test_matrix_products(qdq, agree, seed, x, y, rows, k, n, op, exact, threads) -> None:
    rng = np.random.default_rng(seed)
    w, scale, zero = weights(rng, (k, n), 1, exact)
    if op == "MatMul":
        scale, zero = scale[:1].reshape(()), zero[:1].reshape(())
    b = qdq()
    b.input("x", ["N", k], x)
    b.weight("w", w, scale, zero, 1)
    if op == "MatMul":
        b.output(b.node("MatMul", ["x", "w"], "y"), y)
    else:
        bias = rng.integers(-3000, 3000, n).astype(np.int32)
        b.weight("b", bias, (F32(x[0]) * scale).astype(F32), np.zeros(n, np.int32), 0)
        b.node("Gemm", ["x", "w", "b"], "y")
        if op == "Gemm":
            b.output("y", y)
        else:
            b.outputs.append(_float("y"))
    agree(b.model(), {"x_q": codes(rng, (rows, k), np.uint8)}, threads=threads)


def _float(name: str):
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


@MORE
@given(seed=SEEDS, kind=TYPES, op=st.sampled_from(["Add", "Mul"]), a=CODING, b=CODING, y=CODING,
       shape=st.sampled_from(["same", "channel", "number", "row"]))  # fmt: skip
def test_add_and_multiply(qdq, agree, seed, kind, op, a, b, y, shape) -> None:
    rng = np.random.default_rng(seed)
    left = (2, 7, 9, 11)
    right = {"same": left, "channel": (1, 7, 1, 1), "number": (), "row": (11,)}[shape]
    build = qdq(kind)
    build.input("a", left, a)
    build.input("b", right, b)
    build.output(build.node(op, ["a", "b"], "y"), y)
    agree(build.model(), {"a_q": codes(rng, left, kind), "b_q": codes(rng, right, kind)})


def test_add_on_every_pair_of_codes(qdq, agree) -> None:
    pairs = np.mgrid[0:256, 0:256].astype(np.uint8).reshape(2, -1)
    for a, b, y in [((0.5, 3), (0.25, 200), (0.25, 128)), ((0.1, 100), (0.3, 7), (0.0123, 255))]:
        for op in ("Add", "Mul"):
            build = qdq()
            build.input("a", [65536], a)
            build.input("b", [65536], b)
            build.output(build.node(op, ["a", "b"], "y"), y)
            agree(build.model(), {"a_q": pairs[0], "b_q": pairs[1]})


@MORE
@given(
    seed=SEEDS,
    x=CODING,
    y=CODING,
    kind=st.sampled_from(["AveragePool", "MaxPool"]),
    codes_of=TYPES,
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 1)] * 4),
    ceil=st.integers(0, 1),
    counts=st.integers(0, 1),
    channels=st.integers(1, 80),
)
def test_pools(qdq, agree, seed, x, y, kind, codes_of, kernel, strides, pads, ceil, counts, channels) -> None:
    rng = np.random.default_rng(seed)
    pads = tuple(min(p, k - 1) for p, k in zip(pads, kernel * 2, strict=True))
    attributes = {"kernel_shape": kernel, "strides": strides, "pads": pads, "ceil_mode": ceil}
    if kind == "AveragePool":
        attributes["count_include_pad"] = counts
        attributes["ceil_mode"] = 0
    b = qdq(codes_of)
    b.input("x", [2, channels, 9, 8], x)
    b.output(b.node(kind, ["x"], "y", **attributes), x if kind == "MaxPool" else y)
    agree(b.model(), {"x_q": codes(rng, (2, channels, 9, 8), codes_of)})


@MORE
@given(
    seed=SEEDS,
    kind=TYPES,
    x=CODING,
    y=CODING,
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    whole=st.booleans(),
)
def test_global_averages(qdq, agree, seed, kind, x, y, size, whole) -> None:
    rng = np.random.default_rng(seed)
    b = qdq(kind)
    b.input("x", [2, 70, *size], x)
    if whole:
        b.node("AveragePool", ["x"], "y", kernel_shape=size)
    else:
        b.node("GlobalAveragePool", ["x"], "y")
    b.output("y", y)
    agree(b.model(), {"x_q": codes(rng, (2, 70, *size), kind)})


@MORE
@given(seed=SEEDS, kind=TYPES, x=CODING, y=CODING,
       op=st.sampled_from(["Sigmoid", "LeakyRelu", "Tanh", "HardSwish", "Relu", "Elu", "Erf", "Exp"]))  # fmt: skip
def test_tables(qdq, agree, seed, kind, x, y, op) -> None:
    rng = np.random.default_rng(seed)
    b = qdq(kind)
    b.input("x", [3, 5, 7, 11], x)
    b.output(b.node(op, ["x"], "y"), y)
    agree(b.model(), {"x_q": codes(rng, (3, 5, 7, 11), kind)})


@MORE
@given(
    seed=SEEDS, kind=TYPES, x=CODING, levels=st.sampled_from([1 / 255, 1 / 256, 0.01, 0.00787]), n=st.integers(1, 40)
)
def test_softmax(qdq, agree, seed, kind, x, levels, n) -> None:
    rng = np.random.default_rng(seed)
    b = qdq(kind)
    b.input("x", [50, n], x)
    b.output(b.node("Softmax", ["x"], "y", axis=-1), (levels, 0))
    agree(b.model(), {"x_q": codes(rng, (50, n), kind)})


@MORE
@given(seed=SEEDS, kind=TYPES, x=CODING, axis=st.integers(-4, 3), levels=st.sampled_from([1 / 255, 1 / 256, 0.01]))
def test_softmax_along_any_axis(qdq, agree, seed, kind, x, axis, levels) -> None:
    rng = np.random.default_rng(seed)
    b = qdq(kind)
    b.input("x", [3, 7, 5, 4], x)
    b.output(b.node("Softmax", ["x"], "y", axis=axis), (levels, 0))
    agree(b.model(), {"x_q": codes(rng, (3, 7, 5, 4), kind)})


def test_a_softmax_of_channels_between_convolutions(qdq, agree) -> None:
    rng = np.random.default_rng(0)
    b = qdq()
    b.input("x", [2, 5, 6, 6], (0.1, 100))
    b.weight("w", rng.integers(-90, 90, (20, 5, 3, 3)).astype(np.int8), np.array(F32(0.01)), np.array(np.int8(0)), 0)
    parts = b.parameters("cc", (0.1, 100)), b.parameters("pp", (1 / 256, 0))
    b.node("Conv", ["x", "w"], "c")
    b.node("QuantizeLinear", ["c", *parts[0]], "cc")
    b.node("DequantizeLinear", ["cc", *parts[0]], "d")
    b.node("Softmax", ["d"], "p", axis=1)
    b.node("QuantizeLinear", ["p", *parts[1]], "pp")
    b.node("DequantizeLinear", ["pp", *parts[1]], "q")
    b.weight("v", rng.integers(-90, 90, (8, 20, 3, 3)).astype(np.int8), np.array(F32(0.01)), np.array(np.int8(0)), 0)
    b.output(b.node("Conv", ["q", "v"], "y", pads=[1, 1, 1, 1]), (0.01, 100))
    agree(b.model(), {"x_q": codes(rng, (2, 5, 6, 6), np.uint8)})


LINEAR = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")


@MORE
@given(
    seed=SEEDS,
    kind=TYPES,
    x=CODING,
    y=CODING,
    how=st.sampled_from(LINEAR),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    to=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    scaled=st.booleans(),
    channels=st.integers(1, 40),
    threads=st.sampled_from([1, 3]),
)
def test_linear_resize(qdq, agree, seed, kind, x, y, how, size, to, scaled, channels, threads) -> None:
    rng = np.random.default_rng(seed)
    b = qdq(kind)
    b.opset = 19
    shape = (2, channels, *size)
    b.input("x", shape, x)
    scales = F32([1, 1, *((t + 0.5) / s for t, s in zip(to, size, strict=True))])
    inputs = (
        ["x", "", b.constant("k", scales)] if scaled else ["x", "", "", b.constant("k", np.array([*shape[:2], *to]))]
    )
    b.output(b.node("Resize", inputs, "y", mode="linear", coordinate_transformation_mode=how), y)
    agree(b.model(), {"x_q": codes(rng, shape, kind)}, threads=threads)


@pytest.mark.parametrize("shape", [(2, 7, 9), (2, 7, 3, 4, 5)])
def test_global_averages_of_a_line_and_a_volume(qdq, agree, shape) -> None:
    b = qdq()
    b.input("x", shape, (0.25, 100))
    b.output(b.node("GlobalAveragePool", ["x"], "y"), (0.125, 3))
    agree(b.model(), {"x_q": codes(np.random.default_rng(0), shape, np.uint8)})


@MORE
@given(seed=SEEDS, kind=TYPES, a=CODING, b=CODING, y=CODING, axis=st.integers(0, 3))
def test_concat(qdq, agree, seed, kind, a, b, y, axis) -> None:
    rng = np.random.default_rng(seed)
    shapes = [[2, 3, 5, 4], [2, 3, 5, 4]]
    shapes[1][axis] = 7
    build = qdq(kind)
    build.input("a", shapes[0], a)
    build.input("b", shapes[1], b)
    build.output(build.node("Concat", ["a", "b"], "y", axis=axis), y)
    agree(build.model(), {f"{n}_q": codes(rng, tuple(s), kind) for n, s in zip("ab", shapes, strict=True)})


@pytest.mark.parametrize("op", ["Identity", "Sigmoid", "Add"])
@pytest.mark.parametrize("axis", [1, 3])
def test_one_line_of_a_concat(qdq, agree, op, axis) -> None:
    """A part that is one wide lies in its place with steps between its codes."""
    rng = np.random.default_rng(axis)
    build, shapes = qdq(), [[2, 5, 6, 7], [2, 5, 6, 7], [2, 5, 6, 7]]
    shapes[0][axis] = shapes[2][axis] = 1
    feeds = {}
    for name, shape, coding in zip("abc", shapes, [(0.4, 0), (0.01, 255), (0.1, 1)], strict=True):
        build.input(name, shape, coding)
        feeds[f"{name}_q"] = codes(rng, tuple(shape), np.uint8)
    first = "a"
    if op != "Identity":
        parts = build.parameters("f", (0.08, 221))
        value = build.node(op, ["a", "a"] if op == "Add" else ["a"], "e")
        build.node("QuantizeLinear", [value, *parts], "f")
        first = build.node("DequantizeLinear", ["f", *parts], "g")
    build.output(build.node("Concat", [first, "b", "c"], "y", axis=axis), (0.08, 221))
    agree(build.model(), feeds)
