"""ONNX operators on torch tensors, by family. `OPS` is the whole table."""

from zc.training.ops import (
    codes,
    elementwise,
    indexing,
    moving,
    norms,
    pooling,
    products,
    recurrent,
    reductions,
    resize,
)
from zc.training.ops.call import Op

OPS: dict[str, Op] = {
    **elementwise.OPS,
    **products.OPS,
    **norms.OPS,
    **pooling.OPS,
    **moving.OPS,
    **indexing.OPS,
    **reductions.OPS,
    **resize.OPS,
    **recurrent.OPS,
    **codes.OPS,
}
"""By operator (of other domains as `domain.Operator`)."""

NO_GRADIENT = frozenset(
    {
        "And", "ArgMax", "ArgMin", "Ceil", "Equal", "EyeLike", "Floor", "Greater", "GreaterOrEqual", "IsInf", "IsNaN",
        "Less", "LessOrEqual", "NonZero", "Not", "OneHot", "Or", "Round", "Shape", "Sign", "Size", "Xor",
    }
)  # fmt: skip
"""Operators through which no gradient passes."""

SHAPES_ONLY = frozenset({"Shape", "Size"})
"""Those of them that look at sizes, not at values: they stand beside the path, not on it."""
