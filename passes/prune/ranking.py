"""Rankings: in which order the atoms of each group would leave, and what the network loses on the way."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from zc.ir.graph import Array
from zc.passes.layers.layers import Layer
from zc.passes.prune.elimination import Reader, eliminate
from zc.passes.prune.groups import Group, Groups
from zc.passes.prune.importance import USUAL, Combine, Scores, geometric_median, magnitude, normalization_scale
from zc.passes.prune.labels import Ints
from zc.passes.prune.observations import Observed

Criterion = Literal["l1", "l2", "gm", "bn", "random", "energy", "mean", "zeros", "error", "taylor"]
CRITERIA: tuple[str, ...] = get_args(Criterion)
OBSERVING = frozenset({"energy", "mean", "zeros", "error"})
"""Criteria that need samples."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """The atoms of a group, the first to leave first."""

    order: Ints
    """[steps, rows]: with each step one atom of each row leaves."""
    loss: Array
    """float64 [steps + 1], not falling: estimated loss after so many steps, in units of one for the whole group."""

    @property
    def steps(self) -> int:
        """Number of steps until nothing is left."""
        return len(self.order)


@dataclass(frozen=True, eq=False)
class Reading:
    """A layer that sums over channels of groups, and what was seen of its inputs."""

    layer: Layer
    roots: Ints
    """The class of each of its inputs, [groups, D]."""
    seen: Observed


def readings(groups: Groups, layers: Sequence[Layer], seen: dict[int, Observed]) -> list[Reading]:
    """The layers whose inputs were observed, in the order of the graph."""
    labels = {id(c.node): c.labels for c in groups.flow.contractions if c.place == 0 and c.labels.ndim == 1}
    return [
        Reading(layer, layer.columns(groups.classes.roots[labels[id(layer.node)]]), seen[id(layer.node)])
        for layer in layers
        if id(layer.node) in labels and id(layer.node) in seen
    ]


def rank(
    groups: Groups,
    criterion: Criterion,
    read: Sequence[Reading],
    seed: int,
    given: Scores | None = None,
    combine: Combine = USUAL,
) -> list[Ranking]:
    """The ranking of each group. A group about which a criterion says nothing is ranked by its l2 norm.

    given: scores that stand in the place of the criterion's own. combine: how norms in several weights come together;
    where they are not divided by anything, losses are not either, so that groups can be compared.

    Raises:
        ZcError: a weight has NaN or infinite values.
    """
    scores = _scores(groups, criterion, read, seed, combine) if given is None else given
    plain = magnitude(groups, "l2", combine) if criterion not in ("l1", "l2") else scores
    result = []
    for group in groups.groups:
        own = [r for r in read if np.isin(r.roots, group.atoms).any()]
        single = not group.rows.any() or len(np.unique(group.rows)) == 1
        if criterion == "error" and own and single and all(r.seen.normal is not None for r in own):
            order, loss = eliminate(group.atoms, [reader for r in own for reader in _readers(r, group)])
            result.append(Ranking(order[:, None], loss))
        else:
            mine = scores if scores[group.atoms].any() else plain
            squared = criterion not in ("energy", "error", "taylor") or mine is plain
            result.append(by_score(group, mine, squared=squared, whole=combine.normalizer != "none"))
    return result


def by_score(group: Group, scores: Scores, *, squared: bool, whole: bool = True) -> Ranking:
    """The ranking by a score; of equal scores the last leave first.

    The loss: the part of all (squared) scores of the group, or (not `whole`) their sum.
    """
    parts = []
    for row in np.unique(group.rows):
        part = group.atoms[group.rows == row]
        parts.append(part[np.lexsort((part, -scores[part]))][::-1])
    order = np.stack(parts, axis=1)
    steps = (np.square(scores[order]) if squared else scores[order]).sum(axis=1)
    total = np.concatenate([[0.0], np.cumsum(steps)])
    return Ranking(order, total / max(total[-1], 1e-30) if whole else total)


def _readers(reading: Reading, group: Group) -> list[Reader]:
    assert reading.seen.normal is not None
    covariance, matrix = reading.seen.normal.shrunk(), reading.layer.matrix()
    return [
        Reader(roots, covariance[g], matrix[g])
        for g, roots in enumerate(reading.roots)
        if np.isin(roots, group.atoms).any()
    ]


def _scores(groups: Groups, criterion: Criterion, read: Sequence[Reading], seed: int, combine: Combine) -> Scores:
    if criterion in ("l1", "l2"):
        return magnitude(groups, "l1" if criterion == "l1" else "l2", combine)
    if criterion == "gm":
        return geometric_median(groups, combine)
    if criterion == "bn":
        return normalization_scale(groups, combine)
    if criterion == "random":
        return np.random.default_rng(seed).random(groups.flow.labels.count) + 1e-6
    scores = np.zeros(groups.flow.labels.count)
    for one in read:
        power = np.square(one.layer.matrix()).sum(axis=2)
        if criterion == "mean":
            value = np.abs(one.seen.mean)
        elif criterion == "zeros":
            value = 1 - one.seen.zeros
        else:
            value = one.seen.variance * power
            value = value / max(float(value.sum()), 1e-30)
        np.add.at(scores, one.roots.ravel(), value.ravel())
    return scores
