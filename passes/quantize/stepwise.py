"""Run a model piece by piece on held samples: what is measured at one node can change it before the next one runs.

    x -> [ .. A ] -> [ .. B ] -> [ .. C ]        a piece ends with each stop A, B, C

After a piece has run, its stop's value is at hand for all rows; the caller may edit weights and shift the value before
the next piece runs. All pieces together cost one forward. Held between pieces: only what later ones read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from zc.errors import ZcError
from zc.execute import Feeds, Runner
from zc.ir.edit import needs
from zc.ir.graph import Array, Constant, Node, Tensor
from zc.ir.model import Model
from zc.ir.part import part_model

Held = list[dict[str, Array]]
"""For each batch of rows, the values that are still to be read, by name."""


@dataclass(frozen=True)
class Piece:
    """Some nodes of a sorted graph, one after the other."""

    nodes: list[Node]
    reads: list[Tensor]
    """Values from earlier pieces or from the caller."""
    gives: list[Tensor]
    """Values that later pieces read, and the stop."""
    stop: Tensor
    over: list[str]
    """Names of the values that no later piece reads."""


def cut(model: Model, stops: Sequence[Tensor]) -> list[Piece]:
    """The pieces of a model, each up to the node that makes one of the stops. The nodes behind the last are left out.

    Every stop must be made by a node of the main graph, whose nodes must be sorted. Linear in the graph.
    """
    wanted = {id(t) for t in stops}
    runs: list[tuple[list[Node], Tensor]] = []
    nodes: list[Node] = []
    for node in model.graph.nodes:
        nodes.append(cast(Node, node))
        found = [t for t in node.outputs if id(t) in wanted]
        if found:
            runs.append((nodes, found[0]))
            nodes = []
    last: dict[int, int] = {}  # by id of a value: the last run that reads it
    made: set[int] = set()
    fed = {id(t) for t in model.graph.inputs}
    read: dict[int, list[Tensor]] = {}
    for number, (members, _) in enumerate(runs):
        inner = {id(t) for n in members for t in n.outputs}
        outside = {id(t): t for n in members for t in needs(n) if t.name and not isinstance(t, Constant)}
        read[number] = [t for key, t in outside.items() if key not in inner and (key in made or key in fed)]
        last.update({id(t): number for t in read[number]})
        made |= inner
    pieces = []
    for number, (members, stop) in enumerate(runs):
        gives = [t for n in members for t in n.outputs if last.get(id(t), -1) > number or t is stop]
        over = [t.name for t in [*read[number], stop] if last.get(id(t), -1) <= number]
        pieces.append(Piece(members, read[number], gives, stop, over))
    return pieces


def run_pieces(model: Model, pieces: Sequence[Piece], feeds: Sequence[Feeds]) -> Iterator[tuple[Piece, Held]]:
    """Run the pieces in order; after each, the piece and what is held, the value of its stop included.

    What the caller changes of the held values and of the model's constants counts for the pieces behind.
    ZcError when a value between two pieces is a sequence or a map.
    """
    held: Held = [dict(feed) for feed in feeds]
    for piece in pieces:
        runner = Runner(_model_of(model, piece, held[0]))
        for values in held:
            values.update(runner.run(values))
        yield piece, held
        for values in held:
            for name in piece.over:
                values.pop(name, None)


def _model_of(model: Model, piece: Piece, values: dict[str, Array]) -> Model:
    """The piece as a model of its own."""
    for tensor in piece.reads:
        if not isinstance(values[tensor.name], np.ndarray):
            raise ZcError(f"{model.name}: value '{tensor.name}' is no tensor, so the model cannot run piece by piece")
    return part_model(model, piece.nodes, {t.name: values[t.name] for t in piece.reads}, piece.gives)
