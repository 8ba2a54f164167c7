"""What can be known of groups without pruning: members, sizes, what each channel costs, the widths that pay."""

from dataclasses import dataclass

import numpy as np

from zc.data import Samples
from zc.ir.model import Model
from zc.measure.cost import count
from zc.measure.timings import Timings
from zc.passes.prune.expense import macs_of_atoms
from zc.passes.prune.groups import Groups, Member, Pinned
from zc.passes.prune.resources import stored_bytes
from zc.passes.prune.select import EASED
from zc.passes.prune.speed.clock import Clock
from zc.passes.prune.speed.widths import what_pays
from zc.target import Target

PROBED = 0.5
"""The share of a group that is left where its time is looked at: single channels seldom save any."""


@dataclass(frozen=True)
class GroupSummary:
    """A group as a person looks at it. Costs are those of one of its channels, as long as nothing else has left."""

    name: str
    channels: int
    atom: int
    """Channels that leave together."""
    made_by: tuple[str, ...]
    members: tuple[Member, ...]
    macs: float | None
    """Multiply-accumulates, batch 1; None where they are not known."""
    bytes: float
    """Of weights."""
    ms: float | None
    """Milliseconds by the target's table: what half of the group saves, by channel. None where it is not known."""
    pays: tuple[int, ...]
    """Widths that fill the kernels of the target, ascending; empty where the table does not tell."""


@dataclass(frozen=True)
class GroupsSummary:
    """All groups of a model, and what may not leave."""

    model: str
    groups: tuple[GroupSummary, ...]
    pinned: tuple[Pinned, ...]
    macs: int | None
    bytes: int
    ms: float | None
    """Of the whole model by the target's table."""


def summarise(model: Model, groups: Groups, target: Target, samples: Samples | None = None) -> GroupsSummary:
    """The groups of an analysed model.

    samples: open dimensions have the sizes of their first row.
    """
    cost = count(model)
    clock = None if target.costs is None else Clock(groups, target.costs, samples, Timings())
    pays = {} if clock is None else what_pays(groups.groups, clock)
    macs = macs_of_atoms(groups, cost)
    none = np.zeros(len(groups.groups))
    saved = stored_bytes(groups, cost).saved(none)
    found = []
    for number, group in enumerate(groups.groups):
        channels = group.size * group.width
        half = None if clock is None else clock.part(number) - clock.part(number, PROBED)
        widths = pays.get(int(group.atoms[0]), {})
        found.append(
            GroupSummary(
                group.name,
                channels,
                group.width,
                group.made_by,
                group.members,
                macs[number] / group.width if cost.macs else None,
                float(saved[number]) / channels,
                None if half is None else half / 1e3 / (channels * PROBED),
                tuple(sorted(w for w, missed in widths.items() if missed <= EASED[0])),
            )
        )
    whole = None if clock is None else clock.total() / 1e3
    return GroupsSummary(model.name, tuple(found), groups.pinned, cost.macs, cost.bytes, whole)
