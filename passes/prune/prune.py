"""The prune pass: whole channels leave, by magnitude, and the result is proven."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from zc.data import Samples
from zc.errors import ZcError
from zc.ir.edit import make_constant, sort_nodes, sweep
from zc.ir.graph import Constant
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes
from zc.measure.cost import Cost, count
from zc.passes.prune.apply import remove, stays
from zc.passes.prune.groups import Groups, Pinned, find_groups
from zc.passes.prune.importance import Criterion, magnitude
from zc.passes.prune.interpret import interpret
from zc.passes.prune.labels import Ints
from zc.passes.prune.observe import observe_sizes
from zc.passes.prune.select import Limits, choose, why_none
from zc.passes.prune.settle import settle
from zc.passes.prune.sharing import unshare
from zc.passes.prune.skip import exclude
from zc.passes.prune.verify import ROWS, TOLERANCE, Masked, equivalence_error
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register
from zc.pipeline.synthetic import synthetic_samples


@register
@dataclass(frozen=True)
class Prune(Pass):
    r"""Remove whole channels, with everything that belongs to them.

    before:  x -> Conv(64 channels) -> Relu -> Conv -> y        after:  x -> Conv(48) -> Relu -> Conv -> y
                        \-> Add ...                                        \-> Add (48) ...

    Channels that meet in an Add, a Concat, a Reshape or a depthwise convolution leave together; a group of such
    channels is cut to the share that stays, the weakest channels first. The result is compared with the original whose
    removed channels are masked: they must be equal.
    """

    name: ClassVar[str] = "prune"
    requires: ClassVar[tuple[str, ...]] = ("clean",)

    ratio: float = 0.25
    """Share of the channels to remove in each group, 0 <= ratio < 1."""
    criterion: Criterion = "l2"
    """What makes a channel important: the l1 or l2 norm of its weights."""
    round_to: int | Literal["auto"] = 1
    """Leave a multiple of so many channels; auto: what the target runs best. A group that is too narrow stays."""
    min_channels: int = 1
    """Leave at least so many channels in each group."""
    skip: tuple[str, ...] = ()
    """Nodes or weights whose output channels stay: names or globs, separated by +."""
    only: tuple[str, ...] = ()
    """Nodes or weights whose output channels may leave, all others stay: names or globs, separated by +."""

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < 1:
            raise ZcError(f"ratio is {self.ratio:g}; it must be at least 0 and below 1")
        if self.criterion not in ("l1", "l2"):
            raise ZcError(f"criterion is {self.criterion!r}; it must be l1 or l2")
        if self.round_to != "auto" and self.round_to < 1:
            raise ZcError(f"round_to is {self.round_to}; it must be at least 1, or auto")
        if self.min_channels < 1:
            raise ZcError(f"min_channels is {self.min_channels}; it must be at least 1")

    def run(self, model: Model, ctx: Context) -> PassResult:
        """See `Pass.run`. CheckFailed when the proof fails; the model is untouched then."""
        work = model.copy()
        groups = analyse(work, self.skip, self.only)
        result = PassResult(changed=False)
        limits = Limits(
            self.ratio, ctx.target.channel_step if self.round_to == "auto" else self.round_to, self.min_channels
        )
        gone = self._choose(groups, limits, result)
        _tell_pinned(groups, result)
        if not len(gone):
            result.declined(model.name, f"no channel was removed: {_why_nothing(groups)}")
            return result
        before, masked = count(model), Masked(work)
        remove(work, groups, gone)
        masked.mask(groups.flow.contractions, stays(groups, gone))
        error = equivalence_error(work, masked, _samples(model, ctx))
        for what in masked.unproven:
            result.warn(what, "no samples were found that run it, so equality is not proven there")
        if error > TOLERANCE:
            result.info(
                model.name, f"equal to the masked original but for rounding, which moves this net by {error:.1e}"
            )
        model.take(work)
        result.changed = True
        result.stats.update(_stats(before, count(model), groups, gone), equivalence_error=error)
        return result

    def _choose(self, groups: Groups, limits: Limits, result: PassResult) -> Ints:
        scores = magnitude(groups, self.criterion)
        gone = []
        for group in groups.groups:
            chosen = choose(group, scores, limits)
            if not len(chosen):
                result.declined(group.name, why_none(group, limits))
            gone.append(chosen)
        return np.concatenate(gone) if gone else np.zeros(0, np.int64)


def analyse(model: Model, skip: tuple[str, ...] = (), only: tuple[str, ...] = ()) -> Groups:
    """The groups of a model, which is made ready for it: Constant nodes become initializers, shared vectors copies.

    Raises:
        ZcError: a pattern matches nothing.
    """
    _lift_constants(model)
    copies = unshare(model)
    sort_nodes(model.graph)
    infer_shapes(model)
    flow = interpret(model)
    if flow.lacks_sizes() and observe_sizes(model):
        flow = interpret(model)
    exclude(flow, skip, only)
    groups = find_groups(flow, settle(flow))
    groups.copies = copies
    return groups


def _lift_constants(model: Model) -> None:
    for scope in (model.graph, *model.graph.subgraphs(recursive=True)):  # functions cannot hold initializers
        outputs = {id(t) for t in scope.outputs}
        for node in scope.nodes:
            value = node.attrs.get("value")
            if node.op == "Constant" and isinstance(value, Constant) and id(node.outputs[0]) not in outputs:
                make_constant(node.outputs[0], value.values)
        sweep(scope)


def _why_nothing(groups: Groups) -> str:
    if groups.groups:
        return "every group is too narrow for the options"
    return "all channels are pinned" if groups.pinned else "no convolution or matrix product makes channels"


def _tell_pinned(groups: Groups, result: PassResult) -> None:
    """One note for each kind of reason, with the nodes that it concerns."""
    kinds: dict[str, list[Pinned]] = {}
    for one in groups.pinned:
        kinds.setdefault(re.sub(r"'[^']*'", "", one.reason), []).append(one)
    for alike in kinds.values():
        nodes = [p.node + ("" if p.channels == p.of else f" ({p.channels} of {p.of} channels)") for p in alike]
        reasons = len({p.reason for p in alike})
        more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
        others = f", and {reasons - 1} alike" if reasons > 1 else ""
        result.declined(", ".join(nodes[:3]) + more, alike[0].reason + others)


def _samples(model: Model, ctx: Context) -> Samples:
    return ctx.samples if ctx.samples is not None else synthetic_samples(model, ROWS, ctx.seed)


def _stats(before: Cost, after: Cost, groups: Groups, gone: Ints) -> dict[str, int | float | str]:
    removed = Counter(groups.group_of[gone].tolist())
    stats: dict[str, int | float | str] = {
        "groups": len(groups.groups),
        "groups_pruned": len(removed),
        "channels_removed": sum(n * groups.groups[g].width for g, n in removed.items()),
        "params_before": before.params,
        "params_after": after.params,
        "params_ratio": round(after.params / max(before.params, 1), 4),
    }
    if before.macs and after.macs is not None:
        stats.update(macs_before=before.macs, macs_after=after.macs, macs_ratio=round(after.macs / before.macs, 4))
    return stats
