"""ONNX Runtime on an NVIDIA GPU (CUDA execution provider): half precision. Q/DQ does not fuse into int8 kernels there.

Each DequantizeLinear would run as a kernel of its own in front of a float one, so static quantisation is declined;
int8 on such a GPU is what the target `tensorrt` is for. See onnxruntime's documentation, "Quantize ONNX models",
section "Quantization on GPU".
"""

from zc.target import Target

_NO_KERNEL = "onnxruntime's CUDA provider fuses no Q/DQ into int8 kernels; use fp16, or --target tensorrt"

_ANY = frozenset(
    {
        *("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "BatchNormalization", "InstanceNormalization"),
        *("LayerNormalization", "GroupNormalization", "Softmax", "LogSoftmax", "LSTM", "GRU", "RNN"),
        *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Neg", "Abs", "Sqrt", "Exp", "Log", "Erf"),
        *("Reciprocal", "Floor", "Ceil", "Round", "Sign", "Sin", "Cos", "Relu", "LeakyRelu", "PRelu", "Elu", "Selu"),
        *("Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softplus", "Softsign", "Gelu", "ThresholdedRelu", "Clip"),
        *("AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool", "LRN", "Resize", "Upsample"),
        *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceProd"),
        *("ReduceLogSumExp", "ArgMax", "ArgMin", "TopK", "CumSum", "Concat", "Split", "Slice", "Gather", "GatherND"),
        *("GatherElements", "ScatterND", "ScatterElements", "Where", "Expand", "Tile", "Pad", "Reshape", "Flatten"),
        *("Squeeze", "Unsqueeze", "Transpose", "Identity", "DepthToSpace", "SpaceToDepth", "Cast", "Trilu"),
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "QuantizeLinear", "DequantizeLinear"),
    }
)
"""Operators with kernels for float16 (onnxruntime, docs/OperatorKernels.md, CUDAExecutionProvider)."""

_BFLOAT16 = frozenset(
    {
        *("Gemm", "MatMul", "LayerNormalization", "Softmax", "LogSoftmax", "Add", "Sub", "Mul", "Div", "Sqrt", "Relu"),
        *("Sigmoid", "Tanh", "Gelu", "Cast", "Concat", "Split", "Slice", "Gather", "Where", "Expand", "Reshape"),
        *("Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "ReduceMean", "ReduceSum"),
    }
)
"""Those with kernels for bfloat16 too, from the same table."""

TARGET = Target(
    name="ort-cuda",
    activations="int8",
    symmetric_activations=True,
    float_ops=dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), _NO_KERNEL),
    half_ops={"float16": _ANY, "bfloat16": _BFLOAT16},
    min_opset=13,
    idiom_opset=20,
    # Tensor cores take eight halves at a time.
    channel_step=8,
)
"""The place of deployment: CUDA, compute capability 7.0 and later."""
