"""Put factors on channels into the constants around them."""

import numpy as np
import numpy.typing as npt

from zc.ir.edit import Names
from zc.ir.graph import Array, Constant
from zc.passes.quantize.scaling.flow import Edit, Flow

Factors = npt.NDArray[np.float64]
"""By label. All positive; 1 for pinned labels, and equal within a class."""


def rescale(flow: Flow, factors: Factors) -> int:
    """Multiply every value by the factors of its labels, by editing the constants of the model; how many changed.

    The outputs stay what they are, up to rounding of the constants.
    """
    names = Names(flow.model.graph)
    changed = 0
    for edit in flow.edits:
        by = _factor(edit, factors)
        if (by == 1).all():
            continue
        constant = edit.node.inputs[edit.place]
        assert isinstance(constant, Constant)  # the rules saw to it
        values = (constant.values.astype(np.float64) * by).astype(constant.values.dtype)
        if len(constant.outputs) > 1:
            edit.node.inputs[edit.place] = names.constant(constant.name, values)
        else:
            constant.values = values
        changed += 1
    return changed


def scaled(edit: Edit, factors: Factors) -> Array:
    """The constant of an edit as `rescale` would make it, in float64."""
    constant = edit.node.inputs[edit.place]
    assert isinstance(constant, Constant)  # the rules saw to it
    return np.asarray(constant.values.astype(np.float64) * _factor(edit, factors))


def _factor(edit: Edit, factors: Factors) -> Array:
    by: Array = np.ones(1)
    if edit.times is not None:
        by = by * factors[edit.times]
    if edit.over is not None:
        by = by / factors[edit.over]
    return by
