"""The proof at run time: the pruned model equals the original with the removed channels masked.

A channel is masked where it is summed: the input of a Conv, Gemm or MatMul is set to zero at the positions that were
removed. Every removed channel ends in such sums, or else the analysis would have pinned it. Sums all of whose own
channels stay are compared too, beside the outputs: in a model that chooses between parts (by a sampling rate, say) the
rows of the proof may never reach the one that was cut wrongly; both branches of an If are run.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from zc.data import Samples
from zc.errors import CheckFailed, ZcError
from zc.execute import Level, Runner, relative_error
from zc.ir.edit import Names, sort_nodes
from zc.ir.graph import Array, Node, Tensor
from zc.ir.model import PROTO_LIMIT, Model
from zc.measure.agreement import before_saturation
from zc.passes.prune.flow import Contraction
from zc.passes.prune.labels import Bools
from zc.pipeline.branches import forced
from zc.pipeline.synthetic import synthetic_samples

TOLERANCE = 1e-5
"""Largest allowed difference, relative to the largest value of an output."""

ROUNDINGS = 8
"""How many times the effect of one changed bit in each weight the rounding of a whole run may have."""

ROWS = 4

INNER_ELEMENTS = 2**24
"""How many numbers of inner values are compared at most."""


class Masked:
    """A copy of a model, to be masked later with what the analysis of the model finds."""

    def __init__(self, model: Model) -> None:
        """Copy the model; arrays are shared."""
        self.model = model.copy()
        self.sums: list[str] = []
        """Names of what the nodes of the main graph give that sum over masked channels, in order of execution."""
        self.branches = False
        """Was anything masked in a body of control flow?"""
        self.unproven: list[str] = []
        """What the proof could not run, in words."""
        self._copies: dict[int, tuple[Node, int]] = {}
        self._scopes = list(self.model.scopes())
        for number, (scope, copy) in enumerate(zip(model.scopes(), self._scopes, strict=True)):
            for old, new in zip(scope.nodes, copy.nodes, strict=True):
                assert isinstance(new, Node)
                self._copies[id(old)] = (new, number)

    def copy_of(self, node: Node) -> Node:
        """The copy of a node of the model."""
        return self._copies[id(node)][0]

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
            if scope == 0:
                self.sums.append(node.outputs[0].name)
            else:
                self.branches = True
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


def equivalence_error(pruned: Model, masked: Masked, samples: Samples) -> float:
    """The largest relative difference on a few rows: of the outputs, and of the inner values that kept their size.

    Where channels left a branch of an If, both branches are run, whatever the rows choose.

    Above the tolerance it is held against what rounding alone does: the masked original once more with the last bits
    of its weights changed. Quantised activations are compared before they are rounded: one code may flip either way.

    Raises:
        CheckFailed: it is above the tolerance and above rounding; the output or inner value is named.
    """
    errors = [_difference(pruned, masked.model, masked.sums, samples)]
    for taken in (True, False) if masked.branches else ():
        original = forced(masked.model, taken)
        rows = _rows_for(original, samples)
        if rows is None:
            masked.unproven.append(f"the {'then' if taken else 'else'} branch of If")
        else:
            errors.append(_difference(forced(pruned, taken), original, masked.sums, rows))
    return max(errors)


def _rows_for(model: Model, samples: Samples) -> Samples | None:
    """Samples that a model runs with: these, or synthetic ones (another branch may ask for other sizes), or none."""
    sources: tuple[Callable[[], Samples], ...] = (lambda: samples, lambda: synthetic_samples(model, ROWS))
    for find in sources:
        try:
            _values(model, (), rows := find())
        except ZcError:
            continue
        return rows
    return None


def _difference(pruned: Model, masked: Model, sums: Sequence[str], samples: Samples) -> float:
    pruned, original = _unrounded(pruned), _unrounded(masked)
    inner = _inner_values(pruned, original, sums) if original.nbytes() < PROTO_LIMIT else []
    got, want = _values(pruned, inner, samples), _values(original, inner, samples)
    errors = {name: relative_error(got[name], want[name]) for name in want}
    worst = max(errors, key=lambda name: (np.nan_to_num(errors[name], nan=np.inf), name))
    if errors[worst] <= TOLERANCE:
        return errors[worst]
    other = _values(_rounded_otherwise(original), inner, samples)
    outputs = {t.name for t in original.graph.outputs}
    for name, error in errors.items():
        noise = relative_error(other[name], want[name])
        if not error <= max(TOLERANCE, ROUNDINGS * noise) or not np.isfinite(error):
            raise CheckFailed(
                f"{'output' if name in outputs else 'value'} '{name}' of the pruned model differs by {error:.1e} "
                f"(relative) from the original with the removed channels masked, and rounding explains {noise:.1e}: "
                "this is a defect of the analysis"
            )
    return errors[worst]


def _inner_values(pruned: Model, original: Model, sums: Sequence[str]) -> list[str]:
    """What is compared beside the outputs, by name: what a saturated output hides, and sums that kept their size."""
    found = before_saturation(original)
    shapes = [{t.name: t.shape for n in m.graph.nodes for t in n.outputs} for m in (pruned, original)]
    room = INNER_ELEMENTS
    for name in reversed(list(dict.fromkeys(sums))):  # the last ones depend on the most
        shape = shapes[1].get(name)
        if shape is None or shape != shapes[0].get(name):
            continue
        room -= math.prod(d if isinstance(d, int) else ROWS for d in shape)
        if room < 0:
            break
        found.append(name)
    outputs = {t.name for t in original.graph.outputs}
    return [name for name in dict.fromkeys(found) if name not in outputs]


def _values(model: Model, inner: Sequence[str], samples: Samples) -> dict[str, Array]:
    """The outputs, and these inner values."""
    quantised = any(node.op in ("QuantizeLinear", "DequantizeLinear") for s in model.scopes() for node in s.nodes)
    level: Level = "basic" if quantised else "all"  # "all" would compute only one of the two in integers
    names = [t.name for t in model.graph.outputs]
    runner = Runner(model, outputs=[*names, *inner] if inner else None, level=level)
    try:
        return runner.run(next(samples.batches(ROWS)))
    except StopIteration:
        raise ZcError(f"{samples.origin}: no rows") from None


def _unrounded(model: Model) -> Model:
    """The model, or a copy in which a QuantizeLinear with a DequantizeLinear behind it does nothing."""
    if not any(node.op == "QuantizeLinear" for scope in model.scopes() for node in scope.nodes):
        return model
    copy = model.copy()
    for scope in copy.scopes():
        for node in scope.nodes:
            codes = node.inputs[0] if node.op == "DequantizeLinear" else None
            if codes is not None and len(codes.inputs) == 1 and codes.inputs[0].op == "QuantizeLinear":
                node.op, node.attrs, node.inputs = "Identity", {}, [codes.inputs[0].inputs[0]]
    return copy


def _rounded_otherwise(model: Model) -> Model:
    """A copy whose float weights differ in the last bit, up or down at random."""
    copy = model.copy()
    random = np.random.default_rng(0)
    for constant in copy.constants():
        if constant.dtype.kind == "f" and constant.size > 1:
            step = np.finfo(constant.dtype).eps * random.choice([-0.5, 0.5], constant.shape)
            constant.values = (constant.values * (1 + step)).astype(constant.dtype)
    return copy
