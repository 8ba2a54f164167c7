"""Fine-tuning: a model is asked to say what labels say."""

from collections.abc import Callable
from typing import Any

import torch

from zc.errors import ZcError
from zc.training.distillation import axis_of, labelled
from zc.training.graph import GraphModule
from zc.training.heads import Head
from zc.training.ops.call import Tensor, wide
from zc.training.trainer import Batch

Function = Callable[..., Any]


class Supervision:
    """The loss between a model and its labels. See `zc.training.trainer.Objective`.

    kind: cross-entropy (class numbers), or mse (labels that look like the output).
    function: instead of a kind, `function(outputs, labels)` of dictionaries of tensors by name and a tensor.
    """

    balanced = False

    def __init__(
        self,
        module: GraphModule,
        heads: list[Head],
        kind: str,
        smoothing: float = 0.0,
        function: Function | None = None,
    ) -> None:
        self.module, self.heads, self.kind = module, heads, kind
        self.smoothing, self.function = smoothing, function
        self.weights: dict[str, float] = {}

    def place(self, device: torch.device) -> None:
        """See `Objective.place`: it holds nothing."""

    def terms(self, batch: Batch, training: bool) -> dict[str, Tensor]:
        """See `Objective.terms`."""
        outputs, head, labels = wide(self.module(batch.feeds)), self.heads[0], batch.labels
        assert labels is not None
        if self.function is not None:
            loss = self.function({h.output: outputs[h.value] for h in self.heads}, labels)
            if not torch.is_tensor(loss) or loss.dim() != 0:
                raise ZcError(f"loss={self.kind}: it must return a scalar tensor, not {type(loss).__name__}")
            return {"loss": loss}
        scores = outputs[head.value]
        if self.kind == "mse":
            wanted = labels.reshape(scores.shape) if labels.numel() == scores.numel() else labels
            if wanted.shape != scores.shape:
                what = f"labels have shape {list(labels.shape)}, the output '{head.output}' {list(scores.shape)}"
                raise ZcError(f"loss=mse: {what}")
            error = (scores - wanted.to(scores.dtype)).square()
            if batch.mixed is not None:
                other, share = batch.mixed
                mixed = share.reshape(-1, *[1] * (scores.dim() - 1))
                wanted = mixed * wanted + (1 - mixed) * wanted[other]
                error = (scores - wanted.to(scores.dtype)).square()
            return {"loss": error.mean()}
        axis = axis_of(head, scores)
        if labels.max() >= scores.shape[axis] or labels.min() < 0:
            raise ZcError(
                f"loss=cross-entropy: labels are {int(labels.min())} to {int(labels.max())}, the output "
                f"'{head.output}' has {scores.shape[axis]} classes"
            )
        return {"loss": labelled(scores, axis, batch, self.smoothing)}
