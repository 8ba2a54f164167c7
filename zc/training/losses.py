"""What a student is asked to have in common with its teacher, and a model with its labels. All are means: scalars."""

from collections.abc import Sequence

import torch
from torch.nn import functional as nnf

from zc.training.ops.call import Tensor

_TINY = 1e-12


def soft_labels(student: Tensor, teacher: Tensor, axis: int, temperature: float) -> Tensor:
    """Divergence of the class probabilities of softened scores (Hinton et al., Distilling the Knowledge, 2015).

    Scaled by the squared temperature, so that its gradient does not depend on it.
    """
    ours = nnf.log_softmax(student / temperature, axis)
    theirs = nnf.log_softmax(teacher / temperature, axis)
    divergence = (theirs.exp() * (theirs - ours)).sum(axis).clamp(min=0)  # rounding may make it less
    return divergence.mean() * temperature**2


def squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error in units of the teacher's variance over the batch."""
    spread = (teacher - teacher.mean(0, keepdim=True)).square().mean() if len(teacher) > 1 else teacher.square().mean()
    return (student - teacher).square().mean() / (spread + _TINY)


def features(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean of `squared_error` over pairs of inner values (hints; Romero et al., FitNets, 2015)."""
    return sum((squared_error(s, t) for s, t in zip(student, teacher, strict=True)), torch.zeros(())) / len(student)


def attention_maps(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Distance of normalised maps of energy over the channels, of which there may be different numbers.

    (Zagoruyko and Komodakis, Paying More Attention to Attention, 2017.) Values: [N, C, ...] of equal places, or of
    three axes [N, L, C].
    """

    def maps(x: Tensor) -> Tensor:
        energy = x.square().mean(-1 if x.dim() == 3 else 1).flatten(1)
        return energy / (energy.norm(dim=1, keepdim=True) + _TINY)

    parts = (((maps(s) - maps(t)).square().sum(1)).mean() for s, t in zip(student, teacher, strict=True))
    return sum(parts, torch.zeros(())) / len(student)


def jacobians(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of normalised gradients by the input (Srinivas and Fleuret, Knowledge Transfer, 2018)."""
    ours, theirs = student.flatten(1), teacher.flatten(1)
    ours = ours / (ours.norm(dim=1, keepdim=True) + _TINY)
    theirs = theirs / (theirs.norm(dim=1, keepdim=True) + _TINY)
    return (ours - theirs).square().sum(1).mean()


def input_gradient(scores: Tensor, pick: Tensor, inputs: Sequence[Tensor], keep: bool) -> Tensor:
    """By the inputs, the gradient of the picked elements [N] of scores [N, ...]; keep: differentiable itself."""
    chosen = scores.flatten(1).gather(1, pick[:, None]).sum()
    grads = torch.autograd.grad(chosen, list(inputs), create_graph=keep, retain_graph=True)
    return torch.cat([g.flatten(1) for g in grads], 1)


def cross_entropy(scores: Tensor, labels: Tensor, axis: int, smoothing: float = 0.0) -> Tensor:
    """Of scores with classes along `axis` and class numbers (or probabilities of the scores' shape)."""
    return nnf.cross_entropy(scores.movedim(axis, 1), labels, label_smoothing=smoothing)


def row_entropy(scores: Tensor, labels: Tensor, axis: int, smoothing: float = 0.0) -> Tensor:
    """`cross_entropy` of each row [N]."""
    each = nnf.cross_entropy(scores.movedim(axis, 1), labels, label_smoothing=smoothing, reduction="none")
    return each.flatten(1).mean(1) if each.dim() > 1 else each
