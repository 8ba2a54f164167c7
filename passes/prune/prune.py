"""The prune pass: whole channels leave, and the result is proven."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, get_args

import numpy as np

from zc.data import Samples
from zc.data.split import Split, hold_back
from zc.errors import ZcError
from zc.ir.edit import make_constant, sort_nodes, sweep
from zc.ir.graph import Constant
from zc.ir.model import Model
from zc.ir.quantised import is_quantised
from zc.ir.shapes import infer_shapes
from zc.measure.agreement import Reference
from zc.measure.cost import count
from zc.measure.timings import Timings
from zc.passes.prune.allot import alike, isomorphic, shares
from zc.passes.prune.apply import remove
from zc.passes.prune.cutting import Cut, cut_out
from zc.passes.prune.goals import RESOURCES, Goal, guarded, lost_for
from zc.passes.prune.groups import Group, Groups, find_groups
from zc.passes.prune.importance import Combine, Normalizer, Reduction
from zc.passes.prune.interpret import interpret
from zc.passes.prune.labels import Ints
from zc.passes.prune.observe import observe_sizes
from zc.passes.prune.plan import Allotment, Plan, make_plan
from zc.passes.prune.ranking import CRITERIA, Criterion, Ranking
from zc.passes.prune.schedule import Schedule, alternate
from zc.passes.prune.select import Limits, why_none
from zc.passes.prune.settle import settle
from zc.passes.prune.sharing import unshare
from zc.passes.prune.skip import exclude
from zc.passes.prune.speed.clock import Clock
from zc.passes.prune.speed.latency import LatencyRun, read_latency
from zc.passes.prune.speed.widths import what_pays
from zc.passes.prune.tell import figures, tell_pinned, tell_repair, tell_time, why_nothing
from zc.passes.prune.verify import ROWS, TOLERANCE
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register
from zc.pipeline.synthetic import synthetic_samples

DEFAULT_GUARD = 0.95
CAREFUL = 0.25
"""The ratio where no goal was given and nothing can be measured."""


@register
@dataclass(frozen=True)
class Prune(Pass):
    r"""Remove whole channels, with everything that belongs to them.

    before:  x -> Conv(64 channels) -> Relu -> Conv -> y        after:  x -> Conv(48) -> Relu -> Conv -> y
                        \-> Add ...                                        \-> Add (48) ...

    Channels that meet in an Add, a Concat, a Reshape or a depthwise convolution leave together; a group of such
    channels is cut to the share that stays, the weakest channels first. The result is compared with the original whose
    removed channels are masked: they must be equal. With samples the layers behind the cut are refitted then, so that
    they say what the original says.
    """

    name: ClassVar[str] = "prune"
    requires: ClassVar[tuple[str, ...]] = ("clean",)
    uses_samples: ClassVar[bool] = True

    ratio: float | None = None
    """Share of the channels to remove in each group, 0 <= ratio < 1."""
    macs: float | None = None
    """Share of the multiply-accumulates to leave, reached within 2 %."""
    params: float | None = None
    """Share of the parameters to leave, reached within 2 %."""
    bytes: float | None = None
    """Share of the bytes of all weights to leave, reached within 2 %."""
    latency: float | str | None = None
    """Share of the time of a run to leave (0.6), or milliseconds (5ms); measured here, reached within 5 %."""
    guard: float | None = None
    """Prune as far as the result agrees so much with the original on held-back samples; 0.95 when no goal is given."""
    best_effort: bool = False
    """Where a goal cannot be reached, go as far as it gets."""
    criterion: Criterion | Literal["auto"] = "auto"
    """What makes a channel important: the l1 or l2 norm of its weights, gm (distance from the other filters), bn
    (BatchNormalization scale), random; with samples energy (variance times weight), mean or zeros of its activation,
    error (what its consumers lose when they are refitted), taylor (what the loss changes by, from gradients; needs
    the extra train). auto: error with samples, else l2."""
    allot: Allotment = "auto"
    """uniform: the same share of each group; isomorphic: of each kind of group, most where it costs least within a
    kind; global: most where the network loses least for what it saves. auto: uniform for a ratio and without samples,
    else global."""
    reduction: Reduction = "sum"
    """How the norms of a channel in several weights become one, for l1, l2, gm and bn."""
    normalize: Normalizer = "mean"
    """By what the norms of a group in one weight are divided first; none: they are compared between groups as they
    are."""
    repair: bool | Literal["auto"] = "auto"
    """Refit the layers behind the cut to the original's values on samples. auto: when samples were given."""
    round_to: int | Literal["auto"] = "auto"
    """Leave a multiple of so many channels; 1: any number. auto: the widths that pay by the target's table of kernel
    times, as far as the goal allows. A group that is too narrow stays."""
    min_channels: int = 1
    """Leave at least so many channels in each group."""
    skip: tuple[str, ...] = ()
    """Nodes or weights whose output channels stay: names or globs, separated by +."""
    only: tuple[str, ...] = ()
    """Nodes or weights whose output channels may leave, all others stay: names or globs, separated by +."""

    steps: int = 1
    """Reach the goal in so many rounds, with the training pass behind it in between (prune:macs=0.5:steps=4,distill).
    The training's budget is shared among the rounds."""
    schedule: Schedule = "polynomial"
    """How the goal is divided among the rounds. polynomial: large cuts first, smaller ones later; linear: the same
    amount in each."""
    timings: str = ""
    """File of measured times for the goal latency, read and added to: from the same times the same widths follow."""

    def __post_init__(self) -> None:
        if self.ratio is not None and not 0 <= self.ratio < 1:
            raise ZcError(f"ratio is {self.ratio:g}; it must be at least 0 and below 1")
        for name in (*RESOURCES, "guard"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ZcError(f"{name} is {value:g}; it must be above 0 and at most 1 (a share of the original)")
        if self.latency is not None:
            read_latency(self.latency)
        elif self.timings:
            raise ZcError("timings is of use for the goal latency; state one, such as latency=0.6")
        given = [name for name in ("ratio", *RESOURCES, "latency", "guard") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ZcError(f"{given[0]} and {given[1]} are two goals; state one")
        if self.criterion != "auto" and self.criterion not in CRITERIA:
            raise ZcError(f"criterion is {self.criterion!r}; it must be {', '.join(CRITERIA)} or auto")
        for name, known in (
            ("allot", Allotment),
            ("reduction", Reduction),
            ("normalize", Normalizer),
            ("schedule", Schedule),
        ):
            if getattr(self, name) not in get_args(known):
                raise ZcError(f"{name} is {getattr(self, name)!r}; it must be {', '.join(get_args(known))}")
        if self.round_to != "auto" and self.round_to < 1:
            raise ZcError(f"round_to is {self.round_to}; it must be at least 1, or auto")
        if self.steps < 1:
            raise ZcError(f"steps is {self.steps}; it must be at least 1")
        if self.steps > 1 and all(getattr(self, name) is None for name in ("ratio", *RESOURCES)):
            raise ZcError(f"steps={self.steps} needs a goal to divide: ratio, {', '.join(RESOURCES)}")
        if self.schedule != "polynomial" and self.steps == 1:
            raise ZcError(f"schedule={self.schedule} divides a goal among rounds; say how many with steps")
        if self.min_channels < 1:
            raise ZcError(f"min_channels is {self.min_channels}; it must be at least 1")

    def rounds(self, following: Pass | None) -> tuple[Pass, ...] | None:
        """See `Pass.rounds`: as many rounds of pruning and training as `steps` says."""
        return None if self.steps == 1 else alternate(self, following)

    def run(self, model: Model, ctx: Context) -> PassResult:
        """See `Pass.run`. CheckFailed when the proof fails; the model is untouched then."""
        samples = ctx.samples if ctx.samples is not None and not ctx.samples.synthetic else None
        if samples is None and (self.guard is not None or self.repair is True):
            what = "repair=true" if self.repair is True else "guard"
            raise ZcError(f"{what} needs samples of the model's inputs: give some with --calib")
        result = PassResult(changed=False)
        work = model.copy()
        groups = analyse(work, self.skip, self.only)
        tell_pinned(groups, result)
        if not groups.groups:
            result.declined(model.name, f"no channel was removed: {why_nothing(groups)}")
            return result
        if is_quantised(model):
            result.warn(
                model.name,
                "its weights are codes, and refitted ones are rounded again; where the float model is at hand, "
                "prune,quantize keeps more of its accuracy",
            )
        job = _Job(self, model, samples, ctx)
        plan = job.plan(work, groups)
        lost = self._lost(plan, job, result)
        for group, ranking, steps in zip(groups.groups, plan.rankings, lost, strict=True):
            if not steps:
                result.declined(group.name, self._why_none(group, ranking, plan))
        if not lost.any():
            result.declined(model.name, f"no channel was removed: {why_nothing(groups)}")
            return result
        gone = plan.atoms(lost)
        before = count(model)
        times = job.times(plan, lost)
        cut = job.cut(work, groups, gone)
        for what in cut.unproven:
            result.warn(what, "no samples were found that run it, so equality is not proven there")
        if cut.error > TOLERANCE:
            result.info(
                model.name, f"equal to the masked original but for rounding, which moves this net by {cut.error:.1e}"
            )
        model.take(cut.model)
        result.changed = True
        result.stats.update(figures(before, count(model), groups, gone), equivalence_error=cut.error)
        if times is not None:
            tell_time(*times, ctx.target.name, result)
        tell_repair(cut, result)
        return result

    def _lost(self, plan: Plan, job: "_Job", result: PassResult) -> Ints:
        """How many steps each group loses."""
        if self.latency is not None:
            return self._in_time(plan, job, result)
        goal = next((Goal(n, getattr(self, n)) for n in RESOURCES if getattr(self, n) is not None), None)
        if goal is not None:
            lost, short = lost_for(plan, goal, plan.groups, self.best_effort)
            if short is not None:
                result.warn(goal.name, f"{short}, which is as far as it gets")
            return lost
        if self.ratio is not None:
            return plan.by_ratio()
        if job.calibration is None:
            result.warn(
                "ratio",
                f"no goal was given, and without samples nothing can be measured: {CAREFUL:.0%} of the channels of "
                "each group leave; state a goal, or give samples with --calib",
            )
            return plan.by_ratio()
        guard = DEFAULT_GUARD if self.guard is None else self.guard
        found = guarded(plan, guard, lambda lost: job.attempt(plan.atoms(lost)))
        if found is None:
            result.declined(job.model.name, f"no cut agrees with the original on {guard:.0%} of held-back samples")
            return np.zeros(len(plan.rankings), np.int64)
        return found[0]

    def _in_time(self, plan: Plan, job: "_Job", result: PassResult) -> Ints:
        """How many steps each group loses for a goal of latency."""
        assert self.latency is not None
        timings = Timings.load(self.timings) if self.timings else Timings()
        run = LatencyRun(
            job.model, plan, job.clock(plan.groups, timings), job.samples, timings, uniform=self.allot == "uniform"
        )
        found = run.reach(read_latency(self.latency), job.raw, self.best_effort)
        if self.timings:
            timings.save(self.timings)
        result.stats.update(found.stats)
        if found.short is not None:
            result.warn("latency", f"{found.short}, which is as far as it gets")
        return found.lost

    def _why_none(self, group: Group, ranking: Ranking, plan: Plan) -> str:
        limited = why_none(group, plan.limits)
        if not limited.startswith("a ratio of") or (self.ratio is not None and not plan.spread):
            return limited
        return "its channels cost the network more than they save"


@dataclass(frozen=True, eq=False)
class _Job:
    """A run of the pass: what it was given, and how it cuts."""

    options: Prune
    model: Model
    samples: Samples | None
    ctx: Context

    @property
    def repairs(self) -> bool:
        """Will the cut be repaired?"""
        return self.samples is not None and self.options.repair is not False

    @cached_property
    def calibration(self) -> Split | None:
        """The samples, the last part held back; with few rows all serve for both."""
        return None if self.samples is None else hold_back(self.samples)

    @cached_property
    def reference(self) -> Reference | None:
        """What the original says on the rows held back."""
        calibration = self.calibration
        return None if calibration is None else Reference(self.model, calibration.held, self.ctx.threads)

    def clock(self, groups: Groups, timings: Timings | None = None) -> Clock:
        """The time of the model by the target's table. ZcError where the target has none."""
        costs = self.ctx.target.costs
        if costs is None:
            raise ZcError(
                f"latency: target {self.ctx.target.name} has no table of kernel times; state macs or params instead"
            )
        return Clock(groups, costs, self.samples, timings or Timings())

    def times(self, plan: Plan, lost: Ints) -> tuple[float, float] | None:
        """Microseconds before and after by the target's table; None where it has none."""
        if self.ctx.target.costs is None:
            return None
        clock, gone = self.clock(plan.groups), shares(lost, plan.rankings)
        return clock.left(np.zeros(len(gone))), clock.left(gone)

    def limits(self, groups: Groups) -> Limits:
        """How much of each group may leave."""
        own = self.options
        ratio = CAREFUL if own.ratio is None else own.ratio
        if own.round_to != "auto":
            return Limits(ratio, own.round_to, own.min_channels)
        if self.ctx.target.costs is None:
            return Limits(ratio, self.ctx.target.channel_step, own.min_channels)
        return Limits(ratio, 1, own.min_channels, what_pays(groups.groups, self.clock(groups)))

    def plan(self, work: Model, groups: Groups) -> Plan:
        """Rank the groups and weigh them."""
        own, calibration = self.options, self.calibration
        criterion: Criterion = "l2" if calibration is None else "error"
        spread = own.ratio is None and calibration is not None
        return make_plan(
            work,
            groups,
            self.limits(groups),
            criterion if own.criterion == "auto" else own.criterion,
            spread=spread if own.allot == "auto" else own.allot == "global",
            refit=self.repairs,
            samples=None if calibration is None else calibration.fit,
            probes=None if calibration is None else calibration.held,
            ctx=self.ctx,
            share=isomorphic if own.allot == "isomorphic" else alike,
            combine=Combine(own.reduction, own.normalize),
        )

    def cut(self, work: Model, groups: Groups, gone: Ints) -> Cut:
        """Cut an analysed copy of the model."""
        proof = self.ctx.samples or synthetic_samples(self.model, ROWS, self.ctx.seed)
        return cut_out(work, groups, gone, proof, self.calibration, self.reference, self.repairs, self.ctx)

    def raw(self, gone: Ints) -> Model:
        """A copy that is cut and neither proven nor repaired, to time it."""
        work = self.model.copy()
        remove(work, analyse(work, self.options.skip, self.options.only), gone)
        return work

    def attempt(self, gone: Ints) -> Cut:
        """Cut a fresh copy, to see how it does."""
        work = self.model.copy()
        return self.cut(work, analyse(work, self.options.skip, self.options.only), gone)


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
