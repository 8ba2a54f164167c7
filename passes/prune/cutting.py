"""One cut from beginning to end: remove, prove, repair, compare."""

from dataclasses import dataclass

from zc.data import Samples
from zc.data.split import Split
from zc.ir.graph import Node
from zc.ir.model import Model
from zc.measure.agreement import Agreement, Reference
from zc.passes.prune.apply import remove, stays
from zc.passes.prune.groups import Groups
from zc.passes.prune.labels import Ints
from zc.passes.prune.repair import Repair
from zc.passes.prune.sharing import reshare
from zc.passes.prune.verify import Masked, equivalence_error
from zc.pipeline.base import Context


@dataclass(frozen=True, eq=False)
class Cut:
    """A model from which channels have left, and what is known of it."""

    model: Model
    error: float
    """Of the proof: against the original with the removed channels masked, before any repair."""
    layers: int = 0
    """Layers that were repaired."""
    rows: int = 0
    """Samples that they were fitted to."""
    before: Agreement | None = None
    """With the original, before the repair."""
    after: Agreement | None = None
    refused: tuple[tuple[Node, str], ...] = ()
    """Layers behind the cut that could not be repaired, and why."""
    spoiled: Agreement | None = None
    """What a repair that was taken back had made of it."""
    unproven: tuple[str, ...] = ()
    """Parts that the proof could not run."""


def cut_out(
    work: Model,
    groups: Groups,
    gone: Ints,
    proof: Samples,
    calibration: Split | None,
    reference: Reference | None,
    repair: bool,
    ctx: Context,
) -> Cut:
    """Cut the analysed model, in place; both it and the analysis are used up.

    Raises:
        CheckFailed: the proof fails.
    """
    stay = stays(groups, gone)
    masked = Masked(work)
    mending = Repair(work) if repair and calibration is not None else None
    copies, groups.copies = groups.copies, []  # equal biases are different ones after a repair
    remove(work, groups, gone)
    masked.mask(groups.flow.contractions, stay)
    error = equivalence_error(work, masked, proof)
    before = None if reference is None else reference.agreement(work)
    if mending is None or calibration is None:
        reshare(copies)
        return Cut(work, error, before=before, after=before, unproven=tuple(masked.unproven))
    raw = work.copy()
    mended = mending.mend(work, groups, stay, calibration.fit, ctx)
    after = None if reference is None else reference.agreement(work)
    if before is not None and after is not None and after.sqnr < before.sqnr and after.share <= before.share:
        return Cut(raw, error, before=before, after=before, spoiled=after, unproven=tuple(masked.unproven))
    reshare(copies)
    return Cut(
        work,
        error,
        mended.layers,
        mended.rows,
        before,
        after,
        tuple(mended.refused),
        unproven=tuple(masked.unproven),
    )
