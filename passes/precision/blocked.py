"""Operators that stay in float32 by default, and why."""

SUMS = "it sums many numbers, and small ones are lost beside a large sum"
STEEP = "its result differs from its input by orders of magnitude"
MAKES = "its type is an attribute, and its numbers are made, not read"

BLOCKED: dict[str, str] = {
    **dict.fromkeys(
        (
            *("Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization", "GroupNormalization"),
            *("MeanVarianceNormalization", "LpNormalization", "RMSNormalization", "LRN", "CumSum"),
            *("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceProd", "ReduceSumSquare", "ReduceLogSum"),
            *("ReduceLogSumExp",),
        ),
        SUMS,
    ),
    **dict.fromkeys(("Exp", "Log", "Pow", "Reciprocal", "Softplus"), STEEP),
    **dict.fromkeys(
        (
            *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"),
            *("ConstantOfShape", "EyeLike", "Range", "HannWindow", "HammingWindow", "BlackmanWindow"),
        ),
        MAKES,
    ),
    **dict.fromkeys(("NonMaxSuppression", "RoiAlign"), "coordinates need more digits"),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), "scales need more digits"),
}
"""Operator -> why half precision is a risk for it."""
