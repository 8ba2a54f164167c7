"""Reconstruction block by block: each part of a net learns to say what that part of its teacher says."""

from dataclasses import replace
from typing import TYPE_CHECKING

from zc.data import Samples
from zc.errors import ZcError
from zc.ir.model import Model
from zc.pipeline.base import Context, PassResult

if TYPE_CHECKING:
    from zc.passes.recover.distill import Distill


def train_blocks(
    options: "Distill", model: Model, teacher: Model, ctx: Context, samples: Samples, learn_scales: bool
) -> PassResult:
    """Train the weights in front of one inner value after the other, those before it frozen, then the rest.

    Gradients are kept for one block alone. What a block reads comes from the trained blocks in front of it, so that it
    makes up for what they left. (Li et al., BRECQ: Pushing the Limit of Post-Training Quantization, 2021.)

    Raises:
        ZcError: student and teacher have too few inner values in common.
    """
    from zc.passes.recover.distill import train_towards
    from zc.training.distillation import Match, match_models
    from zc.training.graph import GraphModule
    from zc.training.heads import Head

    whole = match_models(model, teacher, options.outputs, options.features, options.blocks - 1)
    if len(whole.hints) < options.blocks - 1:
        raise ZcError(
            f"blocks={options.blocks}: student and teacher have only {len(whole.hints)} inner values of one name and "
            "shape to part them at; ask for fewer blocks"
        )
    ends = [[(Head(name, name, None),) * 2] for name in whole.hints[: options.blocks - 1]]
    result, left, done = PassResult(changed=False), options.chosen(model), set[str]()
    for number, heads in enumerate([*ends, whole.heads], 1):
        here = GraphModule(model, outputs=[mine.value for mine, _ in heads], learn_scales=learn_scales).weights
        chosen = (left & set(here)) - done
        done |= set(here)
        if not chosen:
            result.declined(heads[0][0].value, f"block {number} holds no weight to train")
            continue
        last = number == options.blocks
        kinds = options.loss if last else ("logits",)
        own = replace(
            options, share=options.share / options.blocks, loss=kinds, weights=options.weights if last else ()
        )
        if options.checkpoint:
            own = replace(own, checkpoint=f"{options.checkpoint}.{number}")
        match = whole if last else Match(list(heads), [], [])
        one = train_towards(own, model, teacher, match, chosen, ctx, samples, learn_scales)
        result.changed |= one.changed
        for key, value in one.stats.items():
            result.stats[f"block{number}_{key}" if key.startswith(("loss", "best")) else key] = value
        result.notes += [note for note in one.notes if note not in result.notes]
    return result
