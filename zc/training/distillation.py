"""Distillation: a student is asked to say what its teacher says, from rows without labels."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Literal, get_args

import torch

from zc.errors import ZcError
from zc.ir.graph import Tensor as Value
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes
from zc.training import losses
from zc.training.channels import channel_axis, left_channels
from zc.training.graph import GraphModule
from zc.training.heads import Head, find_heads
from zc.training.ops.call import Tensor, wide
from zc.training.teacher import Teacher
from zc.training.trainer import Batch

Loss = Literal["auto", "soft", "logits", "features", "attention", "jacobian", "labels"]
LOSSES: tuple[str, ...] = get_args(Loss)
MOST_HINTS = 4
"""Inner values that are matched where none are named."""
_HINTS = frozenset({"Add", "Relu", "Concat", "Clip", "HardSwish", "LayerNormalization", "Mul"})
"""Operators at whose outputs inner values are matched."""


@dataclass(frozen=True, eq=False)
class Match:
    """What student and teacher are compared at."""

    heads: list[tuple[Head, Head]]
    """Of the student and of the teacher."""
    hints: list[str]
    """Inner values that both have, with equal shapes."""
    maps: list[str]
    """Inner values that both have, with equal places but perhaps other channels."""
    narrowed: list[str] = field(default_factory=list)
    """Inner values that both have, of which the student has fewer channels."""
    left: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Of those, the channels that are the same in both; see `left_channels`."""


def match_models(
    student: Model, teacher: Model, outputs: tuple[str, ...], hints: tuple[str, ...], most: int = MOST_HINTS
) -> Match:
    """Pair the heads, and the inner values that have one name in both.

    outputs: as for `find_heads`. hints: globs over names of inner values. most: how many of them, spread evenly over
    the graph, where no globs are given.

    Raises:
        ZcError: the teacher's outputs are others; a glob matches nothing that both have.
    """
    ours = find_heads(student, outputs)
    theirs = {head.output: head for head in find_heads(teacher, outputs)}
    for head in ours:
        if head.output not in theirs:
            listed = ", ".join(o.name for o in teacher.outputs)
            raise ZcError(f"the teacher has no output '{head.output}'; it has {listed}")
    own, other = _shapes(student), _shapes(teacher)
    _require_inputs(student, teacher)
    candidates = _hinted(student)
    shared = [name for name in own if name in other and len(own[name]) > 2 and name in candidates]
    if hints:
        shared = [name for name in own if name in other and any(fnmatchcase(name, h) for h in hints)]
        if not shared:
            raise ZcError(f"features={'+'.join(hints)} matches no inner value that student and teacher both have")
    same = [name for name in shared if _fit(own[name], other[name])]
    places = [name for name in shared if len(own[name]) in (3, 4) and _same_places(own[name], other[name])]
    fewer = {name for name in places if _fewer(own[name], other[name])}
    pairs = [(head, theirs[head.output]) for head in ours]
    if hints:
        return Match(pairs, same, places, [name for name in places if name in fewer])
    chosen = _spread([name for name in shared if name in fewer or name in same], most)
    narrowed = [name for name in chosen if name in fewer]
    return Match(pairs, [name for name in chosen if name not in fewer], _spread(places, most), narrowed)


def _require_inputs(student: Model, teacher: Model) -> None:
    own = {spec.name: spec for spec in student.inputs}
    for theirs in teacher.inputs:
        if theirs.name not in own:
            raise ZcError(f"the teacher takes an input '{theirs.name}' that the model does not have")
        mine = own[theirs.name]
        known = mine.shape is not None and theirs.shape is not None
        if mine.dtype != theirs.dtype or (known and not _fit(mine.shape or (), theirs.shape or ())):
            raise ZcError(f"the teacher takes {theirs}, the model {mine}; give a teacher with the same inputs")


class Distillation:
    """The losses between a student and a frozen teacher. See `zc.training.trainer.Objective`.

    kinds: of `LOSSES`; `auto` is soft labels for class scores (heads with an axis), else squared error.
    weights: one for each kind; without them each counts as much as the others at the start.
    """

    def __init__(
        self,
        student: GraphModule,
        teacher: Teacher,
        match: Match,
        kinds: Sequence[str],
        weights: Sequence[float] = (),
        temperature: float = 4.0,
    ) -> None:
        self.student, self.teacher, self.match = student, teacher, match
        self.kinds, self.temperature = tuple(kinds), temperature
        self.weights = dict(zip(kinds, weights, strict=True)) if weights else {}
        self.balanced = not weights and len(kinds) > 1

    def place(self, device: torch.device) -> None:
        """See `Objective.place`."""
        self.teacher.place(device, sloped="jacobian" in self.kinds)

    def terms(self, batch: Batch, training: bool) -> dict[str, Tensor]:
        """See `Objective.terms`."""
        feeds = batch.feeds
        sloped = "jacobian" in self.kinds
        if sloped:
            feeds = {k: v.detach().requires_grad_() if v.is_floating_point() else v for k, v in feeds.items()}
        with torch.set_grad_enabled(sloped):
            theirs = wide(self.teacher(feeds))
        with torch.set_grad_enabled(training or sloped):
            ours = wide(self.student(feeds))
        for mine, other in self.match.heads:
            s, t = ours[mine.value].shape, theirs[other.value].shape
            if s != t:
                what = f"the teacher's output '{mine.output}' has shape {list(t)}, the model's {list(s)}"
                raise ZcError(f"{what}; give a teacher with the same outputs")
        return {kind: self._term(kind, ours, theirs, feeds, batch) for kind in self.kinds}

    def _inner(self, ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The inner values to match, of narrowed ones the channels that both have."""
        own, other = [ours[n] for n in self.match.hints], [theirs[n].detach() for n in self.match.hints]
        for name, pair in self.match.left.items():
            axis, device = channel_axis(ours[name]), ours[name].device
            mine, wanted = (index.to(device) for index in pair)
            own.append(ours[name].index_select(axis, mine))
            other.append(theirs[name].detach().index_select(axis, wanted))
        return own, other

    def _term(
        self, kind: str, ours: dict[str, Tensor], theirs: dict[str, Tensor], feeds: dict[str, Tensor], batch: Batch
    ) -> Tensor:
        match = self.match
        if kind == "features":
            return losses.features(*self._inner(ours, theirs))
        if kind == "attention":
            return losses.attention_maps([ours[n] for n in match.maps], [theirs[n].detach() for n in match.maps])
        if kind == "labels":
            head = match.heads[0][0]
            return labelled(ours[head.value], axis_of(head, ours[head.value]), batch)
        parts = []
        for mine, other in match.heads:
            s, t = ours[mine.value], theirs[other.value]
            if kind == "jacobian":
                inputs = [v for v in feeds.values() if v.requires_grad]
                pick = t.detach().flatten(1).argmax(1)
                with torch.enable_grad():
                    slope = losses.input_gradient(t, pick, inputs, keep=False)
                    own = losses.input_gradient(s, pick, inputs, keep=True)
                parts.append(losses.jacobians(own, slope))
            elif kind == "soft" or (kind == "auto" and mine.axis is not None):
                parts.append(losses.soft_labels(s, t.detach(), axis_of(mine, s), self.temperature))
            else:
                parts.append(losses.squared_error(s, t.detach()))
        return sum(parts[1:], parts[0]) / len(parts)


def with_channels(match: Match, student: GraphModule, teacher: Teacher, feeds: dict[str, Tensor]) -> Match:
    """Find which channels are left in inner values that the student has fewer of; values without any are dropped."""
    if not match.narrowed:
        return match
    with torch.no_grad():
        ours, theirs = student(feeds), teacher(feeds)
    left = {name: left_channels(ours[name], theirs[name]) for name in match.narrowed}
    left = {name: pair for name, pair in left.items() if len(pair[0])}
    return replace(match, narrowed=list(left), left=left)


CONFIDENT = 0.5
"""Mean probability of the best class from which on numbers without a Softmax are taken for class scores."""


def with_scores(match: Match, teacher: Teacher, feeds: dict[str, Tensor]) -> tuple[Match, list[str]]:
    """Take vectors for class scores where a Softmax would be confident of them; the outputs of which that is said.

    Whether [N, C] holds scores or, say, an embedding does not stand in the graph; the rows say it.
    """
    plain = [other for _, other in match.heads if other.axis is None]
    if not plain:
        return match, []
    with torch.no_grad():
        values = teacher(feeds)
    found = [
        h.output
        for h in plain
        if (v := values[h.value]).dim() == 2 and v.shape[1] > 1 and float(v.softmax(1).amax(1).mean()) >= CONFIDENT
    ]
    heads = [(replace(s, axis=1), replace(t, axis=1)) if s.output in found else (s, t) for s, t in match.heads]
    return replace(match, heads=heads), found


def axis_of(head: Head, scores: Tensor) -> int:
    """The axis of classes: as the graph says, else the second of a batch of vectors or maps."""
    return head.axis if head.axis is not None else (1 if scores.dim() != 3 else -1)


def labelled(scores: Tensor, axis: int, batch: Batch, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy with the class numbers of the batch, of mixed rows with those of both."""
    labels = batch.labels
    assert labels is not None
    flat = scores.flatten(1) if scores.dim() > 2 and scores[0].numel() == scores.shape[axis] else scores
    axis = 1 if flat is not scores else axis
    if batch.mixed is None:
        return losses.cross_entropy(flat, labels.long(), axis, smoothing)
    other, share = batch.mixed
    parts = (losses.row_entropy(flat, target.long(), axis, smoothing) for target in (labels, labels[other]))
    own, others = parts
    return (share * own + (1 - share) * others).mean()


def _shapes(model: Model) -> dict[str, tuple[object, ...]]:
    """Shapes of the float values of the main graph, where they are known."""
    copy = model.copy()
    infer_shapes(copy)
    values: list[Value] = [t for node in copy.graph.nodes for t in node.outputs]
    floats = (t for t in values if t.name and t.shape is not None and t.dtype is not None and t.dtype.kind == "f")
    return {t.name: tuple(t.shape) for t in floats}


def _fit(a: Sequence[object], b: Sequence[object]) -> bool:
    return len(a) == len(b) and all(
        x == y or not (isinstance(x, int) and isinstance(y, int)) for x, y in zip(a, b, strict=True)
    )


def _same_places(a: Sequence[object], b: Sequence[object]) -> bool:
    """Equal but for the channels: the second axis, of three axes the last."""
    channel = 2 if len(a) == 3 else 1
    return len(a) == len(b) and all(x == y for i, (x, y) in enumerate(zip(a, b, strict=True)) if i not in (0, channel))


def _fewer(a: Sequence[object], b: Sequence[object]) -> bool:
    """Has the first fewer channels?"""
    axis = 2 if len(a) == 3 else 1
    mine, other = a[axis], b[axis]
    return isinstance(mine, int) and isinstance(other, int) and mine < other


def _hinted(model: Model) -> set[str]:
    return {t.name for node in model.graph.nodes if node.op in _HINTS for t in node.outputs}


def _spread(names: list[str], most: int) -> list[str]:
    """At most so many of them, evenly, the last among them."""
    if len(names) <= most:
        return names
    return [names[(i + 1) * len(names) // most - 1] for i in range(most)]
