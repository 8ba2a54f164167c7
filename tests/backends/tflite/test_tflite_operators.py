"""Operators of every family, as ONNX text: what LiteRT computes is what onnxruntime does."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from zc.backends.tflite.legalise import legalise
from zc.backends.tflite.lower import lower
from zc.backends.tflite.lowering import NoForm
from zc.ir.model import from_text
from zc.ir.shapes import infer_shapes

Emitted = Callable[..., Counter[str]]


def text(body: str, x: str = "N,4,6,6", y: str = "", constants: str = "", kind: str = "float") -> str:
    held = f"<{constants}>" if constants else ""
    return f"""<ir_version: 8, opset_import: ["" : 17]>
        g ({kind}[{x}] x) => ({kind}[{y or x}] y) {held} {{ {body} }}"""


CASES = {
    "residual": text("a = Relu (x) b = Sigmoid (x) y = Add (a, b)"),
    "bias of channels": text("y = Mul (x, b)", constants="float[4,1,1] b = {1.0, 2.0, 3.0, 4.0}"),
    "scalar": text("y = Sub (x, b)", constants="float b = {1.5}"),
    "relu6": text("y = Clip (x, l, h)", constants="float l = {0.0}, float h = {6.0}"),
    "clip": text("y = Clip (x, l, h)", constants="float l = {-0.3}, float h = {0.2}"),
    "leaky": text("y = LeakyRelu <alpha=0.2> (x)"),
    "prelu": text("y = PRelu (x, s)", constants="float[4,1,1] s = {0.1, 0.2, 0.3, 0.4}"),
    "hard swish": text("y = HardSwish (x)"),
    "hard sigmoid": text("y = HardSigmoid <alpha=0.1667, beta=0.5> (x)"),
    "mish": text("a = Softplus (x) b = Tanh (a) y = Mul (x, b)"),
    "erf": text("y = Erf (x)"),
    "select": text("c = Greater (x, z) y = Where (c, x, z)", constants="float z = {0.25}"),
    "softmax of channels": text("y = Softmax <axis=1> (x)"),
    "log-softmax": text("y = LogSoftmax <axis=-1> (x)"),
    "concat": text("y = Concat <axis=1> (x, x)", y="N,8,6,6"),
    "split": text("a, y = Split <axis=1> (x, s)", y="N,3,6,6", constants="int64[2] s = {1, 3}"),
    "slice": text(
        "y = Slice (x, b, e, a, s)",
        y="N,2,6,3",
        constants="int64[2] b = {3, -1}, int64[2] e = {0, -7}, int64[2] a = {1, 3}, int64[2] s = {-2, -2}",
    ),
    "pad": text("y = Pad (x, p, v)", y="N,4,8,9", constants="int64[8] p = {0,0,1,2,0,0,1,1}, float v = {0.5}"),
    "pad by reflection": text(
        'y = Pad <mode="reflect"> (x, p)', y="N,4,8,8", constants="int64[8] p = {0,0,1,1,0,0,1,1}"
    ),
    "pad of the edge": text('y = Pad <mode="edge"> (x, p)', y="N,4,8,8", constants="int64[8] p = {0,0,1,1,0,0,1,1}"),
    "gather": text("y = Gather <axis=1> (x, i)", y="N,2,6,6", constants="int64[2] i = {3, -4}"),
    "mean": text("y = ReduceMean <axes=[2,3], keepdims=0> (x)", y="N,4"),
    "norm": text("y = ReduceL2 <axes=[1]> (x)", y="N,1,6,6"),
    "log-sum-exp": text("y = ReduceLogSumExp <axes=[3], keepdims=0> (x)", y="N,4,6"),
    "nearest": text("y = Resize (x, r, s)", y="N,4,12,12", constants="float[0] r = {}, float[4] s = {1.0,1.0,2.0,2.0}"),
    "linear": text(
        'y = Resize <mode="linear"> (x, r, s)',
        y="N,4,12,12",
        constants="float[0] r = {}, float[4] s = {1.0,1.0,2.0,2.0}",
    ),
    "aligned corners": text(
        'y = Resize <mode="linear", coordinate_transformation_mode="align_corners"> (x, r, s)',
        y="N,4,12,12",
        constants="float[0] r = {}, float[4] s = {1.0,1.0,2.0,2.0}",
    ),
    "depth to space": text("y = DepthToSpace <blocksize=2> (x)", y="N,1,12,12"),
    "pixel shuffle": text('y = DepthToSpace <blocksize=2, mode="CRD"> (x)', x="N,8,3,3", y="N,2,6,6"),
    "space to depth": text("y = SpaceToDepth <blocksize=2> (x)", y="N,16,3,3"),
    "shuffle of channels": text(
        "a = Reshape (x, s) b = Transpose <perm=[0,2,1,3,4]> (a) y = Reshape (b, t)",
        constants="int64[5] s = {0,2,2,6,6}, int64[4] t = {0,4,6,6}",
    ),
    "tokens of an image": text(
        "a = Reshape (x, s) y = Transpose <perm=[0,2,1]> (a)", y="N,36,4", constants="int64[3] s = {0,4,36}"
    ),
    "tile": text("y = Tile (x, r)", x="2,3", y="4,9", constants="int64[2] r = {2, 3}"),
    "expand": text("y = Expand (x, s)", x="2,1,3", y="2,4,3", constants="int64[3] s = {2, 4, 3}"),
    "layer norm": text(
        "y = LayerNormalization (x, s, b)",
        x="N,5,3",
        constants="float[3] s = {1.0, 2.0, 3.0}, float[3] b = {0.1, 0.2, 0.3}",
    ),
    "instance norm": text(
        "y = InstanceNormalization (x, s, b)",
        constants="float[4] s = {1.0, 2.0, 3.0, 4.0}, float[4] b = {0.1, 0.2, 0.3, 0.4}",
    ),
    "unit length": text("y = LpNormalization <axis=1, p=2> (x)"),
    "neighbours": text("y = LRN <size=3> (x)"),
    "matrices": text("a = Transpose <perm=[0,1,3,2]> (x) y = MatMul (x, a)"),
    "einsum": text('y = Einsum <equation="bchw,bcwk->bhck"> (x, x)', x="2,4,6,6", y="2,6,4,6"),
    "einsum of one": text('y = Einsum <equation="nchw->wnc"> (x)', x="2,4,6,6", y="6,2,4"),
    "cumulative": text("y = CumSum (x, a)", constants="int64 a = {1}"),
    "small integers": text("y = Add (x, x)", x="2,3", kind="uint8"),
}


@pytest.mark.parametrize("case", CASES)
def test_operator(emitted: Emitted, case: str) -> None:
    emitted(CASES[case])


@pytest.mark.parametrize("case", ["residual", "pad", "concat", "nearest", "mean", "pixel shuffle"])
def test_images_stay_as_they_lie_when_nothing_minds(emitted: Emitted, case: str) -> None:
    assert emitted(CASES[case])["TRANSPOSE"] == 0


def test_an_output_in_the_order_of_onnx_costs_a_transpose(emitted: Emitted) -> None:
    assert emitted(CASES["linear"], order="onnx")["TRANSPOSE"] == 2


def test_an_activation_is_part_of_the_operator_in_front(emitted: Emitted) -> None:
    assert emitted(text("a = Add (x, x) y = Relu (a)")) == {"ADD": 1}


def test_an_operator_without_a_form_is_named() -> None:
    model = from_text(text("y = Det (x)", x="2,3,3", y="2"))
    infer_shapes(model)
    with pytest.raises(NoForm, match=r"^node 'Det -> y': Det: TFLite has no form of this operator; cut it off"):
        lower(model, "main")


def test_more_dimensions_than_kernels_take_are_told() -> None:
    pads = ",".join("1" for _ in range(12))
    six = "2,2,2,2,2,2"
    model = from_text(text("y = Pad (x, p)", x=six, y="4,4,4,4,4,4", constants=f"int64[12] p = {{{pads}}}"))
    infer_shapes(model)
    with pytest.raises(
        NoForm, match="PAD of 6 dimensions; LiteRT's kernels take 5; join axes in front of it"
    ) as caught:
        lower(model, "main")
    assert caught.value.rule == "dimensions"


def test_open_sizes_are_told_with_what_to_do() -> None:
    model = legalise(from_text(text("y = Reshape (x, s)", x="N,S,6", y="N,S,2,3", constants="int64[4] s = {0,0,2,3}")))
    infer_shapes(model)
    with pytest.raises(NoForm, match=r"\[\?, \?, 2, 3\], .* more than one size is open; state the sizes: --shape"):
        lower(model, "main")


RECURRENT = {
    "LSTM": ('<hidden_size=3, direction="bidirectional">', 12, 2, "y, h, c"),
    "GRU": ("<hidden_size=3, linear_before_reset=1>", 9, 1, "y, h"),
    "RNN": ('<hidden_size=3, direction="reverse">', 3, 1, "y, h"),
}


@pytest.mark.parametrize("op", RECURRENT)
def test_recurrent_layers_are_written_out_and_keep_no_state(emitted: Emitted, op: str) -> None:
    attributes, rows, directions, outs = RECURRENT[op]
    ends = ", ".join(f"float[{'5,' * (name == 'y')}{directions},N,3] {name}" for name in outs.split(", "))
    d, nodes = directions, f"{outs} = {op} {attributes} (x, w, r, b)"
    model = from_text(f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[5,N,4] x, float[{d},{rows},4] w, float[{d},{rows},3] r, float[{d},{2 * rows}] b)
          => ({ends}) {{ {nodes} }}""")
    rng = np.random.default_rng(0)
    for tensor in list(model.graph.inputs)[1:]:
        model.graph.inputs.remove(tensor)
        tensor.to_constant(rng.normal(size=tensor.shape).astype(np.float32))
    emitted(model)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_an_initial_state_of_the_size_of_an_open_batch(kind: str, emitted: Callable[..., Counter[str]]) -> None:
    gates = {"LSTM": 16, "GRU": 12}[kind]
    model = from_text(f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[3,N,2] x, float[1,{gates},2] w, float[1,{gates},4] r) => (float[3,1,N,4] y)
        <int64 one = {{1}}, int64[1] ends = {{1}}, int64[1] width = {{4}}, int64[1] front = {{0}}> {{
            sizes = Shape (x)
            rows = Gather (sizes, one)
            row = Unsqueeze (rows, front)
            wanted = Concat <axis = 0> (ends, row, width)
            state = ConstantOfShape (wanted)
            y = {kind} <hidden_size = 4> (x, w, r, "", "", state)
        }}""")
    rng = np.random.default_rng(0)
    for _ in range(2):
        weight = model.graph.inputs.pop(1)
        weight.to_constant(rng.standard_normal(weight.shape).astype(np.float32))
    for rows in (1, 3):
        emitted(model, feeds={"x": rng.standard_normal((3, rows, 2)).astype(np.float32)})


def test_a_shape_whose_order_differs_in_the_file(emitted: Callable[..., Counter[str]]) -> None:
    ops = emitted("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,2,3,3] x) => (int64[3] y) { a = MaxPool <kernel_shape = [2, 2]> (x) y = Shape <end = 3> (a) }""")
    assert ops["SHAPE"] == 1


def test_sizes_of_a_resize_that_hang_on_an_open_batch_are_told_with_what_to_do() -> None:
    model = from_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,2,3,3] x) => (float[N,C,H,W] y)
        <int64[1] from = {0}, int64[1] to = {2}, int64[2] space = {6, 6}> {
            sizes = Shape (x)
            kept = Slice (sizes, from, to)
            wanted = Concat <axis = 0> (kept, space)
            y = Resize <mode = "linear"> (x, "", "", wanted)
        }""")
    infer_shapes(model)
    with pytest.raises(NoForm, match=r"to sizes that are computed at run time; state the sizes: --shape x=1,2,3,3"):
        lower(model, "main")
