"""ONNX Runtime on a CPU (x86-64): uint8 activations, int8 weights, as Q/DQ that the default session fuses.

The tables say what onnxruntime 1.32 was seen to fuse; the tests of this package load each form and look again.
"""

from dataclasses import replace

from zc.backends.onnxruntime.costs import Costs
from zc.target import Target

MOVES_HALVES = frozenset(
    {
        *("Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Split", "Slice", "Gather"),
        *("Clip", "Sign", "LayerNormalization"),
    }
)
"""Operators with kernels for float16 and for bfloat16 on x86-64: none of them is a product."""

TARGET = Target(
    name="ort-cpu",
    # int8 activations fuse only in part and then run on slow kernels.
    activations="uint8",
    symmetric_activations=False,
    per_channel=True,
    integer_bias=True,
    weighted_ops=frozenset({"Conv", "Gemm", "MatMul"}),
    # QGemm and MatMulIntegerToFloat; a Conv whose output is not quantised stays float.
    float_output_ops=frozenset({"Gemm", "MatMul"}),
    integer_ops=frozenset(
        {"Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "Sigmoid", "LeakyRelu", "Where"}
    ),
    # QLinearConcat takes differing scales, but with one scale it only copies.
    tied_ops=frozenset({"Concat"}),
    transparent_ops=frozenset(
        {
            *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Expand", "Tile"),
            *("Slice", "Split", "Gather", "Pad", "DepthToSpace", "MaxPool", "Resize", "Relu", "Clip"),
        }
    ),
    absorbed_activations=frozenset({"Relu", "Clip"}),
    lookup_ops=frozenset({"Gather"}),
    # Its optimiser makes int8 of them with one scale for a whole weight, nearest codes, without a word.
    claims_float=frozenset({"Conv", "ConvTranspose", "Gemm"}),
    float_ops={
        "ConvTranspose": "onnxruntime has no int8 kernel for it that Q/DQ fuses into",
        "LSTM": "onnxruntime has no static int8 kernel for it",
        "GRU": "onnxruntime has no static int8 kernel for it",
        "RNN": "onnxruntime has no static int8 kernel for it",
        "Softmax": "8 bits cannot hold likelihoods that differ by orders of magnitude",
    },
    dynamic_ops=frozenset({"Gemm", "MatMul", "LSTM"}),
    float_dynamic_ops={
        # 508 positions, 256 x 5 inputs, 512 channels: 19 ms, in float 3.5.
        "Conv": "ConvInteger takes several times as long as the float kernel",
        "ConvTranspose": "onnxruntime has no dynamic int8 kernel for it",
        "GRU": "onnxruntime has no dynamic int8 kernel for it",
        "RNN": "onnxruntime has no dynamic int8 kernel for it",
    },
    integer_runtime_ops=frozenset(
        {
            *("QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat", "MatMulInteger", "ConvInteger"),
            *("DynamicQuantizeMatMul", "DynamicQuantizeLSTM"),
        }
    ),
    casts_half=frozenset({"float16"}),
    half_ops={
        "float16": MOVES_HALVES | {"Expand", "Max", "Min", "Round", "Cast"},
        "bfloat16": MOVES_HALVES | {"Pad", "Cast"},
    },
    # Kept for fusions with Q/DQ around it, it is computed at every run where there are none.
    folds_dequantize=False,
    nbits=frozenset({4, 8}),
    loads_int4=True,
    min_opset=13,
    # Gelu; kernels since onnxruntime 1.17.
    idiom_opset=20,
    # 130 us where Add and LayerNormalization take 27 (64 tokens of 384 numbers, one thread).
    slow_fusions=frozenset({"SkipLayerNormalization"}),
    slow_subnormals=True,
    channel_step=16,
    costs=Costs(),
    saturates_on="x86 processors without VNNI; for those, --cpu avx2 makes weights that cannot",
)
"""The default place of deployment: processors with an exact int8 dot product (VNNI; ARM)."""

AVX2 = replace(TARGET, name="ort-cpu/avx2", saturating_pairs=True, saturates_on="")
"""x86 processors without VNNI."""


def for_cpu(cpu: str) -> Target:
    """The target for processors of a kind: `vnni`, `avx2`, or `auto` for this machine's. KeyError for another."""
    if cpu == "auto":
        from zc.kernels.cpu import dot_product  # it brings Numba along

        return TARGET if dot_product() else AVX2
    return {"vnni": TARGET, "avx2": AVX2}[cpu]
