"""The options that all training passes have."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, ClassVar, Literal

from zc.data import Samples
from zc.errors import ZcError
from zc.ir.graph import describe
from zc.ir.model import Model
from zc.passes.patterns import require_matches
from zc.pipeline.base import Context, Pass

if TYPE_CHECKING:
    from zc.training.recipe import Recipe


@dataclass(frozen=True)
class TrainingPass(Pass):
    """Options of passes that train. Not a pass itself."""

    mixes: ClassVar[bool] = False
    """Is mixup among what `augment=auto` does?"""
    first_rate: ClassVar[float] = 0.003
    """The learning rate to begin with where none is given."""

    steps: int | None = None
    """Number of steps, of one batch each. With no budget: 30 epochs, but at least 300 and at most 3000 steps."""
    epochs: float | None = None
    """Budget as how often each row is seen."""
    minutes: float | None = None
    """Budget as time, looks at the rows to judge by included; a few steps are timed first, and the number of steps that
    fit is what the file records."""
    share: float = 1.0
    """Part of the budget to use (what a schedule of several rounds gives to each)."""
    batch: int = 64
    """Rows in a step, unless the model fixes it."""
    lr: float | None = None
    """Learning rate at its highest: with muon and adamw in units of the size of each filter. By default 0.003 (qat
    0.0003; with sgd ten times that), and if a quarter of the steps made nothing better, the run begins again at a third
    of it; the file records which."""
    optimizer: Literal["muon", "adamw", "sgd"] = "muon"
    """muon: matrices of 8 to 256 rows or columns step along all their directions alike, the rest as with adamw. sgd
    has a momentum of 0.9."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises first."""
    decay: float = 1e-4
    """Weight decay; biases and scales are spared."""
    clip: float = 1.0
    """Largest norm of the gradient; 0: any."""
    ema: float = 0.99
    """Decay of the moving average of the weights, which is what is kept; 0: the last weights."""
    held: float = 0.1
    """Share of the rows that is held back to judge by (at most 512 rows); 0: none. Where that is none, or fewer than
    16, the first 512 of those trained on serve."""
    patience: int = 0
    """Stop after so many of 20 evaluations without progress on the rows to judge by; 0: never. The best is kept."""
    augment: tuple[str, ...] = ("auto",)
    """What is done to images: zoom (parts of them, and of what a crop in --prep leaves out), crop, flip, cutout, mixup,
    cutmix, separated by + (of the last two, each row gets one); none; auto: crop, and where they have three channels
    flip, and mixup where a teacher is learned from."""
    batchnorm: Literal["frozen", "batch"] = "frozen"
    """batch: BatchNormalization uses the statistics of the batch, and its own follow; frozen: its own as they are."""
    skip: tuple[str, ...] = ()
    """Weights or nodes whose weights stay: names or globs, separated by +."""
    only: tuple[str, ...] = ()
    """Weights or nodes whose weights are trained, all others stay: names or globs, separated by +."""
    sparsity: float = 0.0
    """Draw whole groups of channels to zero, so that a prune behind it costs little: how strongly, such as 0.1."""
    checkpoint: str = ""
    """A file for the state of the run: a killed run that is started again goes on there, to the same result."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: on a GPU if torch sees one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """bfloat16: mixed precision; auto: that on a GPU or a processor with tiles of it (AMX), if its rounding leaves the
    loss what it is, else float32."""

    def __post_init__(self) -> None:
        budgets = [n for n in ("steps", "epochs", "minutes") if getattr(self, n) is not None]
        if len(budgets) > 1:
            raise ZcError(f"{budgets[0]} and {budgets[1]} are two budgets; state one")
        for name in (*budgets, "batch", *(("lr",) if self.lr is not None else ())):
            if getattr(self, name) <= 0:
                raise ZcError(f"{name} is {getattr(self, name):g}; it must be above 0")
        for name in ("decay", "clip", "patience", "sparsity"):
            if getattr(self, name) < 0:
                raise ZcError(f"{name} is {getattr(self, name):g}; it must be 0 or more")
        for name in ("warmup", "ema", "held"):
            if not 0 <= getattr(self, name) < 1:
                raise ZcError(f"{name} is {getattr(self, name):g}; it must be at least 0 and below 1")
        if not 0 < self.share <= 1:
            raise ZcError(f"share is {self.share:g}; it must be above 0 and at most 1")

    def recipe(self, ctx: Context) -> "Recipe":
        """The options as the trainer takes them."""
        from zc.training.recipe import Recipe

        return Recipe(
            steps=self.steps,
            epochs=self.epochs,
            minutes=self.minutes,
            share=self.share,
            batch=self.batch,
            optimizer=self.optimizer,
            lr=self.lr,
            first=self.first_rate,
            schedule=self.schedule,
            warmup=self.warmup,
            decay=self.decay,
            clip=self.clip,
            ema=self.ema,
            patience=self.patience,
            seed=ctx.seed,
            batchnorm=self.batchnorm == "batch",
            device=self.device,
            precision=self.precision,
            threads=ctx.threads,
        )

    def ready(self, ctx: Context) -> None:
        """See `Pass.ready`."""
        from zc.training.extra import require_torch

        require_torch(self.name)
        self.need_rows(ctx)

    def need_rows(self, ctx: Context) -> Samples:
        """The user's samples. ZcError where there are none: made-up ones teach nothing."""
        if ctx.samples is None or ctx.samples.synthetic:
            raise ZcError(f"{self.name} needs samples of the model's inputs: give some with --calib")
        return ctx.samples

    def chosen(self, model: Model) -> set[str]:
        """The initializers that `only` and `skip` leave to train. ZcError for a pattern that matches nothing."""
        words: dict[str, list[str]] = {}
        for constant in model.constants():
            readers = [describe(node) for node in constant.outputs]
            behind = [describe(n) for node in constant.outputs for out in node.outputs for n in out.outputs]
            codes = [node.op == "DequantizeLinear" for node in constant.outputs]
            words[constant.name] = [constant.name, *readers, *(behind if any(codes) else ())]
        known = [word for found in words.values() for word in found]
        require_matches("only", self.only, known, "weight or node")
        require_matches("skip", self.skip, known, "weight or node")

        def matched(found: list[str], patterns: tuple[str, ...]) -> bool:
            return any(fnmatchcase(word, pattern) for word in found for pattern in patterns)

        return {
            name
            for name, found in words.items()
            if (not self.only or matched(found, self.only)) and not matched(found, self.skip)
        }
