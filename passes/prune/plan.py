"""What shall leave: rankings of all groups, and how much of each a goal takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from zc.data import Samples
from zc.errors import ZcError
from zc.ir.model import Model
from zc.measure.cost import Cost, count
from zc.passes.layers.coded import find_all_layers
from zc.passes.prune.allot import TOLERANCE, Share, alike, cheapest_to_goal, leaving, narrowest, share_to_goal, shares
from zc.passes.prune.groups import Groups
from zc.passes.prune.importance import USUAL, Combine
from zc.passes.prune.labels import Ints
from zc.passes.prune.observations import observe
from zc.passes.prune.ranking import OBSERVING, Criterion, Ranking, rank, readings
from zc.passes.prune.resources import Resource, macs, parameters, stored_bytes
from zc.passes.prune.select import Limits
from zc.passes.prune.sensitivity import scaled
from zc.passes.prune.taylor import taylor
from zc.pipeline.base import Context

Allotment = Literal["uniform", "isomorphic", "global", "auto"]
LOOKED_AT = 384
"""Rows from which channels are chosen."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that is known before anything is cut. Amounts are steps, by group."""

    groups: Groups
    rankings: Sequence[Ranking]
    limits: Limits
    resources: dict[str, Resource]
    spread: bool
    """Is it allotted by loss, or the same share to all groups?"""
    share: Share = alike
    """How the same share is given, where it is not allotted by loss."""

    def by_ratio(self) -> Ints:
        """The share of each group that the limits name; by loss, as many parameters as that would take."""
        lost = self.share(self.groups.groups, self.rankings, self.limits)
        if not self.spread:
            return lost
        resource = self.resources["params"]
        return self._spread(resource, resource.left(shares(lost, self.rankings)))

    def to_goal(self, name: str, share: float) -> Ints:
        """As near to the goal as it goes, in widths that pay as far as the goal allows.

        share: of what the original has of the resource.
        """
        resource = self.resources[name]
        goal = share * resource.left(np.zeros(len(self.rankings)))
        own = self.groups.groups, self.rankings
        lost = np.zeros(len(self.rankings), np.int64)
        for limits in self.limits.eased():
            if self.spread:
                lost = cheapest_to_goal(*own, limits, resource, goal)
            else:
                lost = share_to_goal(*own, limits, resource, goal, self.share)
            if self.reached(name, share, lost):
                break
        return lost

    def share_left(self, name: str, lost: Ints) -> float:
        """Which part of a resource is left."""
        resource = self.resources[name]
        return resource.left(shares(lost, self.rankings)) / max(resource.left(np.zeros(len(lost))), 1e-30)

    def lowest(self, name: str) -> float:
        """The smallest part of a resource that can be left."""
        return self.share_left(name, narrowest(self.groups.groups, self.rankings, self.limits))

    def reached(self, name: str, share: float, lost: Ints) -> bool:
        """Is the goal met, but for the tolerance?"""
        return abs(self.share_left(name, lost) - share) <= TOLERANCE * share

    def atoms(self, lost: Ints) -> Ints:
        """What leaves."""
        return leaving(lost, self.rankings)

    def _spread(self, resource: Resource, goal: float) -> Ints:
        return cheapest_to_goal(self.groups.groups, self.rankings, self.limits, resource, goal)


def make_plan(
    model: Model,
    groups: Groups,
    limits: Limits,
    criterion: Criterion,
    *,
    spread: bool,
    refit: bool,
    samples: Samples | None,
    probes: Samples | None,
    ctx: Context,
    share: Share = alike,
    combine: Combine = USUAL,
) -> Plan:
    """Rank all groups; with samples and `spread`, weigh them by what the outputs of the network suffer.

    samples: what channels are chosen from. probes: what the outputs are compared on. refit: will the cut be repaired?
    share: how the same share is given where not `spread`. combine: how norms in several weights come together.

    Raises:
        ZcError: the criterion needs samples and there are none; a weight has NaN or infinite values.
    """
    if criterion in OBSERVING | {"taylor"} and samples is None:
        raise ZcError(f"criterion={criterion} looks at activations: give samples with --calib")
    read = []
    if samples is not None and (criterion in OBSERVING or (spread and refit)):
        some = samples.take(0, _whole(min(samples.rows, LOOKED_AT), samples))
        free = groups.group_of[groups.classes.roots] >= 0
        summed = {id(c.node) for c in groups.flow.contractions if free[c.labels].any()}
        layers = [one for one in find_all_layers(model)[0] if id(one.node) in summed]
        read = readings(groups, layers, observe(model, layers, some, ctx))
    given = None
    if criterion == "taylor":
        assert samples is not None
        given = taylor(groups, samples.take(0, _whole(min(samples.rows, LOOKED_AT), samples)), ctx)
    rankings = rank(groups, criterion, read, ctx.seed, given, combine)
    if probes is not None and spread:
        rankings = scaled(model, groups, rankings, read, probes, refit, ctx)
    cost = count(model)
    return Plan(groups, rankings, limits, resources_of(groups, cost), spread, share)


def resources_of(groups: Groups, cost: Cost) -> dict[str, Resource]:
    """What goals are stated in; MACs only where they are known."""
    found = {"params": parameters(groups, cost), "bytes": stored_bytes(groups, cost)}
    if cost.macs:
        found["macs"] = macs(groups, cost)
    return found


def _whole(rows: int, samples: Samples) -> int:
    """A number of rows that fills batches."""
    batch = samples.batch or 1
    return max(rows // batch, 1) * batch
