"""Mimic, then replace: what stands behind a value that was learned is the teacher's own, where that says more.

before:  x -> [trained] -> v -> [layers as cut and refitted] -> y
after:   x -> [trained] -> v -> [the teacher's layers] -> y

A student that has learned an inner value needs nothing of its own behind it; what was refitted there on few rows fits
those rows. (Wang et al., Compressing Models with Few Samples: Mimicking then Replacing, 2022.)
"""

from collections.abc import Sequence
from typing import cast

import numpy as np

from zc.data import Samples
from zc.ir.edit import ancestors, needs
from zc.ir.graph import Array, Constant, Node, describe
from zc.ir.model import Model
from zc.measure.agreement import Reference
from zc.pipeline.base import Context, PassResult


def replace_behind(
    model: Model, teacher: Model, values: Sequence[str], held: Samples | None, ctx: Context, result: PassResult
) -> None:
    """Give the layers behind the values the teacher's weights, if that lowers the error of the outputs on held rows.

    What was done is told in `result`.
    """
    place = "+".join(values)
    behind = _behind(model, values)
    if not behind:
        return
    if held is None:
        result.info(place, "what is behind it stays its own: no rows are held back to judge the teacher's by")
        return
    found = _counterparts(behind, teacher)
    if isinstance(found, Node):
        result.info(place, f"what is behind it stays its own: the teacher has nothing like node '{describe(found)}'")
        return
    changed = [(own, theirs) for own, theirs in found if not np.array_equal(own.values, theirs)]
    if not changed:
        return
    reference, own = Reference(teacher, held, ctx.threads), [constant.values for constant, _ in changed]
    before = _noise(reference, model)
    _assign(changed)
    after = _noise(reference, model)
    taken = after < before
    if taken:
        result.changed = True
    else:
        _assign([(constant, values) for (constant, _), values in zip(changed, own, strict=True)])
    result.info(
        place,
        f"behind it are {'now the teacher' if taken else 'still its own, not the teacher'}'s weights: the error of "
        f"the outputs is {after:.4g} with those, {before:.4g} with its own",
    )


def _assign(pairs: Sequence[tuple[Constant, Array]]) -> None:
    for constant, values in pairs:
        constant.values = values


def _noise(reference: Reference, model: Model) -> float:
    """Squared error over variance of the output that suffers most."""
    return max((one.noise for one in reference.by_output(model).values()), default=float("inf"))


def _behind(model: Model, values: Sequence[str]) -> list[Node]:
    """The nodes that the outputs need where the values are given; none where a value is not on every way there."""
    nodes = cast(list[Node], model.graph.nodes)
    given = [t for node in nodes for t in node.outputs if t.name in values]
    wanted = ancestors(model.graph.outputs, given)
    behind = [node for node in nodes if id(node) in wanted]
    inputs = {id(t) for t in model.graph.inputs}
    return [] if any(id(t) in inputs for node in behind for t in needs(node)) else behind


def _counterparts(behind: list[Node], teacher: Model) -> list[tuple[Constant, Array]] | Node:
    """Each constant behind, and what the teacher has there; or the node that the teacher does not have like this."""
    theirs = {node.name: node for node in teacher.graph.nodes if node.name}
    here = {id(node) for node in behind}
    found: dict[int, tuple[Constant, Array]] = {}
    for node in behind:
        other = theirs.get(node.name)
        for index, own in enumerate(node.inputs):
            if not isinstance(own, Constant) or own.values.dtype.kind != "f":
                continue
            given = other.inputs[index] if other is not None and index < len(other.inputs) else None
            if other is None or other.op != node.op or any(id(n) not in here for n in own.outputs):
                return node
            if given is None or not given.name:  # a bias that a fit has added
                given_values = np.zeros_like(own.values)
            elif isinstance(given, Constant) and given.values.shape == own.values.shape:
                given_values = given.values.astype(own.values.dtype)
            else:
                return node
            if id(own) in found and not np.array_equal(found[id(own)][1], given_values):
                return node
            found[id(own)] = own, given_values
    return list(found.values())
