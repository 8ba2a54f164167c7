"""How much the outputs of a network suffer from a cut in one group alone: measured, group by group.

Losses at the consumers of a group say little of what the network makes of them: an error in a narrow trunk reaches all
that follows. So each group is cut alone, its consumers are refitted in closed form, and the error of the
outputs is measured on a few rows; the group's losses are scaled to it.
"""

from collections.abc import Sequence

import numpy as np

from zc.data import Samples
from zc.execute import Feeds, Runner
from zc.ir.edit import Names
from zc.ir.graph import Array
from zc.ir.model import PROTO_LIMIT, Model
from zc.measure.agreement import before_saturation
from zc.passes.layers.coded import CodedLayer, coded_layer
from zc.passes.layers.layers import Layer
from zc.passes.prune.apply import stays
from zc.passes.prune.groups import Groups
from zc.passes.prune.labels import Bools
from zc.passes.prune.ranking import Ranking, Reading
from zc.passes.prune.verify import Masked
from zc.pipeline.base import Context

ROWS = 64
LOSS = 0.04
"""A group is cut until its consumers lose so much, and to three quarters at most."""
DAMPING = 1e-2
WORST = 1e4


def scaled(
    model: Model,
    groups: Groups,
    rankings: Sequence[Ranking],
    read: Sequence[Reading],
    samples: Samples,
    refit: bool,
    ctx: Context,
) -> list[Ranking]:
    """The rankings with losses in units of the outputs' variance, as a cut of the group alone makes it.

    samples: a few rows (the first `ROWS` are run). refit: are consumers refitted, as the repair will do?
    """
    feeds = _first(samples)
    probe = Outputs(model, feeds)
    result = []
    for group, ranking in ctx.track(list(zip(groups.groups, rankings, strict=True)), "try groups", len(rankings)):
        steps = _probed(ranking)
        if steps >= ranking.steps:
            result.append(ranking)
            continue
        stay = stays(groups, ranking.order[:steps].ravel())
        masked = Masked(model)
        if refit:
            _refit(masked, [r for r in read if np.isin(r.roots, group.atoms).any()], stay)
        masked.mask(groups.flow.contractions, stay)
        measured = probe.error(masked.model)
        at = float(ranking.loss[steps])
        share = np.arange(ranking.steps + 1) / ranking.steps
        shape = ranking.loss / at if at > 1e-9 else (share / share[steps]) ** 2
        # Later layers can make up for less and less of a group that is nearly gone.
        barrier = (1 - share[steps]) / np.maximum(1 - share, 0.5 / ranking.steps)
        result.append(Ranking(ranking.order, measured * shape * barrier))
    return result


def _probed(ranking: Ranking) -> int:
    """How many steps are cut to measure a group."""
    return max(1, min(int(np.searchsorted(ranking.loss, LOSS)), ranking.steps * 3 // 4))


class Outputs:
    """The outputs of a model on some rows, which others are compared with."""

    def __init__(self, model: Model, feeds: Sequence[Feeds]) -> None:
        """Run the model."""
        self.feeds = feeds
        inner = before_saturation(model) if model.nbytes() < PROTO_LIMIT else []
        self.names = inner or [t.name for t in model.graph.outputs]
        self.want = self._run(model)

    def error(self, model: Model) -> float:
        """Noise to signal of the outputs, up to a factor that they may have lost; the mean over outputs."""
        got = self._run(model)
        parts = [self._lost(got[k], want) for k, want in self.want.items() if got[k].shape == want.shape]
        return float(np.mean(parts)) if parts else 1.0

    @staticmethod
    def _lost(got: Array, want: Array) -> float:
        """(1 - r^2) / r^2 of the correlation r over rows: noise to signal; it does not end at 1 for a lost signal."""
        a, b = got - got.mean(axis=0), want - want.mean(axis=0)
        power = float((a * a).sum() * (b * b).sum())
        along = max(float((a * b).sum()), 0.0) ** 2 / max(power, 1e-30)
        return min((1 - along) / max(along, 1e-6), WORST)

    def _run(self, model: Model) -> dict[str, Array]:
        runner = Runner(model, outputs=self.names)
        batches = [runner.run(feed) for feed in self.feeds]
        found = {}
        for name in self.names:
            parts = [np.asarray(batch[name]) for batch in batches]
            if parts[0].dtype.kind == "f" and parts[0].ndim and len({p.shape[1:] for p in parts}) == 1:
                found[name] = np.nan_to_num(np.concatenate(parts).astype(np.float64))
        return found


def _first(samples: Samples) -> list[Feeds]:
    feeds: list[Feeds] = []
    for feed in samples.batches(32):
        feeds.append(feed)
        if len(feeds) * (samples.batch or (1 if samples.reader.whole else 32)) >= ROWS:
            break
    return feeds


def _refit(masked: Masked, read: Sequence[Reading], stay: Bools) -> None:
    """Give the consumers of the cut channels the weights that make up best for what leaves."""
    names = Names(masked.model.graph)
    for one in read:
        if one.seen.normal is None:
            continue
        covariance, mean = one.seen.normal.shrunk(), one.seen.normal.mean()
        matrix = one.layer.matrix()
        kept = stay[one.roots]
        shift = np.zeros((len(matrix), matrix.shape[2]))
        for g in range(len(matrix)):
            k, r = kept[g], ~kept[g]
            if not r.any() or not k.any():
                continue
            level = np.trace(covariance[g]) / len(k) * DAMPING + 1e-12
            inner = covariance[g][np.ix_(k, k)] + level * np.eye(int(k.sum()))
            added = np.linalg.solve(inner, covariance[g][np.ix_(k, r)] @ matrix[g][r])
            shift[g] = mean[g][r] @ matrix[g][r] - mean[g][k] @ added
            matrix[g][k] += added
        copy = _copied(masked, one.layer)
        if copy.may_shift:
            copy.set_offset(copy.offset() + shift.reshape(-1), names)
        copy.set_matrix(matrix)


def _copied(masked: Masked, layer: Layer) -> Layer:
    """The layer in the copy; the constants are the copy's own."""
    node = masked.copy_of(layer.node)
    if isinstance(layer, CodedLayer):
        twin = coded_layer(node, masked.model)
        assert isinstance(twin, CodedLayer)
        return twin
    bias = None
    if layer.bias is not None:
        owner = layer.node if layer.node.op != "MatMul" else layer.end.inputs[0]
        place = next(i for i, t in enumerate(owner.inputs) if t is layer.bias)
        bias = masked.copy_of(owner).inputs[place]  # type: ignore[arg-type]
    return Layer(node, node.inputs[1], bias, node.outputs[0])  # type: ignore[arg-type]
