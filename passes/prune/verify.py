"""The proof at run time: the pruned model equals the original with the removed channels masked.

A channel is masked where it is summed: the input of a Conv, Gemm or MatMul is set to zero at the positions that were
removed. Every removed channel ends in such sums, or else the analysis would have pinned it.
"""

from collections.abc import Sequence

import numpy as np

from zc.data import Samples
from zc.data.source import Feed
from zc.errors import CheckFailed, ZcError
from zc.execute import Runner, relative_error
from zc.ir.edit import Names, sort_nodes
from zc.ir.graph import Node, Tensor
from zc.ir.model import Model
from zc.passes.prune.flow import Contraction
from zc.passes.prune.labels import Bools

TOLERANCE = 1e-5
"""Largest allowed difference, relative to the largest value of an output."""

ROWS = 4


class Masked:
    """A copy of a model, to be masked later with what the analysis of the model finds."""

    def __init__(self, model: Model) -> None:
        """Copy the model; arrays are shared."""
        self.model = model.copy()
        self._copies: dict[int, tuple[Node, int]] = {}
        self._scopes = list(self.model.scopes())
        for number, (scope, copy) in enumerate(zip(model.scopes(), self._scopes, strict=True)):
            for old, new in zip(scope.nodes, copy.nodes, strict=True):
                assert isinstance(new, Node)
                self._copies[id(old)] = (new, number)

    def mask(self, contractions: Sequence[Contraction], stay: Bools) -> None:
        """Set to zero what the contractions would sum of the channels that leave."""
        names = Names(self.model.graph)
        done: dict[tuple[int, int], Tensor] = {}
        for one in contractions:
            kept = stay[one.labels]
            if kept.all():
                continue
            node, scope = self._copies[id(one.node)]
            value = node.inputs[one.place]
            key = (id(value), one.axis)
            if key not in done or done[key] is value:
                shape = [1] * len(value.shape)
                shape[one.axis] = -1
                masked = names.variable("masked", value)
                mask = names.constant("kept", kept.reshape(shape).astype(value.dtype))
                self._scopes[scope].nodes.append(Node("Mul", names.take("mask"), {}, [value, mask], [masked]))
                done[key] = masked
            node.inputs[one.place] = done[key]
        sort_nodes(self.model.graph)


def equivalence_error(pruned: Model, masked: Model, samples: Samples) -> float:
    """The largest relative difference of the outputs on a few rows.

    Raises:
        CheckFailed: it is above the tolerance; the output is named.
    """
    level = "basic" if any(n.op.endswith("QuantizeLinear") for s in masked.scopes() for n in s.nodes) else "all"
    got, want = Runner(pruned, level=level), Runner(masked, level=level)  # type: ignore[arg-type]
    worst = 0.0
    for feed in _first(samples):
        one, two = got.run(feed), want.run(feed)
        for name, value in one.items():
            error = relative_error(value, two[name])
            if not error <= TOLERANCE:
                raise CheckFailed(
                    f"output '{name}' of the pruned model differs by {error:.1e} (relative) from the original with the "
                    f"removed channels masked; at most {TOLERANCE:g} is allowed: this is a defect of the analysis"
                )
            worst = max(worst, error)
    return worst


def _first(samples: Samples) -> list[Feed]:
    try:
        return [next(samples.batches(ROWS))]
    except StopIteration:
        raise ZcError(f"{samples.origin}: no rows") from None


__all__ = ["ROWS", "TOLERANCE", "Masked", "equivalence_error", "np"]
