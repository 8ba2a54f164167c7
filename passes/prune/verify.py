"""The proof at run time: the pruned model equals the original with the removed channels masked.

A channel is masked where it is summed: the input of a Conv, Gemm or MatMul is set to zero at the positions that were
removed. Every removed channel ends in such sums, or else the analysis would have pinned it.
"""

from collections.abc import Sequence

import numpy as np

from zc.data import Samples
from zc.errors import CheckFailed, ZcError
from zc.execute import Runner, relative_error
from zc.ir.edit import Names, sort_nodes
from zc.ir.graph import Array, Node, Tensor
from zc.ir.model import Model
from zc.passes.prune.flow import Contraction
from zc.passes.prune.labels import Bools

TOLERANCE = 1e-5
"""Largest allowed difference, relative to the largest value of an output."""

ROUNDINGS = 8
"""How many times the effect of one changed bit in each weight the rounding of a whole run may have."""

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
        done: dict[tuple[int, int, int], Tensor] = {}
        for one in contractions:
            kept = stay[one.labels]
            if kept.all():
                continue
            node, scope = self._copies[id(one.node)]
            value = node.inputs[one.place]
            key = (id(value), one.axis, scope)
            if key not in done:
                shape = [1] * len(value.shape)
                shape[one.axis] = -1
                done[key] = self._masked(value, kept.reshape(shape), names, scope)
            node.inputs[one.place] = done[key]
        sort_nodes(self.model.graph)

    def _masked(self, value: Tensor, kept: Bools, names: Names, scope: int) -> Tensor:
        masked = names.variable("masked", value)
        if self.model.opset >= 9 and value.dtype in (np.float32, np.float64):
            zero = names.constant("zero", np.zeros((), value.dtype))
            node = Node("Where", names.take("mask"), {}, [names.constant("kept", kept), value, zero], [masked])
        else:  # not right for infinite values, but known for all types
            node = Node(
                "Mul", names.take("mask"), {}, [value, names.constant("kept", kept.astype(value.dtype))], [masked]
            )
        self._scopes[scope].nodes.append(node)
        return masked


def equivalence_error(pruned: Model, masked: Model, samples: Samples) -> float:
    """The largest relative difference of the outputs on a few rows.

    Above the tolerance it is held against what rounding alone does: the masked original once more with the last bits
    of its weights changed. Deep and quantised networks move by more than the tolerance then.

    Raises:
        CheckFailed: it is above the tolerance and above rounding; the output is named.
    """
    got, want = _outputs(pruned, samples), _outputs(masked, samples)
    errors = {name: relative_error(got[name], want[name]) for name in want}
    worst = max(errors, key=lambda name: (np.nan_to_num(errors[name], nan=np.inf), name))
    if errors[worst] <= TOLERANCE:
        return errors[worst]
    other = _outputs(_rounded_otherwise(masked), samples)
    for name, error in errors.items():
        noise = relative_error(other[name], want[name])
        if not error <= max(TOLERANCE, ROUNDINGS * noise) or not np.isfinite(error):
            raise CheckFailed(
                f"output '{name}' of the pruned model differs by {error:.1e} (relative) from the original with the "
                f"removed channels masked, and rounding explains {noise:.1e}: this is a defect of the analysis"
            )
    return errors[worst]


def _outputs(model: Model, samples: Samples) -> dict[str, Array]:
    quantised = any(node.op == "QuantizeLinear" for scope in model.scopes() for node in scope.nodes)
    runner = Runner(model, level="basic" if quantised else "all")  # "all" would compute only one of the two in integers
    try:
        return runner.run(next(samples.batches(ROWS)))
    except StopIteration:
        raise ZcError(f"{samples.origin}: no rows") from None


def _rounded_otherwise(model: Model) -> Model:
    """A copy whose float weights differ in the last bit, up or down at random."""
    copy = model.copy()
    random = np.random.default_rng(0)
    for constant in copy.constants():
        if constant.dtype.kind == "f" and constant.size > 1:
            step = np.finfo(constant.dtype).eps * random.choice([-0.5, 0.5], constant.shape)
            constant.values = (constant.values * (1 + step)).astype(constant.dtype)
    return copy
