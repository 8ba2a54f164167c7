"""The pass `finetune`: the model learns from labels."""

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from zc.data.callable import named_function
from zc.errors import ZcError
from zc.ir.model import Model
from zc.passes.recover.options import TrainingPass
from zc.pipeline.base import Context, PassResult
from zc.pipeline.registry import register

_FUNCTION = re.compile(r"[\w.]+:\w+")


@register
@dataclass(frozen=True)
class Finetune(TrainingPass):
    """Train the weights towards the labels of the samples.

    before:  x -> [layers] -> y       after:  x -> [same layers, other weights] -> y close to the labels

    The loss is taken at the scores behind the output, before a Softmax. Only initializers change; a quantised model
    stays quantised.
    """

    name: ClassVar[str] = "finetune"
    keeps: ClassVar[tuple[str, ...]] = ("clean",)
    uses_samples: ClassVar[bool] = True

    loss: str = "auto"
    """cross-entropy, mse, or package.module:function, which takes the outputs by name and the labels as torch tensors
    and returns a scalar. auto: cross-entropy for labels that are class numbers, else mse."""
    smoothing: float = 0.0
    """Of labels, with cross-entropy: the part of the probability that is spread over all classes."""
    outputs: tuple[str, ...] = ()
    """The output that the labels are for, or several for a function, separated by +; by default the first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in ("auto", "cross-entropy", "mse") and not _FUNCTION.fullmatch(self.loss):
            raise ZcError(f"loss is {self.loss!r}; it must be cross-entropy, mse or package.module:function")
        if not 0 <= self.smoothing < 1:
            raise ZcError(f"smoothing is {self.smoothing:g}; it must be at least 0 and below 1")

    def ready(self, ctx: Context) -> None:
        """See `Pass.ready`."""
        super().ready(ctx)
        samples = self.need_rows(ctx)
        if samples.labels is None:
            raise ZcError(
                f"finetune needs labels: {samples.origin} has none; give them beside the samples, as y, or use distill"
            )

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Train in place.

        Raises:
            ZcError: torch, samples or labels are missing or do not fit, a node cannot be trained through.
        """
        self.ready(ctx)
        from zc.passes.recover.training import run_training
        from zc.training.gradient import require_gradient
        from zc.training.graph import GraphModule
        from zc.training.heads import find_heads
        from zc.training.supervision import Supervision

        samples = self.need_rows(ctx)
        assert samples.labels is not None
        kind = self.loss
        if kind == "auto":
            classes = samples.labels.dtype.kind in "iu" and samples.labels.size == len(samples.labels)
            kind = "cross-entropy" if classes else "mse"
        function = named_function(kind) if ":" in kind else None
        heads = find_heads(model, self.outputs)
        heads = heads if function is not None else heads[:1]
        values = [head.value if kind == "cross-entropy" else head.output for head in heads]
        heads = [type(h)(h.output, value, h.axis) for h, value in zip(heads, values, strict=True)]
        module = GraphModule(model, outputs=list(dict.fromkeys(values)), train=self.chosen(model).__contains__)
        require_gradient(model, values, module.weights)
        objective: Any = Supervision(module, heads, kind, self.smoothing, function)
        return run_training(self, model, ctx, module, objective, samples)
