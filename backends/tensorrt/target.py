"""TensorRT's dialect of Q/DQ: what is quantised, how, and what stays in float.

Rules: NVIDIA TensorRT developer guide, "Working with Quantized Types", sections "Explicit Quantization" and "Q/DQ
Layer-Placement Recommendations".

- int8, symmetric, zero point 0; activations with one scale, weights with one for each output channel.
- What goes into a weighted layer is quantised, what comes out of it is not: activations, pools and normalisations
  behind it are computed in float, and TensorRT moves Q up to where it fuses.
- Biases are float: a DequantizeLinear of int32 is refused.
- A residual Add takes its convolution in float, to fuse with it, and codes of the skip.
- What is concatenated shares a scale.
"""

from zc.target import Target

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

TIED = frozenset({"Concat", "MaxPool"})
"""Operators that run in int8 where all that goes in and out has one scale."""

SMALLEST = 16
"""Depth and columns of a product from which int8 pays."""

_ALL = frozenset(
    {
        *WEIGHTED,
        *("Einsum", "BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization"),
        *(
            "Softmax",
            "LogSoftmax",
            "LSTM",
            "GRU",
            "RNN",
            "Add",
            "Sub",
            "Mul",
            "Div",
            "Pow",
            "Max",
            "Min",
            "Sum",
            "Mean",
        ),
        *("Neg", "Abs", "Sqrt", "Exp", "Log", "Erf", "Reciprocal", "Floor", "Ceil", "Round", "Sign", "Sin", "Cos"),
        *("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Mish"),
        *("Softplus", "Softsign", "Gelu", "ThresholdedRelu", "Clip", "AveragePool", "MaxPool", "GlobalAveragePool"),
        *("GlobalMaxPool", "LRN", "Resize", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1"),
        *("ReduceL2", "ReduceSumSquare", "ReduceProd", "ReduceLogSumExp", "ArgMax", "ArgMin", "TopK", "CumSum"),
        *("Concat", "Split", "Slice", "Gather", "GatherND", "GatherElements", "ScatterND", "ScatterElements", "Where"),
        *("Expand", "Tile", "Pad", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Trilu"),
        *("DepthToSpace", "SpaceToDepth", "GridSample", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
        *("QuantizeLinear", "DequantizeLinear"),
    }
)
"""Operators that TensorRT's parser takes in FP16 and BF16 (onnx-tensorrt, docs/operators.md)."""

TARGET = Target(
    name="tensorrt",
    activations="int8",
    symmetric_activations=True,
    per_channel=True,
    least_product=SMALLEST,
    integer_bias=False,
    weighted_ops=WEIGHTED,
    float_output_ops=WEIGHTED,
    # Both only choose among codes: with one scale around them nothing is rounded twice.
    integer_ops=TIED,
    tied_ops=TIED,
    strict_ties=True,
    rounds_floats=TIED,
    residual_sums=True,
    float_ops={
        "LSTM": "TensorRT runs recurrent layers in float",
        "GRU": "TensorRT runs recurrent layers in float",
        "RNN": "TensorRT runs recurrent layers in float",
        "Softmax": "8 bits cannot hold likelihoods that differ by orders of magnitude",
        "LayerNormalization": "its sums need more than 8 bits",
    },
    half_ops={"float16": _ALL, "bfloat16": _ALL},
    min_opset=13,
    idiom_opset=20,
    channel_step=16,
)
"""The place of deployment: TensorRT 10 and 11, strongly typed networks."""
