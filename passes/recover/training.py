"""One training run of a pass: from a module and an objective to written weights and what there is to tell."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zc.data import Samples
from zc.ir.model import Model
from zc.passes.recover.options import TrainingPass
from zc.pipeline.base import Context, PassResult

if TYPE_CHECKING:
    from zc.training.graph import GraphModule
    from zc.training.rows import Parts
    from zc.training.sparsity import GroupPenalty
    from zc.training.trainer import Objective, Outcome

OVERFIT = 1.1
"""How far the held-back loss may rise above its lowest before it is called over-fitting."""


def run_training(
    options: TrainingPass, model: Model, ctx: Context, module: "GraphModule", objective: "Objective", samples: Samples
) -> PassResult:
    """Train, write the weights into the model, and report.

    Raises:
        ZcError: see `zc.training.trainer.fit`.
    """
    from zc.training.augment import choose_augment
    from zc.training.checkpoint import Checkpoint
    from zc.training.rows import split_rows
    from zc.training.trainer import fit

    result = PassResult(changed=False)
    parts = split_rows(samples, options.held, wide="zoom" in options.augment)
    augment = choose_augment(options.augment, next(samples.batches(1)), options.mixes)
    checkpoint = None
    if options.checkpoint:
        said = replace(options, checkpoint="")
        run = f"{model.weights_digest()} {samples.digest()} {ctx.seed} {said}"
        checkpoint = Checkpoint(Path(options.checkpoint), run)
    outcome = fit(
        module,
        objective,
        parts,
        options.recipe(ctx),
        augment,
        penalty=_penalty(options, model, module),
        track=ctx.track,
        label=options.name,
        checkpoint=checkpoint,
    )
    result.changed = module.write(model) > 0
    chosen = replace(options, lr=outcome.rate, checkpoint="")
    if options.minutes is not None:
        chosen = replace(chosen, steps=outcome.total, minutes=None, share=1.0)
    if chosen != options:
        result.chose = chosen
    _tell(result, options, outcome, parts, model, module)
    return result


def _penalty(options: TrainingPass, model: Model, module: "GraphModule") -> "GroupPenalty | None":
    """What draws groups to zero, where the option says so."""
    if not options.sparsity:
        return None
    from zc.passes.recover.sparsity import group_places
    from zc.training.sparsity import GroupPenalty

    return GroupPenalty(module, group_places(model), options.sparsity)


def _tell(
    result: PassResult,
    options: TrainingPass,
    outcome: "Outcome",
    parts: "Parts",
    model: Model,
    module: "GraphModule",
) -> None:
    result.stats.update(steps=outcome.steps, lr=outcome.rate, weights=len(module.weights), rows=parts.train.count)
    for one in module.left:
        result.declined(one.name, f"was not trained: {one.why}")
    if outcome.stopped:
        result.warn("training", outcome.stopped)
    result.stats.update(
        loss_before=_rounded(outcome.first), loss_after=_rounded(outcome.best), best_step=outcome.best_step
    )
    if parts.held:
        result.stats["held_rows"] = parts.judge.count
    else:
        which = f"only {parts.train.count} rows: none" if options.held else "held=0: no row"
        more = "; give more rows" if options.held else ""
        result.warn("held", f"{which} is held back, so over-fitting would not be seen{more}")
    if outcome.best_step == 0:
        where = "held-back rows" if parts.held else "the rows"
        result.declined(
            model.name,
            f"its weights stay: no step made the loss on {where} lower ({outcome.first:.4g} before, "
            f"{outcome.last:.4g} after); try a lower lr or more steps",
        )
    if parts.held and outcome.last > OVERFIT * outcome.best and outcome.train[-1] < outcome.train[0]:
        result.warn(
            "over-fitting",
            f"the loss on held-back rows was lowest at step {outcome.best_step} ({outcome.best:.4g}) and rose to "
            f"{outcome.last:.4g} while the loss on the others fell; those weights were kept; more rows or more "
            "augmentation would help",
        )


def _rounded(loss: float) -> float:
    return float(f"{loss:.6g}") if math.isfinite(loss) else loss
