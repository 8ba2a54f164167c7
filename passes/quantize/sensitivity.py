"""Sensitivity: what quantising each layer alone costs at the outputs, and what leaving the worst in float brings.

    ranking:       conv1 24.9 dB | conv7 31.3 dB | ...        (one layer in integers, all others in float)
    accumulated:   all in integers 19.5 dB | conv1 in float 21.0 dB | conv1, conv7 in float 21.9 dB | ...

The ranking costs half a forward for each layer (`zc.measure.harm`), a step of the accumulation a quantised model.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from zc.ir.graph import Graph, Node, describe
from zc.ir.model import Model
from zc.measure.agreement import Agreement
from zc.measure.cost import count
from zc.measure.harm import WORK, harms
from zc.measure.tensor_error import decibels
from zc.passes.quantize.placement import Placement
from zc.passes.quantize.workshop import Built, KeepFloat, Workshop


@dataclass(frozen=True)
class Sensitive:
    """A layer in integers, and what that does to the outputs."""

    where: str
    """How messages name it, and what `quantize:skip` takes."""
    op: str
    names: tuple[str, ...]
    """The nodes that are in float when it is: itself, or those in the branches of an If."""
    noise: float
    """Squared error over variance of the output that suffers most, with this layer alone in integers."""
    share: float
    """As `Agreement.share`."""
    macs: int
    """Multiply-accumulates for a batch of one; 0 where there are none or they are not known."""

    @property
    def db(self) -> float:
        """Signal to noise of that output, in dB."""
        return decibels(1.0, self.noise)


def rank(
    workshop: Workshop, built: Built, keep_float: KeepFloat, *, rounded: bool = True, work: int = WORK
) -> list[Sensitive]:
    """The layers that a build runs in integers, those first that cost most; measured on the rows held back.

    keep_float: what the build was made with. rounded: is the rounding of what a layer reads part of its cost? Else each
    rounding counts once, so that costs can be added up: for the layer that makes codes, else for those that read them.
    work: multiply-accumulates to spend.
    """
    integer = _integer_nodes(workshop.places(keep_float))
    found = harms(
        workshop.model,
        built.model,
        workshop.split.held,
        wanted=lambda layer: any(name in integer for name in layer.nodes) or (not rounded and layer.rounded),
        rounded=rounded,
        centred=built.form.bias_correct,
        work=work,
        threads=workshop.ctx.threads,
        track=workshop.ctx.track,
    )
    macs = {layer.name: layer.macs or 0 for layer in count(workshop.model).layers}
    readers = _readers(workshop.model, integer)
    ranked: dict[str, Sensitive] = {}
    shared: dict[str, float] = defaultdict(float)
    for harm in found:
        where = next((name for name in harm.nodes if name in integer), None)
        if where is None:  # made in float, and rounded for those that read it
            for name in readers.get(harm.value, ()):
                shared[name] += harm.noise / len(readers[harm.value])
        else:
            cost = sum(macs.get(name, 0) for name in integer[where])
            ranked[where] = Sensitive(where, harm.op, integer[where], harm.noise, harm.share, cost)
    result = [replace(one, noise=one.noise + shared[one.where]) for one in ranked.values()]
    return sorted(result, key=lambda one: -one.noise)


def _readers(model: Model, integer: Mapping[str, object]) -> dict[str, list[str]]:
    """By name of a value of the main graph: the names of its readers that run in integers."""
    found: dict[str, list[str]] = {}
    for node in model.nodes():
        for tensor in node.inputs:
            if describe(node) in integer:
                found.setdefault(tensor.name, []).append(describe(node))
    return found


def leave(layers: Iterable[Sensitive], also: KeepFloat, why: str) -> KeepFloat:
    """`also`, with these layers in float for a reason."""
    names = {name for layer in layers for name in layer.names}

    def reason(node: Node) -> str | None:
        return also(node) or (why if describe(node) in names else None)

    return reason


@dataclass(frozen=True)
class Step:
    """A model with some layers in float."""

    floats: int
    """How many; the worst ones."""
    agreement: Agreement
    """On the rows held back."""
    score: float | None = None
    """What the caller's measure says of it."""


def accumulate(
    workshop: Workshop,
    built: Built,
    keep_float: KeepFloat,
    ranking: Sequence[Sensitive],
    most: int,
    score: Callable[[Model], float] | None = None,
) -> list[Step]:
    """How the model does with none, 1, 2, 4, ... of the worst layers in float, up to `most`. Each step is a build."""
    counts = [0, *(n for n in (2**i for i in range(len(ranking).bit_length())) if n <= min(most, len(ranking)))]
    steps = []
    for number in workshop.ctx.track(counts, "leave layers in float", len(counts)):
        keep = leave(ranking[:number], keep_float, "left in float")
        one = built if number == 0 else workshop.build(built.form, keep)
        steps.append(Step(number, workshop.agreement(one), None if score is None else score(one.model)))
    return steps


def _integer_nodes(places: Sequence[Placement]) -> dict[str, tuple[str, ...]]:
    """By name of each node of the main graph that runs in integers, or has such in its bodies: their names."""
    found: dict[str, tuple[str, ...]] = {}
    inside: dict[int, list[str]] = {}
    for place in places:
        nodes = [*(site.node for site in place.sites), *place.integer, *place.lookups]
        if not place.around:
            found.update({describe(node): (describe(node),) for node in nodes})
        else:
            inside[id(place.graph)] = [describe(node) for node in nodes]
    for place in places[:1]:
        for node in place.graph.nodes:
            bodies = [cast(Graph, body) for body in cast(Node, node).subgraphs(recursive=True)]
            names = tuple(name for body in bodies for name in inside.get(id(body), ()))
            if names:
                found[describe(node)] = names
    return found
