"""Importance of atoms by gradients (extra `train`)."""

import numpy as np

from zc.data import Samples
from zc.errors import ZcError
from zc.ir.graph import Constant
from zc.passes.prune.groups import Groups
from zc.passes.prune.importance import Scores
from zc.pipeline.base import Context


def taylor(groups: Groups, samples: Samples, ctx: Context) -> Scores:
    """The squared change of the loss, to first order, when an atom leaves; the mean over batches.

    (Molchanov et al., Importance Estimation for Neural Network Pruning, 2019.) Summed with its sign over all weights
    that make the channels of the atom, wherever they are. By root label; 0 where there is no atom.

    Raises:
        ZcError: torch is missing, or the model cannot be trained through.
    """
    from zc.training.extra import require_torch

    require_torch("criterion=taylor")
    from zc.training.taylor import slopes

    places = [
        (product.weight.name, block)
        for product in groups.flow.products
        if isinstance(product.weight, Constant)
        for block in groups.flow.of(product.weight)
        if block.labels is product.labels
    ]
    if not places:
        raise ZcError("criterion=taylor: no weight that makes channels is an initializer; run clean first")
    scores, batches = np.zeros(groups.flow.labels.count, np.float64), 0
    for batch in slopes(groups.flow.model, samples, [name for name, _ in places], track=ctx.track):
        change = np.zeros_like(scores)
        for name, block in places:
            if name in batch:
                values = batch[name]
                others = tuple(a for a in range(values.ndim) if a not in block.axes)
                np.add.at(change, groups.classes.roots[block.labels].ravel(), values.sum(axis=others).ravel())
        scores += np.square(change)
        batches += 1
    return scores / max(batches, 1)
