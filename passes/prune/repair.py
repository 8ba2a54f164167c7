"""Repair without training: each layer behind a cut learns to say what it said in the original.

Layer after layer, in the order of the graph, on the pruned net whose earlier layers are already mended: weights and
bias are the least-squares solution that maps what the layer sees now to what the ORIGINAL net has at its output, drawn
a little towards the weights as they are. Where the output is added to another branch, the target is the original's sum
less what that branch has now; so each block also mends what earlier ones spoiled. Means of removed channels go into the
bias as a part of the same solution.
(The reconstruction of He et al., Channel Pruning for Accelerating Very Deep Neural Networks, 2017, with targets of the
original net and its sums.)
"""

from dataclasses import dataclass

import numpy as np

from zc.data import Samples
from zc.errors import ZcError
from zc.ir.edit import Names
from zc.ir.graph import Array, Constant, Node, Tensor, describe
from zc.ir.model import Model
from zc.passes.layers.coded import find_all_layers
from zc.passes.layers.layers import Layer
from zc.passes.layers.normal import Normal, fit
from zc.passes.layers.rows import choose_positions, enough, outputs_of, padding_of, rows_of, values_at
from zc.passes.layers.steps import HELD_BACK, Steps, hold
from zc.passes.prune.groups import Groups
from zc.passes.prune.labels import Bools
from zc.pipeline.base import Context


@dataclass(frozen=True, eq=False)
class Pair:
    """A layer of the original and what is left of it."""

    original: Layer
    pruned: Layer
    kept: Bools
    """Which output channels are left."""


class Repair:
    """The original of a model that is about to be cut, and the ways to mend the cut."""

    def __init__(self, model: Model) -> None:
        """Copy the model; arrays are shared."""
        self.original = model.copy()
        self._counts: list[Array | None] = []
        self._rows = 0
        self._twin = dict(zip(map(id, model.nodes()), self.original.nodes(), strict=True))

    def mend(self, model: Model, groups: Groups, stay: Bools, samples: Samples, ctx: Context) -> "Mended":
        """Repair the layers of the cut model in place.

        groups, stay: what was cut; `stay` by label.
        """
        pairs, refused = self._pairs(model, groups, stay)
        changed = _behind(model, groups, stay)
        todo = [p for p in pairs if id(p.pruned.source) in changed]
        feeds, rows = hold(self.original, [p.original.source for p in todo], samples)
        self._counts, self._rows = [padding_of(feed) for feed in feeds], rows
        first, second = Steps(self.original, feeds, ctx.threads), Steps(model, feeds, ctx.threads)
        names = Names(model.graph)
        waiting = {id(p.pruned.node) for p in todo}
        for number, pair in enumerate(ctx.track(todo, "repair", len(todo))):
            waiting.discard(id(pair.pruned.node))
            self._mend_one(pair, first, second, waiting, names, number)
        return Mended(len(todo), rows, [(n, w) for n, w in refused if id(n.inputs[0]) in changed])

    def _pairs(self, model: Model, groups: Groups, stay: Bools) -> tuple[list[Pair], list[tuple[Node, str]]]:
        made = {id(p.node): p.labels for p in groups.flow.products}
        layers, refused = find_all_layers(model)
        originals = {id(one.node): one for one in find_all_layers(self.original)[0]}
        pairs = []
        for layer in layers:
            original = originals.get(id(self._twin.get(id(layer.node))))
            labels = made.get(id(layer.node))
            if original is None:
                refused.append((layer.node, "its weight or bias was shared"))
                continue
            kept = np.ones(original.channels, np.bool_) if labels is None else stay[labels]
            if int(kept.sum()) == layer.channels:
                pairs.append(Pair(original, layer, kept))
            else:
                refused.append((layer.node, "its outputs were not followed"))
        return pairs, refused

    def _mend_one(self, pair: Pair, first: Steps, second: Steps, waiting: set[int], names: Names, number: int) -> None:
        beside = _beside(pair.original, pair.pruned, second, waiting)
        first.advance([pair.original.source, *([beside[0]] if beside else [])])
        second.advance([pair.pruned.source, *([beside[1]] if beside else [])])
        equations = self._equations(pair, first, second, beside, number)
        if equations is None:
            return
        weights, bias = fit(*equations, pair.pruned.matrix(), pair.pruned.may_shift)
        if np.isfinite(weights).all() and np.isfinite(bias).all():
            pair.pruned.set_matrix(weights)
            if pair.pruned.may_shift:
                pair.pruned.set_offset(bias.reshape(-1), names)

    def _equations(
        self, pair: Pair, first: Steps, second: Steps, beside: tuple[Tensor, Tensor] | None, number: int
    ) -> tuple[Normal, Normal] | None:
        matrix, offset = pair.original.matrix(), pair.original.offset()
        sums: list[Normal] = []
        same = True
        most = enough(pair.original, self._rows)
        for turn, (a, b) in enumerate(zip(first.held, second.held, strict=True)):
            source, now = a[pair.original.source.name], b[pair.pruned.source.name]
            if outputs_of(pair.original, source) != outputs_of(pair.pruned, now):
                raise ZcError(f"node '{describe(pair.pruned.node)}': other positions after the cut than before")
            positions = choose_positions(pair.original, source, 1000 * number + turn, self._counts[turn], most)
            seen = rows_of(pair.original, source, positions)
            said = seen @ matrix.astype(seen.dtype)
            target = said.transpose(1, 0, 2).reshape(said.shape[1], -1) + offset.astype(seen.dtype)
            target = target[:, pair.kept]
            if beside is not None:
                was = values_at(pair.original, a[beside[0].name], positions)[:, pair.kept]
                target = target + was - values_at(pair.pruned, b[beside[1].name], positions)
            rows = rows_of(pair.pruned, now, positions)
            same = same and rows.shape == seen.shape and np.array_equal(rows, seen)
            if not sums:
                shift = rows.mean(axis=1, dtype=np.float64) * pair.pruned.may_shift
                sums = [Normal(shift), Normal(shift)]
            part = sums[turn % HELD_BACK == HELD_BACK - 1]
            part.add(rows, target.reshape(len(target), rows.shape[0], -1).transpose(1, 0, 2))
        return None if same and beside is None else (sums[0], sums[1])


@dataclass(frozen=True)
class Mended:
    """What was repaired."""

    layers: int
    rows: int
    refused: list[tuple[Node, str]]
    """Layers that see a cut and were not repaired."""


def _beside(original: Layer, pruned: Layer, steps: Steps, waiting: set[int]) -> tuple[Tensor, Tensor] | None:
    """The value that the output is added to, in both nets, where it is at hand without running a layer unrepaired."""
    found = []
    for layer in (original, pruned):
        add = layer.end.outputs[0] if len(layer.end.outputs) == 1 else None
        if add is None or add.op != "Add":
            return None
        other = next((t for t in add.inputs if t is not layer.end), None)
        if other is None or isinstance(other, Constant) or other.shape is None or layer.end.shape is None:
            return None
        if len(other.shape) != len(layer.end.shape) or any(
            a != b for a, b in zip(other.shape, layer.end.shape, strict=True)
        ):
            return None
        found.append(other)
    if any(id(node) in waiting for node in steps.missing([found[1]])):
        return None
    return found[0], found[1]


def _behind(model: Model, groups: Groups, stay: Bools) -> set[int]:
    """Ids of the values of the main graph that a removal changes: those behind a node that sums over less."""
    short = {id(c.node) for c in groups.flow.contractions if not stay[c.labels].all()}
    changed: set[int] = set()
    for one in groups.flow.contractions:
        if id(one.node) in short:
            changed.add(id(one.node.inputs[one.place]))
    for node in model.graph.nodes:
        if id(node) in short or any(id(t) in changed for t in node.inputs):
            changed.update(id(t) for t in node.outputs)
    return changed
