"""What the prune pass says: what stays and why, how a repair went, figures before and after."""

import re
from collections import Counter

from zc.ir.graph import describe
from zc.measure.cost import Cost
from zc.passes.prune.cutting import Cut
from zc.passes.prune.groups import Groups, Pinned
from zc.passes.prune.labels import Ints
from zc.pipeline.base import PassResult

SLOWER = 1.01
"""Predicted time over the original's from which it is said."""


def why_nothing(groups: Groups) -> str:
    """Why no channel leaves."""
    if groups.groups:
        return "every group is too narrow for the options"
    return "all channels are pinned" if groups.pinned else "no convolution or matrix product makes channels"


def tell_pinned(groups: Groups, result: PassResult) -> None:
    """One note for each kind of reason, with the nodes that it concerns."""
    kinds: dict[str, list[Pinned]] = {}
    for one in groups.pinned:
        kinds.setdefault(re.sub(r"'[^']*'", "", one.reason), []).append(one)
    for same in kinds.values():
        nodes = [p.node + ("" if p.channels == p.of else f" ({p.channels} of {p.of} channels)") for p in same]
        reasons = len({p.reason for p in same})
        more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
        others = f", and {reasons - 1} alike" if reasons > 1 else ""
        result.declined(", ".join(nodes[:3]) + more, same[0].reason + others)


def tell_repair(cut: Cut, result: PassResult) -> None:
    """What was refitted and what not, and what it is worth."""
    if cut.spoiled is not None and cut.after is not None:
        result.declined(
            "repair",
            f"made the outputs worse on held-back samples ({cut.after.sqnr:.1f} -> {cut.spoiled.sqnr:.1f} dB), so it "
            "was taken back; more samples may help",
        )
    for node, why in cut.refused:
        result.declined(describe(node), f"was not repaired: {why}")
    if cut.before is not None and cut.after is not None:
        result.stats.update(agreement=round(cut.after.share, 4), sqnr_db=round(cut.after.sqnr, 2))
        if cut.layers:
            result.stats.update(
                repaired_layers=cut.layers,
                repair_rows=cut.rows,
                agreement_before_repair=round(cut.before.share, 4),
                sqnr_db_before_repair=round(cut.before.sqnr, 2),
            )


def figures(before: Cost, after: Cost, groups: Groups, gone: Ints) -> dict[str, int | float | str]:
    """Parameters, bytes and MACs before and after, and how much left."""
    removed = Counter(groups.group_of[gone].tolist())
    stats: dict[str, int | float | str] = {
        "groups": len(groups.groups),
        "groups_pruned": len(removed),
        "channels_removed": sum(n * groups.groups[g].width for g, n in removed.items()),
        "params_before": before.params,
        "params_after": after.params,
        "params_ratio": round(after.params / max(before.params, 1), 4),
    }
    if before.bytes:
        stats["bytes_ratio"] = round(after.bytes / before.bytes, 4)
    if before.macs and after.macs is not None:
        stats.update(macs_before=before.macs, macs_after=after.macs, macs_ratio=round(after.macs / before.macs, 4))
    return stats


def tell_time(before: float, after: float, target: str, result: PassResult) -> None:
    """Milliseconds by the table of a target, from microseconds; a warning where they are more than before."""
    result.stats.update(table_ms_before=round(before / 1e3, 4), table_ms_after=round(after / 1e3, 4))
    if after > SLOWER * before:
        result.warn(
            "round_to",
            f"by the table of {target} the result takes {after / before:.2f} of the time: its widths do not fill the "
            "blocks of the kernels; round_to=auto takes those that pay",
        )
