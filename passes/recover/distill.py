"""The pass `distill`: the model learns from what it was before, or from another model."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from zc.data import Samples
from zc.errors import ZcError
from zc.ir.model import Model, load
from zc.passes.recover.options import TrainingPass
from zc.pipeline.base import Context, PassResult
from zc.pipeline.registry import register

if TYPE_CHECKING:
    from zc.training.distillation import Match

LOSSES = ("auto", "soft", "logits", "features", "attention", "jacobian", "labels")


@register
@dataclass(frozen=True)
class Distill(TrainingPass):
    """Train the weights so that the model says what its teacher says; labels are not needed.

    before:  x -> [pruned layers] -> y'        teacher:  x -> [layers] -> y
    after:   x -> [same layers, other weights] -> y' close to y

    The teacher is the model as it came in, before the pipeline. Class scores are compared as softened probabilities,
    other outputs by their squared error. Only initializers change.
    (Hinton et al., Distilling the Knowledge in a Neural Network, 2015.)
    """

    name: ClassVar[str] = "distill"
    keeps: ClassVar[tuple[str, ...]] = ("clean",)
    uses_samples: ClassVar[bool] = True
    mixes: ClassVar[bool] = True

    teacher: str = ""
    """An ONNX file to learn from; by default the model as it came in."""
    loss: tuple[str, ...] = ("auto",)
    """What to have in common, separated by +: soft (class probabilities), logits (squared error of outputs), features
    (inner values), attention (where inner values are large), jacobian (gradients by the input), labels (of the
    samples). auto: soft for class scores (behind a Softmax, or where one would be confident), else logits."""
    weights: tuple[float, ...] = ()
    """A weight for each loss, separated by +; without them all count the same at the start."""
    temperature: float = 4.0
    """How far class probabilities are softened."""
    features: tuple[str, ...] = ()
    """Inner values to match, with features or attention: names or globs, separated by +; by default four that both
    models have."""
    settled: float = 0.0
    """Leave weights alone whose part of the net already says what the teacher's says: up to this squared error as a
    share of the variance, such as 0.01. Steps are faster, and less is fitted to few rows. 0: train all."""
    outputs: tuple[str, ...] = ()
    """Outputs or inner values to train towards, separated by +; by default all outputs. Behind inner values the
    teacher's own weights are taken, if that lowers the error of the outputs on the rows held back."""
    blocks: int = 1
    """Train one part of the net after the other, so many in all, each towards the teacher's value behind it: for when
    memory is short."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_losses(self.loss, self.weights)
        if self.blocks < 1:
            raise ZcError(f"blocks is {self.blocks}; it must be at least 1")
        if not 0 <= self.settled < 1:
            raise ZcError(f"settled is {self.settled:g}; it must be at least 0 and below 1")
        if self.temperature <= 0:
            raise ZcError(f"temperature is {self.temperature:g}; it must be above 0")

    def ready(self, ctx: Context) -> None:
        """See `Pass.ready`."""
        super().ready(ctx)
        samples = self.need_rows(ctx)
        if "labels" in self.loss and samples.labels is None:
            raise ZcError(f"loss=labels: {samples.origin} has no labels; give them beside the samples, as y")
        if self.teacher and not Path(self.teacher).is_file():
            raise ZcError(f"{self.teacher}: no such file")

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Train in place.

        Raises:
            ZcError: torch or samples are missing, the teacher does not fit, a node cannot be trained through.
        """
        teacher = teacher_of(self, ctx)
        result = distil(self, model, teacher, ctx)
        if self.outputs:
            from zc.passes.recover.replace import replace_behind
            from zc.training.rows import held_back

            held = held_back(self.need_rows(ctx), self.held)
            replace_behind(model, teacher, self.outputs, held, ctx, result)
        return result


def teacher_of(options: "Distill", ctx: Context) -> Model:
    """What a pass learns from. ZcError: something that it needs is missing, there is no teacher."""
    options.ready(ctx)
    teacher = load(options.teacher) if options.teacher else ctx.original
    if teacher is None:
        raise ZcError("there is no model before this one to learn from; name one with teacher=FILE")
    return teacher


def check_losses(kinds: tuple[str, ...], weights: tuple[float, ...]) -> None:
    """ZcError for a loss that there is not, or weights that do not go with them."""
    unknown = [kind for kind in kinds if kind not in LOSSES]
    if unknown or not kinds:
        raise ZcError(f"loss is {'+'.join(kinds)!r}; it must be of {', '.join(LOSSES)}, separated by +")
    if len(set(kinds)) < len(kinds):
        raise ZcError(f"loss={'+'.join(kinds)} names one twice")
    if weights and len(weights) != len(kinds):
        raise ZcError(f"weights are {len(weights)} numbers for {len(kinds)} losses; give one for each")
    if any(w <= 0 for w in weights):
        raise ZcError("weights must be above 0; leave a loss out instead")


def distil(options: "Distill", model: Model, teacher: Model, ctx: Context, *, learn_scales: bool = False) -> PassResult:
    """Distillation by the options of a pass; see `Distill.run`."""
    from zc.passes.recover.blocks import train_blocks
    from zc.training.distillation import match_models

    samples = options.need_rows(ctx)
    if options.blocks > 1:
        return train_blocks(options, model, teacher, ctx, samples, learn_scales)
    match = match_models(model, teacher, options.outputs, options.features)
    _require_pairs(options, match)
    return train_towards(options, model, teacher, match, options.chosen(model), ctx, samples, learn_scales)


def train_towards(
    options: "Distill",
    model: Model,
    teacher: Model,
    match: "Match",
    chosen: set[str],
    ctx: Context,
    samples: Samples,
    learn_scales: bool,
) -> PassResult:
    """One training run of the chosen weights towards what student and teacher are matched at."""
    import torch

    from zc.passes.recover.training import run_training
    from zc.training.devices import to_device
    from zc.training.distillation import Distillation, with_channels, with_scores
    from zc.training.gradient import require_gradient
    from zc.training.graph import GraphModule
    from zc.training.settled import settled_values, weights_behind
    from zc.training.teacher import Teacher

    ours = [mine.value for mine, _ in match.heads]
    theirs = [other.value for _, other in match.heads]
    inner: list[str] = []
    if "features" in options.loss:
        inner += match.hints + match.narrowed
    if "attention" in options.loss:
        inner += match.maps
    compared, asked = _once(ours + inner), _once(theirs + inner)
    first = to_device(dict(next(iter(samples.batches(options.batch)))), torch.device("cpu"))
    stay: set[str] = set()
    if options.settled:
        values = settled_values(model, teacher, first, options.settled)
        stay = chosen & (weights_behind(model, [], compared) - weights_behind(model, values, compared))
        chosen = chosen - stay
    student = GraphModule(model, outputs=compared, train=chosen.__contains__, learn_scales=learn_scales)
    if stay and not student.weights:
        result = PassResult(changed=False)
        result.declined(model.name, f"all of its values are within settled={options.settled:g} of the teacher's")
        return result
    if not student.weights:
        raise ZcError(f"{model.name}: no weight is left to train")
    require_gradient(model, compared, student.weights)
    frozen = Teacher(teacher, asked)
    scores: list[str] = []
    if "auto" in options.loss:
        match, scores = with_scores(match, frozen, first)
    if "features" in options.loss:
        match = with_channels(match, student, frozen, first)
    objective: Any = Distillation(student, frozen, match, options.loss, options.weights, options.temperature)
    result = run_training(options, model, ctx, student, objective, samples)
    if options.settled:
        result.stats["settled"] = len(stay)
    for name in scores:
        what = "is taken for class scores: a Softmax would be confident of them; if it is none, give loss=logits"
        result.info(f"output '{name}'", what)
    return result


def _once(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _require_pairs(options: "Distill", match: "Match") -> None:
    for kind, found in (("features", match.hints + match.narrowed), ("attention", match.maps)):
        if kind in options.loss and not found:
            raise ZcError(f"loss={kind}: student and teacher have no inner value of one name and fitting shape")
