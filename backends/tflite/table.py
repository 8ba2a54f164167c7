"""Operator -> lowering rule."""

from zc.backends.tflite import (
    codes,
    composed,
    convolutions,
    einsum,
    elementwise,
    indexing,
    movement,
    normalisation,
    pools,
    products,
    recurrent,
    reductions,
    resizing,
    shapes,
)
from zc.backends.tflite.elementwise import Rule

RULES: dict[str, Rule] = {
    "DequantizeLinear": codes.dequantize,
    "QuantizeLinear": codes.quantize,
    **convolutions.RULES,
    **pools.RULES,
    **products.RULES,
    **einsum.RULES,
    **elementwise.RULES,
    **composed.RULES,
    **movement.RULES,
    **indexing.RULES,
    **resizing.RULES,
    **recurrent.RULES,
    **reductions.RULES,
    **normalisation.RULES,
    **shapes.RULES,
}
"""Every operator that has a form in the file."""
