"""Operator -> lowering rule."""

from zc.backends.tflite import (
    codes,
    convolutions,
    elementwise,
    indexing,
    movement,
    normalisation,
    pools,
    products,
    reductions,
)
from zc.backends.tflite.elementwise import Rule

RULES: dict[str, Rule] = {
    "DequantizeLinear": codes.dequantize,
    "QuantizeLinear": codes.quantize,
    **convolutions.RULES,
    **pools.RULES,
    **products.RULES,
    **elementwise.RULES,
    **movement.RULES,
    **indexing.RULES,
    **reductions.RULES,
    **normalisation.RULES,
}
"""Every operator that has a form in the file."""
