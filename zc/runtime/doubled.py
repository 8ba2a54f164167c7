"""Two pairs of Q/DQ in a row are one, as onnxruntime makes of them when it loads a model."""

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from zc.ir.edit import Names, detach, sort_nodes, sweep
from zc.ir.graph import Node, fixed_value
from zc.ir.model import Model
from zc.runtime.quantum import given


@dataclass(frozen=True)
class _Pair:
    """What a QuantizeLinear and the DequantizeLinear behind it have in common."""

    scale: np.float32
    zero: int
    kind: np.dtype[Any]


def merge_doubled_pairs(model: Model) -> None:
    """Let one pair of the main graph stand for two whose codes nothing else reads, in place.

    before:  x -> Q(s, z) -> DQ(s, z) -> Q(t, u) -> DQ(t, u) -> y
    after:   x -> Q(v, w) -> DQ(v, w) -> y      v, w: of the range that both have

    onnxruntime's DoubleQDQPairsRemover, which runs at its default level. The codes are others than those of the graph
    as it stands; equal pairs, and those with one zero point whose scales differ by less than 1e-20, stay as they are.
    """
    graph = model.graph
    sort_nodes(graph)
    ends = {id(t) for t in graph.outputs}
    names = Names(graph)
    for node in [cast(Node, n) for n in graph.nodes if n.op == "DequantizeLinear"]:
        chain = _chain(node, ends)
        if chain is None:
            continue
        merged = _common(chain.one, chain.other) if chain.one != chain.other else chain.one
        values = {"scale": merged.scale, "zero_point": merged.kind.type(merged.zero)}
        for outer in (chain.first, *chain.last):
            for place, (name, value) in enumerate(values.items(), 1):
                outer.inputs[place] = names.constant(f"{outer.outputs[0].name}_{name}", np.asarray(value))
        for reader in chain.last:
            reader.inputs[0] = chain.first.outputs[0]
        detach(node)
        detach(chain.second)
    sweep(graph)


@dataclass(frozen=True)
class _Chain:
    """Q, DQ, Q and DQ in a row; equal ones at the end are one DQ, which onnxruntime makes of them before."""

    first: Node
    second: Node
    last: tuple[Node, ...]
    one: _Pair
    other: _Pair


def _chain(node: Node, ends: set[int]) -> _Chain | None:
    """The chain of which this DQ is the first; None where something else reads a value in it."""
    first = cast(Node, node.inputs[0].inputs[0]) if len(node.inputs[0].inputs) == 1 else None
    if first is None or first.op != "QuantizeLinear" or _readers(first, "DequantizeLinear", ends) != [node]:
        return None
    seconds = _readers(node, "QuantizeLinear", ends)
    last = _readers(seconds[0], "DequantizeLinear", ends) if len(seconds) == 1 else []
    if not last:
        return None
    pairs = {_pair(seconds[0], one) for one in last}
    one, other = _pair(first, node), pairs.pop()
    if one is None or other is None or pairs or one.kind != other.kind:
        return None
    return _Chain(first, seconds[0], tuple(last), one, other)


def _readers(node: Node, op: str, ends: set[int]) -> list[Node]:
    """The readers of a node's output; none where it is an output of the model or one is another operator."""
    found = [cast(Node, reader) for reader in node.outputs[0].outputs]
    return found if id(node.outputs[0]) not in ends and all(reader.op == op for reader in found) else []


def _pair(q: Node, dq: Node) -> _Pair | None:
    """Their scale and zero point; None where they are not given, not constant, not one, or not the same."""
    found = []
    for node in (q, dq):
        scale, zero = (None if t is None else fixed_value(t) for t in (given(node, 1), given(node, 2)))
        if scale is None or zero is None or scale.ndim or zero.ndim or scale.dtype != np.float32:
            return None
        if zero.dtype not in (np.uint8, np.int8):
            return None
        found.append(_Pair(np.float32(scale), int(zero), zero.dtype))
    return found[0] if found[0] == found[1] else None


def _common(one: _Pair, other: _Pair) -> _Pair:
    """Scale and zero point of the range that both have, in float32."""
    least, most = np.iinfo(one.kind).min, np.iinfo(one.kind).max
    bounds = [(np.float32(least - p.zero) * p.scale, np.float32(most - p.zero) * p.scale) for p in (one, other)]
    low, high = max(b[0] for b in bounds), min(b[1] for b in bounds)
    scale = np.float32((high - low) / np.float32(most - least))
    at = float(np.float32(np.float32(least) - low / scale))
    return _Pair(scale, int(math.copysign(math.floor(abs(at) + 0.5), at)), one.kind)
