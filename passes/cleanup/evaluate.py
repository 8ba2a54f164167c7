"""Constant nodes are run once: all that can be folded in one onnxruntime session, one by one only if that fails."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import numpy as np
import onnx_graphsurgeon as gs

from zc.errors import ZcError
from zc.execute import Runner
from zc.ir.graph import Array, Constant, Graph, Node, Tensor, Variable, describe
from zc.ir.model import Model
from zc.passes.cleanup.operands import fixed, plain

Refusal = tuple[gs.Node, str]


def evaluate(
    model: Model, nodes: Sequence[gs.Node], wanted: Sequence[Tensor], loose: frozenset[int]
) -> tuple[dict[int, Array], list[Refusal]]:
    """Values of `wanted` by id, and the nodes that nothing here can run, with the reason.

    nodes: in order; every input is fixed or made by an earlier one of them. wanted: outputs of theirs.
    """
    simple = _in_numpy(nodes, loose)
    if simple is not None:
        return {id(t): simple[id(t)] for t in wanted}, []
    try:
        return _run(model, nodes, wanted, {}, loose), []
    except ZcError:
        return _one_by_one(model, nodes, wanted, loose)


def _in_numpy(nodes: Sequence[gs.Node], loose: frozenset[int]) -> dict[int, Array] | None:
    """The values when all nodes only move data: opening a session would cost far more than the work."""
    values: dict[int, Array] = {}
    for node in nodes:
        move = _MOVES.get(node.op)
        if move is None or len(node.outputs) != 1:
            return None
        operands = [values.get(id(t)) if id(t) in values else fixed(t, loose) for t in node.inputs]
        try:
            result = None if any(o is None for o in operands) else move(node, operands)
        except (ValueError, IndexError):
            return None
        if result is None:
            return None
        values[id(node.outputs[0])] = result
    return values


def _one_by_one(
    model: Model, nodes: Sequence[gs.Node], wanted: Sequence[Tensor], loose: frozenset[int]
) -> tuple[dict[int, Array], list[Refusal]]:
    done: dict[int, Array] = {}
    refused: list[Refusal] = []
    lost: set[int] = set()
    for node in nodes:
        outputs = [t for t in node.outputs if not t.is_empty()]
        if any(id(t) in lost for t in node.inputs):
            lost.update(id(t) for t in outputs)
            continue
        try:
            done.update(_run(model, [node], outputs, done, loose))
        except ZcError as error:
            try:
                done.update(_reference(model, node, outputs, done, loose))
            except Exception:  # the reference implementation raises whatever numpy does
                lost.update(id(t) for t in outputs)
                refused.append((node, str(error)))
    return {id(t): done[id(t)] for t in wanted if id(t) in done}, refused


def _run(
    model: Model, nodes: Sequence[gs.Node], wanted: Sequence[Tensor], known: dict[int, Array], loose: frozenset[int]
) -> dict[int, Array]:
    part = _part(model, nodes, wanted, known, loose)
    values = Runner(part, outputs=[o.name for o in part.graph.outputs], level="off", threads=1).run({})
    for tensor, got in zip(wanted, values.values(), strict=True):
        if not isinstance(got, np.ndarray) or (tensor.dtype is not None and not _agrees(got, tensor.dtype)):
            raise ZcError(f"value '{tensor.name}': onnxruntime gives no array of type {tensor.dtype}")
    return {id(t): v for t, v in zip(wanted, values.values(), strict=True)}


def _agrees(got: Any, dtype: Any) -> bool:
    wanted = np.dtype(dtype)
    return got.dtype == wanted or (got.dtype.kind in "OUS" and wanted.kind in "OUS")


def _reference(
    model: Model, node: gs.Node, outputs: Sequence[Tensor], known: dict[int, Array], loose: frozenset[int]
) -> dict[int, Array]:
    from onnx.reference import ReferenceEvaluator

    part = _part(model, [node], outputs, known, loose)
    values = ReferenceEvaluator(part.to_proto(outputs=[o.name for o in part.graph.outputs])).run(None, {})
    pairs = list(zip(outputs, values, strict=True))
    if not all(isinstance(v, np.ndarray | np.generic) and (t.dtype is None or _agrees(v, t.dtype)) for t, v in pairs):
        raise ZcError(f"node '{describe(node)}': the reference implementation returns another type")
    return {id(t): np.asarray(v) for t, v in pairs}


def _part(
    model: Model, nodes: Iterable[gs.Node], wanted: Sequence[Tensor], known: dict[int, Array], loose: frozenset[int]
) -> Model:
    """A model of the nodes alone, with copies of their values under names of its own."""
    copies: dict[int, Tensor] = {}

    def copy(tensor: Tensor) -> Tensor:
        if tensor.is_empty():
            return Variable("")
        if id(tensor) not in copies:
            name = f"v{len(copies)}"
            array = known.get(id(tensor))
            if array is not None:
                copies[id(tensor)] = Constant(name, array)
            elif isinstance(tensor, Constant):
                copies[id(tensor)] = Constant(name, tensor._values)
            elif tensor.inputs and tensor.inputs[0].op == "Constant":
                copies[id(tensor)] = Constant(name, cast(Array, fixed(tensor, loose)))
            else:
                copies[id(tensor)] = Variable(name, tensor.dtype, tensor.shape)
        return copies[id(tensor)]

    own: list[gs.Node] = []
    for node in nodes:
        outputs = [
            Variable("") if t.is_empty() else Variable(f"o{len(own)}_{i}", t.dtype) for i, t in enumerate(node.outputs)
        ]
        inputs = [copy(t) for t in node.inputs]
        copies.update({id(t): o for t, o in zip(node.outputs, outputs, strict=True)})
        own.append(Node(node.op, f"n{len(own)}", dict(node.attrs), inputs, outputs, node.domain))
    graph = Graph(own, [], [copy(t) for t in wanted], name="fold", opset=model.graph.opset)
    graph.import_domains = model.graph.import_domains
    return Model(graph, None, model.ir_version)


def _unsqueezed(node: gs.Node, parts: list[Any]) -> Array | None:
    axes = plain(node, "axes") if len(parts) == 1 else parts[1].tolist()
    return np.expand_dims(parts[0], tuple(axes)) if axes else None


def _reshaped(node: gs.Node, parts: list[Any]) -> Array | None:
    data, shape = parts[0], parts[1].tolist()
    if 0 in shape and not plain(node, "allowzero", 0):
        shape = [data.shape[i] if d == 0 else d for i, d in enumerate(shape)]
    return cast(Array, data.reshape(shape))


def _transposed(node: gs.Node, parts: list[Any]) -> Array | None:
    return np.ascontiguousarray(np.transpose(parts[0], plain(node, "perm")))


def _concatenated(node: gs.Node, parts: list[Any]) -> Array | None:
    return np.concatenate(parts, axis=plain(node, "axis", 0)) if parts[0].ndim else None


def _filled(node: gs.Node, parts: list[Any]) -> Array | None:
    value = node.attrs["value"].values if "value" in node.attrs else np.zeros(1, np.float32)
    return np.full(tuple(parts[0].tolist()), value.reshape(-1)[0], value.dtype)


_MOVES: dict[str, Callable[[gs.Node, list[Any]], Array | None]] = {
    "Unsqueeze": _unsqueezed,
    "Reshape": _reshaped,
    "Transpose": _transposed,
    "Concat": _concatenated,
    "ConstantOfShape": _filled,
    "Identity": lambda node, parts: parts[0],
}
"""Operators that only move data, on arrays."""
