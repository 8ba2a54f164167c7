"""What TFLite can run in integers, for the quantiser (LiteRT's 8-bit quantisation specification)."""

from dataclasses import replace

from zc.target import Target

TARGET = Target(
    name="tflite",
    activations="int8",
    activation_bits=frozenset({8, 16}),
    symmetric_activations=False,
    symmetric_wide=True,
    per_channel=True,
    integer_bias=True,
    weighted_ops=frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"}),
    integer_ops=frozenset(
        {
            *("Add", "Sub", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "ReduceMean", "Sigmoid", "Tanh"),
            *("LeakyRelu", "HardSwish", "Gelu"),
        }
    ),
    coded_constants=frozenset({"Add", "Sub", "Mul"}),
    # Kernels of Concat take differing scales only by rounding anew; pools have one scale through.
    tied_ops=frozenset({"Concat", "AveragePool"}),
    fixed_scales={"Sigmoid": (1 / 256, -128), "Tanh": (1 / 128, 0), "Softmax": (1 / 256, -128)},
    transparent_ops=frozenset(
        {
            *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Tile"),
            *("Slice", "Split", "Gather", "Pad", "DepthToSpace", "SpaceToDepth", "MaxPool", "Resize", "Relu", "Clip"),
        }
    ),
    absorbed_activations=frozenset({"Relu", "Clip"}),
    lookup_ops=frozenset({"Gather"}),
    float_ops={
        "LSTM": "its integer kernel needs ranges of values inside it",
        "Softmax": "8 bits cannot hold likelihoods that differ by orders of magnitude",
    },
    min_opset=13,
    idiom_opset=20,
    knows_idioms=False,
    channel_step=8,
)

WHOLE = replace(
    TARGET,
    whole=True,
    integer_ops=TARGET.integer_ops | {"Softmax"},
    float_ops={op: why for op, why in TARGET.float_ops.items() if op != "Softmax"},
)
"""Runtimes without float kernels: microcontrollers, or ends that are codes."""

EDGETPU = replace(
    WHOLE,
    name="edgetpu",
    activation_bits=frozenset({8}),
    per_tensor_ops=frozenset({"Gemm", "MatMul"}),
    integer_ops=WHOLE.integer_ops - {"HardSwish", "Gelu", "LeakyRelu"},
    transparent_ops=WHOLE.transparent_ops - {"Tile", "Gather", "DepthToSpace"},
    lookup_ops=frozenset(),
)
"""Coral's accelerator: what does not run in integers there runs on the CPU, and so does all behind it."""
