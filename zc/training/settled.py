"""Which parts of a student already say what the teacher says: nothing there needs training."""

import torch

from zc.ir.model import Model
from zc.training.channels import channel_axis
from zc.training.distillation import Match, match_models, with_channels
from zc.training.graph import GraphModule
from zc.training.losses import squared_error
from zc.training.ops.call import Tensor


def settled_values(student: Model, teacher: Model, feeds: dict[str, Tensor], share: float) -> list[str]:
    """Inner values whose squared error is at most this share of the teacher's variance, on these rows."""
    match = match_models(student, teacher, (), ("*",))
    heads = {mine.value for mine, _ in match.heads} | {mine.output for mine, _ in match.heads}
    names = [name for name in (*match.hints, *match.narrowed) if name not in heads]
    ours = GraphModule(student, outputs=names, train=lambda name: False)
    theirs = GraphModule(teacher, outputs=names, train=lambda name: False)
    match = with_channels(match, ours, theirs, feeds)
    with torch.no_grad():
        own, wanted = ours(feeds), theirs(feeds)
    mapped = [name for name in names if own[name].dim() > 1 and wanted[name].dim() > 1]
    return [name for name in mapped if _error(name, own[name], wanted[name], match) <= share]


def weights_behind(model: Model, values: list[str], outputs: list[str]) -> set[str]:
    """The weights that the outputs still depend on where those values are given."""
    return set(GraphModule(model, inputs=values, outputs=outputs).weights)


def _error(name: str, own: Tensor, wanted: Tensor, match: Match) -> float:
    """Squared error in units of the teacher's variance; a channel that the teacher does not have is all error."""
    if name not in match.narrowed and own.shape == wanted.shape:
        return float(squared_error(own, wanted))
    if name not in match.left:
        return float("inf")
    axis = channel_axis(own)
    mine, other = match.left[name]
    picked = wanted.index_select(axis, other)
    foreign = torch.ones(own.shape[axis], dtype=torch.bool)
    foreign[mine] = False
    spare = own.index_select(axis, foreign.nonzero().flatten())
    spread = float((picked - picked.mean(0, keepdim=True)).square().sum())
    error = float((own.index_select(axis, mine) - picked).square().sum())
    return (error + float((spare - spare.mean(0, keepdim=True)).square().sum())) / max(spread, 1e-12)
