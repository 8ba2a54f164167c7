"""Chooses factors: candidates are compared by what rounding costs at the outputs of the layers behind them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zc.ir.graph import Tensor
from zc.passes.quantize.scaling.balance import Classes, activation_ranges, balanced, weight_ranges, within_limits
from zc.passes.quantize.scaling.flow import Flow, Reader
from zc.passes.quantize.scaling.observe import Extremes, rounding_errors
from zc.passes.quantize.scaling.rescale import Factors
from zc.passes.quantize.scaling.upstream import Rounding
from zc.passes.quantize.trial import Source
from zc.pipeline.base import Context

ALPHAS = (0.0, 0.25, 0.5, 0.7, 0.85, 1.0)
"""What `auto` chooses among, beside leaving a value as it is."""

WORTH = 0.95
"""The error must fall below this share of what it was."""

WORTH_AN_OPERATOR = 0.5
"""The same where the factors cost an operator at run time."""


@dataclass(frozen=True)
class Choice:
    """What was decided for the values that share factors."""

    values: tuple[str, ...]
    """The values that layers read, by name."""
    alpha: float | None
    """None: they stay as they are."""
    before: float | None
    """Squared error at the readers' outputs as a share of their squares, mean over readers; None if not measured."""
    after: float | None


@dataclass(frozen=True, eq=False)
class Plan:
    """Factors by label, and how they came about."""

    factors: Factors
    choices: list[Choice]


def make_plan(
    flow: Flow,
    extremes: Extremes,
    alphas: Sequence[float],
    source: Source | None,
    ctx: Context,
    *,
    by_row: bool,
    ops: frozenset[str] | None = None,
    costly: frozenset[str] = frozenset(),
) -> Plan:
    """The best of some alphas for each part of the graph.

    extremes: of every value that layers read, and of what Clips of `Flow.limits` put out.
    source: where to compare them; without it the one next to 1/2 is taken. ops: leave values alone that others read.
    costly: values whose factors cost an operator.
    """
    classes = Classes.of(flow)
    above, (_, below) = activation_ranges(classes, extremes), weight_ranges(classes, by_row=by_row)
    roots = [within_limits(classes, balanced(classes, above, below, alpha), extremes) for alpha in alphas]
    candidates = [np.ones(flow.labels.count), *(classes.by_label(one) for one in roots)]
    errors = {} if source is None else rounding_errors(flow, candidates, extremes, source, ctx, by_row=by_row)
    choice = np.zeros(flow.labels.count, np.int64)  # by root of a part
    choices = []
    for part, readers in _parts(classes).items():
        measured = [errors[id(r.edit.node)] for r in readers if id(r.edit.node) in errors]
        names = tuple(dict.fromkeys(r.value.name for r in readers))
        if ops is not None and any(r.edit.node.op not in ops for r in readers):
            continue
        if not measured:
            choice[part] = 1 + min(range(len(alphas)), key=lambda i: abs(alphas[i] - 0.5))
            choices.append(Choice(names, alphas[choice[part] - 1], None, None))
            continue
        total = np.mean(measured, axis=0)
        best = int(total.argmin())
        worth = WORTH_AN_OPERATOR if costly.intersection(names) else WORTH
        choice[part] = best if total[best] < worth * total[0] else 0
        taken = int(choice[part])
        alpha = alphas[taken - 1] if taken else None
        choices.append(Choice(names, alpha, float(total[0]), float(total[best])))
    of_root = np.stack([np.ones(flow.labels.count), *roots])[choice[classes.part], np.arange(flow.labels.count)]
    return Plan(classes.by_label(of_root), choices)


def _parts(classes: Classes) -> dict[int, list[Reader]]:
    """The readers whose values may be scaled, by root of their part."""
    found: dict[int, list[Reader]] = {}
    for reader in classes.flow.readers:
        roots = classes.roots[reader.layout.reshape(-1)]
        roots = roots[classes.free[roots]]
        if len(roots):
            found.setdefault(int(classes.part[roots[0]]), []).append(reader)
    return found


def wanted_values(flow: Flow, ctx: Context) -> dict[str, Tensor]:
    """The values whose extremes a plan asks for, by name."""
    open_ones = [r.value for r in flow.readers if not flow.pinned(r.layout)]
    limited = [limit.node.outputs[0] for limit in flow.limits]
    rounding = Rounding(flow, ctx.target)
    summed = [t for value in open_ones for t in rounding.before(value)]
    return {t.name: t for t in (*open_ones, *limited, *summed)}
