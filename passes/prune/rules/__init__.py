"""One transfer rule for each operator: how the labels of its inputs become those of its outputs."""

from zc.passes.prune.rules import (
    attention,
    convolution,
    einsum,
    elementwise,
    movement,
    normalization,
    products,
    recurrent,
    reshaping,
    shapes,
    slicing,
    spatial,
)
from zc.passes.prune.rules.rule import Rule

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **convolution.RULES,
    **products.RULES,
    **einsum.RULES,
    **attention.RULES,
    **recurrent.RULES,
    **movement.RULES,
    **slicing.RULES,
    **reshaping.RULES,
    **normalization.RULES,
    **spatial.RULES,
    **shapes.RULES,
}
"""By operator; `domain.Operator` for those of other domains. An operator without a rule stops what reaches it."""
