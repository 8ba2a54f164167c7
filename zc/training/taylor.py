"""First-order importance: what the loss would change by if weights were zero, from gradients.

(Molchanov et al., Importance Estimation for Neural Network Pruning, 2019.) The loss is that of the labels where the
samples have class numbers, else of the model's own choices; for outputs that are no scores half their mean square.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from zc.data import Samples
from zc.ir.graph import Array
from zc.ir.model import Model
from zc.track import Track, untracked
from zc.training import losses
from zc.training.devices import to_device
from zc.training.distillation import axis_of
from zc.training.graph import GraphModule
from zc.training.heads import Head, find_heads
from zc.training.ops.call import Tensor

BATCH = 32


def slopes(
    model: Model, samples: Samples, weights: Sequence[str], *, track: Track = untracked
) -> Iterator[dict[str, Array]]:
    """For each batch of the samples, by name of a weight, gradient times weight: float64, of the weight's shape.

    The sum over what leaves together, with its sign, is the change of the loss to first order; its square over batches
    is the importance.

    Raises:
        ZcError: an operator that cannot be trained through.
    """
    wanted = set(weights)
    heads = find_heads(model)
    module = GraphModule(model, outputs=list({h.value: None for h in heads}), train=wanted.__contains__)
    start, device = 0, torch.device("cpu")
    for feeds in track(samples.batches(BATCH), "gradients", -(-samples.rows // BATCH)):
        tensors = to_device(dict(feeds), device)
        module.zero_grad(set_to_none=True)
        outputs = module(tensors)
        rows = samples.batch or min(BATCH, samples.rows - start)
        labels = None if samples.labels is None else samples.labels[start : start + rows]
        start += rows
        loss = sum((_loss(head, outputs[head.value], labels) for head in heads), torch.zeros(()))
        loss.backward()
        yield {
            name: np.asarray((w.parameter.grad * w.parameter).detach().double().numpy())
            for name, w in module.weights.items()
            if w.parameter.grad is not None
        }


def channel_importance(
    model: Model, samples: Samples, weight: str, axis: int = 0, *, track: Track = untracked
) -> Array:
    """Importance of each slice of a weight along an axis: float64 [size of the axis], the mean over batches."""
    found = []
    for batch in slopes(model, samples, [weight], track=track):
        values = batch[weight]
        found.append(np.square(values.sum(axis=tuple(a for a in range(values.ndim) if a != axis))))
    return np.asarray(np.mean(found, axis=0))


def _loss(head: Head, scores: Tensor, labels: Array | None) -> Tensor:
    classes = head.axis is not None or scores.dim() == 2
    axis = axis_of(head, scores)
    target = scores.detach().argmax(axis)
    known = classes and labels is not None and labels.dtype.kind in "iu" and labels.size == target.numel()
    if known and labels is not None and labels.min() >= 0 and labels.max() < scores.shape[axis]:
        target = torch.from_numpy(np.ascontiguousarray(labels, np.int64)).reshape(target.shape)
    elif head.axis is None:
        return 0.5 * scores.square().mean()
    return losses.cross_entropy(scores, target, axis)
