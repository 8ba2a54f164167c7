"""Every operator against onnxruntime, and its gradient against finite differences in float64."""

import zlib
from collections.abc import Callable

import numpy as np
import pytest

from zc.ir.model import Model, from_text

torch = pytest.importorskip("torch", reason="torch is not installed (the extra train)")

from zc.training.graph import GraphModule  # noqa: E402
from zc.training.ops import NO_GRADIENT, OPS  # noqa: E402

# Nodes (the value `y` is the output), inputs as type and shape; constants as ONNX text; operator set 18 unless said.
CASES: list[tuple[str, dict[str, str], str]] = []


def case(nodes: str, inputs: str = "float[2,3,4] x", constants: str = "", opset: int = 18) -> None:
    CASES.append((nodes, {"in": inputs, "opset": str(opset)}, constants))


for op in [
    "Abs",
    "Acos",
    "Asin",
    "Atan",
    "Atanh",
    "Ceil",
    "Celu",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Mish",
    "Neg",
    "Relu",
    "Round",
    "Selu",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Shrink",
    "Asinh",
    "Reciprocal",
]:
    case(f"y = {op} (x)")
case("p = Abs (x) one = Constant <value_float=1.5> () q = Add (p, one) y = Acosh (q)")
case("p = Abs (x) y = Sqrt (p)")
case("p = Abs (x) y = Log (p)")
case("y = LeakyRelu <alpha=0.3> (x)")
case("y = Elu <alpha=0.7> (x)")
case("y = Swish <alpha=1.5> (x)", opset=24)
case("y = Gelu (x)", opset=20)
case('y = Gelu <approximate="tanh"> (x)', opset=20)
case("y = com.microsoft.Gelu (x)")
case("y = com.microsoft.QuickGelu <alpha=1.5> (x)")
for op in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Mean"):
    case(f"y = {op} (x, z)", "float[2,3,4] x, float[3,1] z")
for op in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"):
    case(f"y = {op} (x, z)", "float[2,3,4] x, float[3,1] z")
for op in ("And", "Or", "Xor"):
    case(f"p = Greater (x, z) q = Less (x, z) y = {op} (p, q)", "float[2,3,4] x, float[3,1] z")
case("z = Constant <value_float=0.0> () p = Greater (x, z) y = Not (p)")
case("y = Max (x, z, x)", "float[2,3,4] x, float[3,1] z")
case("y = Pow (x, e)", constants="float e = {3}")
case("y = Mod <fmod=1> (x, e)", constants="float e = {0.7}")
case("y = Mod (i, e)", "int64[6] i", "int64 e = {-4}")
case("y = Div (i, e)", "int64[6] i", "int64 e = {-3}")
case("z = Constant <value_float=0.0> () p = Greater (x, z) y = Where (p, x, w)", "float[2,3] x, float[3] w")
case("y = Clip (x, lo, hi)", constants="float lo = {-0.5}, float hi = {0.4}")
case("y = Clip (x, , hi)", constants="float hi = {0.4}")
case("y = Clip (x)")
case("y = Clip <min=-0.5,max=0.25> (x)", opset=6)
case("p = Cast <to=11> (x) q = Cast <to=1> (p) y = Neg (q)")
case("y = Cast <to=7> (x)")
case("p = CastLike (i, x) y = Mul (p, x)", "int64[3] i, float[3] x")
case("y = PRelu (x, w)", "float[2,3,4] x, float[3,1] w")
# products
case("y = Conv <pads=[1,0,1,2], strides=[2,1]> (x, w, b)", "float[2,4,6,5] x, float[6,4,3,3] w, float[6] b")
case("y = Conv <group=2, dilations=[2]> (x, w)", "float[2,4,9] x, float[6,2,3] w")
case('y = Conv <auto_pad="SAME_UPPER", strides=[2,2]> (x, w)', "float[1,2,5,6] x, float[3,2,3,3] w")
case('y = Conv <auto_pad="SAME_LOWER", strides=[2,2]> (x, w)', "float[1,2,5,6] x, float[3,2,2,2] w")
case("y = Conv (x, w)", "float[1,2,3,4,3] x, float[3,2,2,2,2] w")
case("y = ConvTranspose <strides=[2,2], pads=[1,1,1,1]> (x, w, b)", "float[1,4,3,3] x, float[4,3,3,3] w, float[3] b")
case("y = ConvTranspose <strides=[2], pads=[0,1], group=2> (x, w)", "float[1,4,5] x, float[4,3,3] w")
case("y = ConvTranspose <strides=[2], output_padding=[1]> (x, w)", "float[1,4,5] x, float[4,3,3] w")
case("y = ConvTranspose <strides=[2,2], output_shape=[6,6]> (x, w)", "float[1,2,3,3] x, float[2,3,3,3] w")
case('y = ConvTranspose <strides=[2,2], auto_pad="SAME_UPPER"> (x, w)', "float[1,2,3,3] x, float[2,3,3,3] w")
case("y = Gemm (x, w, b)", "float[2,3] x, float[3,4] w, float[4] b")
case("y = Gemm <transA=1, transB=1, alpha=0.5, beta=2.0> (x, w, b)", "float[3,2] x, float[4,3] w, float[2,1] b")
case("y = Gemm <transB=1> (x, w)", "float[2,3] x, float[4,3] w")
case("y = MatMul (x, w)", "float[2,3,4] x, float[4,5] w")
case('y = Einsum <equation="bij, jk -> bik"> (x, w)', "float[2,3,4] x, float[4,5] w")
case("y = com.microsoft.FusedMatMul <transB=1, alpha=0.5> (x, w)", "float[2,3,4] x, float[2,5,4] w")
case("y = Attention (q, k, v)", "float[1,2,3,4] q, float[1,2,5,4] k, float[1,2,5,4] v", opset=23)
case(
    "y = Attention <q_num_heads=2, kv_num_heads=1, is_causal=1> (q, k, v)",
    "float[1,3,8] q, float[1,3,4] k, float[1,3,4] v",
    opset=23,
)
# normalisations
STATS = "float[3] m = {0.1,-0.2,0.3}, float[3] v = {0.5,1.5,1}"
case("y = BatchNormalization <epsilon=0.001> (x, s, b, m, v)", "float[2,3,4] x, float[3] s, float[3] b", STATS)
case("y = InstanceNormalization (x, s, b)", "float[2,3,4] x, float[3] s, float[3] b")
case("y = LayerNormalization (x, s, b)", "float[2,3,4] x, float[4] s, float[4] b")
case("y = LayerNormalization <axis=1> (x, s)", "float[2,3,4] x, float[4] s")
case("y = RMSNormalization (x, s)", "float[2,3,4] x, float[4] s", opset=23)
case("y = GroupNormalization <num_groups=2> (x, s, b)", "float[2,4,3] x, float[2] s, float[2] b")
case("y = GroupNormalization <num_groups=2> (x, s, b)", "float[2,4,3] x, float[4] s, float[4] b", opset=21)
case("y = LRN <size=3, alpha=0.1> (x)", "float[2,5,3,3] x")
case("y = LpNormalization <axis=1, p=2> (x)")
case("y = LpNormalization <axis=1, p=1> (x)")
case("y = MeanVarianceNormalization (x)", "float[2,3,4,2] x")
case("y = Softmax <axis=1> (x)")
case("y = Softmax (x)", opset=11)
case("y = LogSoftmax (x)")
# pooling
case("y = MaxPool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (x)", "float[1,2,6,7] x")
case("y = MaxPool <kernel_shape=[3,3], strides=[2,2], ceil_mode=1> (x)", "float[1,2,6,7] x")
case("y = MaxPool <kernel_shape=[2,2], pads=[0,0,1,1]> (x)", "float[1,2,5,5] x")
case("y = MaxPool <kernel_shape=[2], dilations=[2]> (x)", "float[1,2,7] x")
case("y = AveragePool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (x)", "float[1,2,6,7] x")
case("y = AveragePool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], count_include_pad=1> (x)", "float[1,2,6,7] x")
case("y = AveragePool <kernel_shape=[2,2], pads=[0,0,1,1]> (x)", "float[1,2,5,5] x")
case("y = AveragePool <kernel_shape=[2], strides=[2], ceil_mode=1> (x)", "float[1,2,7] x", opset=19)
case("y = LpPool <kernel_shape=[2,2], p=2> (x)", "float[1,2,4,4] x")
case("y = GlobalAveragePool (x)", "float[2,3,4,4] x")
case("y = GlobalMaxPool (x)", "float[2,3,4,4] x")
case("y = GlobalLpPool (x)", "float[2,3,4,4] x")
# sizes and moves
case("y = Flatten <axis=2> (x)")
case("y = Flatten <axis=-1> (x)")
case("y = Reshape (x, s)", constants="int64[3] s = {0,2,-1}")
case("y = Transpose <perm=[2,0,1]> (x)")
case("y = Transpose (x)")
case("y = Concat <axis=-1> (x, x)")
case("y, z = Split <axis=2> (x, s)", constants="int64[2] s = {1,3}")
case("y, z = Split <axis=2, num_outputs=2> (x)", "float[2,3,5] x")
case("y, z = Split <axis=2, split=[1,3]> (x)", opset=11)
case("y = Unsqueeze (x, a)", constants="int64[2] a = {0,-1}")
case("y = Unsqueeze <axes=[0,3]> (x)", opset=11)
case("y = Squeeze (x, a)", "float[2,1,3,1] x", "int64[1] a = {1}")
case("y = Squeeze (x)", "float[2,1,3,1] x")
case("s = Shape <start=1> (x) y = ConstantOfShape <value=float[1] {2.5}> (s)")
case("s = Shape (x) y = ConstantOfShape (s)")
case("y = Size (x)")
case("y = Shape (x)")
case("y = Expand (x, s)", "float[3,1] x", "int64[3] s = {2,1,4}")
case("y = Tile (x, r)", constants="int64[3] r = {1,2,3}")
case(
    "p = Range (s, l, d) q = Cast <to=1> (p) y = Mul (q, x)",
    "float[3] x",
    "int64 s = {1}, int64 l = {7}, int64 d = {2}",
)
case("p = EyeLike <k=1> (x) y = Mul (p, x)", "float[3,4] x")
case(
    "y = Slice (x, s, e, a, t)",
    constants="int64[2] s = {-1,3}, int64[2] e = {-9,0}, int64[2] a = {1,2}, int64[2] t = {-1,-2}",
)
case("y = Slice (x, s, e)", constants="int64[2] s = {0,1}, int64[2] e = {9,-1}")
case("y = Slice <starts=[1], ends=[3], axes=[2]> (x)", opset=9)
case("y = Pad (x, p, v)", constants="int64[6] p = {0,1,0,0,0,2}, float v = {1.5}")
case('y = Pad <mode="reflect"> (x, p)', "float[1,2,4,4] x", "int64[8] p = {0,0,1,2,0,0,1,0}")
case('y = Pad <mode="edge"> (x, p)', constants="int64[6] p = {0,1,0,0,0,2}")
case("y = Pad (x, p, , a)", constants="int64[2] p = {-1,1}, int64[1] a = {2}")
case("y = Pad <pads=[0,1,0,0,0,1], value=2.0> (x)", opset=10)
case("y = DepthToSpace <blocksize=2> (x)", "float[1,8,2,3] x")
case('y = DepthToSpace <blocksize=2, mode="CRD"> (x)', "float[1,8,2,3] x")
case("y = SpaceToDepth <blocksize=2> (x)", "float[1,2,4,6] x")
case("y = Dropout (x)")
case("y = Trilu <upper=0> (x)", "float[2,4,4] x")
case("y = Trilu (x, k)", "float[4,4] x", "int64 k = {1}")
case("y = Constant <value=float[2] {1,2}> () z = Neg (x)")
# indices
case("y = Gather <axis=1> (x, i)", constants="int64[2,2] i = {0,-1,2,1}")
case("y = Gather (w, i)", "float[5,3] w, int64[2,3] i")
case("y = Gather <axis=0> (x, i)", constants="int64 i = {1}")
case("y = GatherElements <axis=1> (x, i)", "float[2,3] x", "int64[2,2] i = {0,-1,2,1}")
case("y = GatherND (x, i)", constants="int64[2,2] i = {0,1,1,2}")
case("y = GatherND <batch_dims=1> (x, i)", constants="int64[2,2,1] i = {0,1,1,2}")
case("y = ScatterElements <axis=1> (x, i, u)", "float[2,3] x, float[2,2] u", "int64[2,2] i = {0,-1,2,1}")
case(
    'y = ScatterElements <axis=1, reduction="add"> (x, i, u)', "float[2,3] x, float[2,2] u", "int64[2,2] i = {0,0,2,1}"
)
case("y = Scatter <axis=1> (x, i, u)", "float[2,3] x, float[2,2] u", "int64[2,2] i = {0,1,2,1}", opset=10)
case("y = ScatterND (x, i, u)", "float[4,3] x, float[2,3] u", "int64[2,1] i = {0,2}")
case('y = ScatterND <reduction="add"> (x, i, u)', "float[4,3] x, float[2,3] u", "int64[2,1] i = {2,2}")
case("y = ArgMax <axis=1, keepdims=0> (x)")
case("y = ArgMin <axis=2> (x)")
case("y, i = TopK <axis=2> (x, k)", constants="int64[1] k = {2}")
case("y = OneHot (i, d, v)", "int64[3] i", "int64 d = {4}, float[2] v = {-1,2}")
case("y = NonZero (x)")
case("y = CumSum <reverse=1, exclusive=1> (x, a)", constants="int64 a = {1}")
case("y = GridSample (x, g)", "float[1,2,4,4] x, float[1,3,3,2] g")
case("y = ReverseSequence <time_axis=0, batch_axis=1> (x, l)", "float[4,2,3] x", "int64[2] l = {3,4}")
case("c = Constant <value=bool[3] {1,0,1}> () y = Compress <axis=1> (x, c)")
# reductions
for op in ("L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"):
    case(f"y = Reduce{op} (x, a)", constants="int64[2] a = {0,-1}")
case("p = Exp (x) y = ReduceLogSum <keepdims=0> (p, a)", constants="int64[1] a = {1}")
case("y = ReduceMean <axes=[1], keepdims=0> (x)", opset=11)
case("y = ReduceSum <noop_with_empty_axes=1> (x)")
case("y = ReduceMax (x)")
# resize
for mode in ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"):
    for kind in ("linear", "cubic"):
        how = f'mode="{kind}", coordinate_transformation_mode="{mode}"'
        case(f"y = Resize <{how}> (x, , , s)", "float[1,2,4,3] x", "int64[4] s = {1,2,7,5}")
    how = f'mode="nearest", nearest_mode="floor", coordinate_transformation_mode="{mode}"'
    case(f"y = Resize <{how}> (x, , , s)", "float[1,2,4,3] x", "int64[4] s = {1,2,7,5}")
case('y = Resize <mode="nearest"> (x, , f)', "float[1,2,4,3] x", "float[4] f = {1,1,2,1.5}")
case('y = Resize <mode="linear"> (x, , f)', "float[1,2,4,3] x", "float[4] f = {1,1,0.6,2.5}")
case('y = Resize <mode="cubic", exclude_outside=1> (x, , f)', "float[1,2,4,3] x", "float[4] f = {1,1,2,2}")
case(
    'y = Resize <mode="linear", coordinate_transformation_mode="half_pixel_symmetric"> (x, , f)',
    "float[1,2,4,3] x",
    "float[4] f = {1,1,1.7,2}",
    19,
)
case('y = Upsample <mode="linear"> (x, f)', "float[1,2,4,3] x", "float[4] f = {1,1,2,2}", 9)
case("y = Upsample (x, f)", "float[1,2,4,3] x", "float[4] f = {1,1,2,3}", 9)
# recurrent
RNN = "float[5,2,3] x, float[{d},{g},3] w, float[{d},{g},4] r, float[{d},{b}] c"
for op, gates in (("LSTM", 16), ("GRU", 12), ("RNN", 4)):
    for direction, d in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
        sizes = RNN.format(d=d, g=gates, b=2 * gates)
        case(f'y, h = {op} <hidden_size=4, direction="{direction}"> (x, w, r, c)', sizes)
sizes = RNN.format(d=2, g=16, b=32) + ", float[2,2,4] h0, float[2,2,4] c0, float[2,12] p"
case(
    'y, h, k = LSTM <hidden_size=4, direction="bidirectional"> (x, w, r, c, l, h0, c0, p)', sizes, "int32[2] l = {3,5}"
)
case("y, h = GRU <hidden_size=4, linear_before_reset=1> (x, w, r, c)", RNN.format(d=1, g=12, b=24))
case(
    'y = LSTM <hidden_size=4, activations=["HardSigmoid","Relu","Softsign"]> (x, w, r)',
    "float[5,2,3] x, float[1,16,3] w, float[1,16,4] r",
)
# codes
case("q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)", constants="float s = {0.01}, uint8 z = {128}")
case(
    "q = QuantizeLinear <axis=2> (x, s, z) y = DequantizeLinear <axis=2> (q, s, z)",
    constants="float[4] s = {0.01,0.02,0.03,0.01}, int8[4] z = {0,3,-5,1}",
)
case("q = QuantizeLinear (x, s) y = DequantizeLinear (q, s)", constants="float s = {0.02}")
case("y = DequantizeLinear (i, s)", "int8[2,3] i, float[3] s")
case("q, s, z = DynamicQuantizeLinear (x) c = Cast <to=1> (q) y = Mul (c, s)")
DYNAMIC = "q, s, z = DynamicQuantizeLinear (x)"  # codes so small that no processor saturates their products in pairs
case(
    f"{DYNAMIC} p = MatMulInteger (q, w, z, v) c = Cast <to=1> (p) y = Mul (c, s)",
    "float[2,3,2] x",
    "int8[2,3] w = {5,-7,60,3,0,-60}, int8[3] v = {1,0,-2}",
)
case(
    f"{DYNAMIC} p = ConvInteger <pads=[1,0]> (q, w, z, v) c = Cast <to=1> (p) y = Mul (c, s)",
    "float[2,1,5] x",
    "uint8[2,1,2] w = {5,7,60,3}, uint8 v = {4}",
)


def build(nodes: str, spec: dict[str, str], constants: str) -> Model:
    outputs = "y" if "z = Neg" not in nodes else "y, z"
    text = f"""
        <ir_version: 9, opset_import: ["" : {spec["opset"]}, "com.microsoft" : 1]>
        g ({spec["in"]}) => ({", ".join(f"float {o}" for o in outputs.split(", "))})
        {f"<{constants}>" if constants else ""} {{ {nodes} }}"""
    model = from_text(text)
    for output in model.graph.outputs:
        output.dtype, output.shape = None, None
    from zc.ir.shapes import infer_shapes

    infer_shapes(model, stale=True)
    for output in model.graph.outputs:
        output.dtype = output.dtype or np.dtype(np.float32)  # of an operator that inference does not know
    return model


def feeds_of(model: Model, seed: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(zlib.crc32(seed.encode()))
    made = {}
    for spec in model.inputs:
        shape = tuple(int(d) for d in spec.shape or ())
        if np.dtype(spec.dtype).kind == "i":
            made[spec.name] = rng.integers(1, 3, shape).astype(spec.dtype)
        else:
            made[spec.name] = rng.uniform(-0.95, 0.95, shape).astype(np.float32)
    return made


IDS = [f"{i}-{nodes.split('=')[1].split('(')[0].strip()[:40]}" for i, (nodes, _, _) in enumerate(CASES)]


@pytest.mark.parametrize(("nodes", "spec", "constants"), CASES, ids=IDS)
def test_an_operator_says_what_onnxruntime_says(
    nodes: str, spec: dict[str, str], constants: str, same_as_onnxruntime: Callable[..., float]
) -> None:
    model = build(nodes, spec, constants)
    assert same_as_onnxruntime(model, feeds_of(model, nodes)) <= 1e-5


WITHOUT = (NO_GRADIENT - {"Greater", "Shape", "EyeLike"}) | {"Cast", "QuantizeLinear", "DynamicQuantizeLinear"}
"""What has no gradient, or (of codes) one that is not that of finite differences: rounding passes it on."""


def sloped(nodes: str, spec: dict[str, str], constants: str) -> "tuple[GraphModule, dict[str, torch.Tensor]] | None":
    """The case in float64 with feeds that have gradients, if an output has one by them."""
    model = build(nodes, spec, constants)
    module = GraphModule(model).double()
    feeds = {k: torch.from_numpy(v) for k, v in feeds_of(model, nodes).items()}
    feeds = {k: v.double().requires_grad_() if v.is_floating_point() else v for k, v in feeds.items()}
    return (module, feeds) if any(v.requires_grad for v in module(feeds).values()) else None


WITH = [c for c in CASES if not any(f" {op} " in c[0] for op in WITHOUT)]


@pytest.mark.parametrize(("nodes", "spec", "constants"), WITH)
def test_a_gradient_is_that_of_finite_differences(nodes: str, spec: dict[str, str], constants: str) -> None:
    found = sloped(nodes, spec, constants)
    if found is None:
        return
    module, feeds = found
    names = [k for k, v in feeds.items() if v.requires_grad]

    def run(*values: "torch.Tensor") -> "torch.Tensor":
        out = module(feeds | dict(zip(names, values, strict=True)))
        return torch.cat([v.reshape(-1) for v in out.values() if v.requires_grad])

    values = [feeds[name] for name in names]
    assert torch.autograd.gradcheck(run, values, eps=1e-6, atol=1e-5, rtol=1e-4)


def test_every_operator_that_has_a_gradient_is_checked_for_it() -> None:
    text = " ".join(nodes for nodes, spec, constants in WITH if sloped(nodes, spec, constants) is not None)
    sizes = {"ConstantOfShape", "Range", "Shape"}  # see no values
    codes = {"ConvInteger", "MatMulInteger"}  # stand behind rounding
    assert [op for op in OPS if f"= {op} " not in text and op not in WITHOUT | sizes | codes] == []


@pytest.mark.parametrize(("nodes", "spec", "constants"), [c for c in CASES if "Integer " in c[0]])
def test_a_gradient_passes_codes_as_if_they_were_their_values(nodes: str, spec: dict[str, str], constants: str) -> None:
    found = sloped(nodes, spec, constants)
    assert found is not None
    module, feeds = found
    y, x = module(feeds)["y"], feeds["x"]
    (slope,) = torch.autograd.grad(y.sum(), x)
    terms = (slope * x).detach()
    rest = y.detach().sum() - terms.sum()  # of a linear function nothing but what rounding adds
    assert abs(float(rest)) <= 0.02 * float(terms.abs().sum())


def test_every_operator_has_a_case() -> None:
    text = " ".join(nodes for nodes, _, _ in CASES)
    missing = [op for op in OPS if f"= {op} " not in text]
    assert missing == []
