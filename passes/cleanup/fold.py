"""fold: compute ahead what does not depend on the inputs."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from zc.ir.edit import make_constant, sort_nodes, sweep
from zc.ir.elements import PACKED_BITS, elem_type_of
from zc.ir.graph import Array, Constant, Graph, Node, Tensor, Variable, describe
from zc.ir.model import Model
from zc.ir.shapes import infer_shapes, made_up, static_shape
from zc.passes.cleanup.branches import inline_branches
from zc.passes.cleanup.dce import drop_dead_nodes
from zc.passes.cleanup.evaluate import evaluate
from zc.passes.cleanup.operands import OLDEST, computing_scopes, fixed, overridable, shape_of, too_old
from zc.passes.cleanup.shapefold import fold_shapes
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"}
)
"""Operators whose value differs from run to run, or may (a Dropout that does nothing is canonicalize's)."""

_KEPT = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Constant"})
"""Operators that stay: folding the first three would turn int8 weights into float ones, or hide how they are stored."""

_GROWING = frozenset({"ConstantOfShape", "Expand", "Tile", "Range", "OneHot", "Pad", "Resize", "Upsample", "EyeLike"})
"""Operators whose result may be far bigger than their inputs: it is sized before it is computed."""

STORED = 64
"""Codes of fewer elements are no weight: their Cast is computed ahead like any other node."""

_ROUNDS = 32


@register
@dataclass(frozen=True)
class Fold(Pass):
    """Compute ahead what does not depend on the inputs, dynamic batch or not.

    before:  x[N,8,2,2] -> Shape -> Gather(0) -> Unsqueeze -> Concat(., 32) -> s;   Reshape(x, s) -> y;   Sqrt(c) -> w
    after:   Reshape(x, [0, 32]) -> y;   w is an initializer

    Constants are computed in one onnxruntime session. Shape arithmetic is computed on symbols, so that what only
    carries the batch along becomes `0` or `-1` in a constant shape. A branch of an If is taken when its condition is
    constant. Constant nodes become initializers. Main graph and bodies; initializers that are graph inputs stay.

    Left alone: random operators; QuantizeLinear and DequantizeLinear of weights, and Casts of weights stored as codes;
    Constant nodes that make a graph output; operators of other domains; functions (`inline` dissolves them).
    """

    name: ClassVar[str] = "fold"
    exact: ClassVar[bool] = True

    limit: int = 1 << 30
    """Bytes by which folded values may enlarge the model in all."""

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Fold to a fixed point; declines what would grow beyond the limit or what no evaluator runs."""
        return fold(model, self.limit)


def fold(model: Model, limit: int, *, inferred: bool = False) -> PassResult:
    """Infer shapes and fold, until neither finds more. See `Fold`.

    inferred: shapes were inferred before and are still right; they are inferred again only where one is missing.
    """
    return _Folding(model, limit, inferred).run()


@dataclass
class _Folding:
    model: Model
    limit: int
    inferred: bool
    grown: int = 0
    loose: frozenset[int] = frozenset()
    refused: dict[int, tuple[gs.Node, str]] = field(default_factory=dict)
    stats: dict[str, int] = field(default_factory=dict)

    def run(self) -> PassResult:
        if self.model.opset < OLDEST:
            return too_old(self.model)
        for scope in computing_scopes(self.model):
            sort_nodes(scope)
        self.loose = overridable(self.model)
        self.count("constant nodes", self.constant_nodes())
        problems: tuple[str, ...] = ()
        for _ in range(_ROUNDS):
            if not (self.inferred and self.all_known()):
                self.forget_made_up()
                problems = infer_shapes(self.model)
                self.inferred = True
            before = sum(self.stats.values())
            while self.round():
                pass
            if sum(self.stats.values()) == before:
                break
        result = PassResult(any(self.stats.values()), {k: v for k, v in self.stats.items() if v})
        for node, why in self.refused.values():
            if node.outputs:
                result.declined(describe(node), why)
        for problem in problems:
            result.warn("shape inference", problem)
        if self.grown > 1 << 26:
            mebi = self.grown >> 20
            result.info("size", f"folded values are {mebi} MiB bigger than what they come from; see fold:limit")
        return result

    def count(self, what: str, number: int) -> int:
        self.stats[what] = self.stats.get(what, 0) + number
        return number

    def round(self) -> int:
        """One pass over all scopes; how much was folded."""
        done = self.count("shape arithmetic", fold_shapes(self.model, self.loose))
        done += self.count("nodes", sum(self.numbers(scope) for scope in computing_scopes(self.model)))
        done += self.count("branches", inline_branches(self.model, self.loose))
        if done:
            drop_dead_nodes(self.model)
            done += self.constant_nodes()
        return done

    def constant_nodes(self) -> int:
        """Turn Constant nodes into initializers, but for those that make an output of their scope."""
        count = 0
        for scope in computing_scopes(self.model):
            ends = {id(t) for t in scope.outputs}
            found = [
                n
                for n in scope.nodes
                if n.op == "Constant" and cast(Node, n).standard and n.outputs and id(n.outputs[0]) not in ends
            ]
            for node in found:
                values = constant_of(node)
                if values is not None:
                    make_constant(node.outputs[0], values)
                    count += 1
            if found:
                sweep(scope)
        return count

    def numbers(self, scope: Graph) -> int:
        """Compute the nodes of a scope whose inputs are all fixed; the number of nodes that went."""
        nodes, made = self.foldable(scope)
        ends = {id(t) for t in scope.outputs}
        inside = {id(n) for n in nodes}
        wanted = [t for t in made if id(t) in ends or any(id(c) not in inside for c in t.outputs)]
        if not wanted:
            return 0
        values, refused = evaluate(self.model, nodes, wanted, self.loose)
        self.refused.update({id(n): (n, f"cannot be computed ahead: {why}") for n, why in refused})
        for tensor in wanted:
            if id(tensor) in values:
                self.grown += max(0, values[id(tensor)].nbytes)
                settle(scope, tensor, values[id(tensor)], id(tensor) in ends)
        for tensor in {id(t): t for n in nodes for t in n.inputs if isinstance(t, Constant)}.values():
            if all(id(c) in inside for c in tensor.outputs):
                self.grown -= tensor.nbytes
        self.grown = max(0, self.grown)
        if any(id(t) in ends for t in wanted):
            sort_nodes(scope)
        return len(nodes) - len(refused) if values else 0

    def foldable(self, scope: Graph) -> tuple[list[gs.Node], list[Tensor]]:
        """The nodes to compute, in order, and their outputs."""
        nodes: list[gs.Node] = []
        made: dict[int, Tensor] = {}
        sizes: dict[int, int] = {}
        room = self.limit - self.grown
        for node in scope.nodes:
            if not _computable(node) or id(node) in self.refused:
                continue
            if not all(t.is_empty() or id(t) in made or self.is_fixed(t) for t in node.inputs):
                continue
            size = self.result_bytes(node, made)
            if size is None:
                continue  # its inputs are computed in this round: it is sized in the next
            sources = {id(t): t for t in node.inputs}
            growth = size - sum(t.nbytes if isinstance(t, Constant) else sizes.get(i, 0) for i, t in sources.items())
            if growth > room:
                bound = f"fold:limit={self.limit}"
                self.refused[id(node)] = (node, f"its value takes {size} bytes; the limit is {bound}")
                continue
            room -= max(0, growth)
            nodes.append(node)
            made.update({id(t): t for t in node.outputs if not t.is_empty()})
            sizes[id(node.outputs[0])] = size
        return nodes, list(made.values())

    def is_fixed(self, tensor: Tensor) -> bool:
        if isinstance(tensor, Constant):
            return id(tensor) not in self.loose
        return bool(tensor.inputs) and fixed(tensor, self.loose) is not None

    def result_bytes(self, node: gs.Node, made: dict[int, Tensor]) -> int | None:
        """Bytes of the outputs (0 when unknown but harmless), or None when they cannot be told yet."""
        if node.op in _GROWING and any(id(t) in made for t in node.inputs):
            return None
        total = 0
        for tensor in node.outputs:
            shape = static_shape(tensor) if isinstance(tensor, Variable) else None
            if shape is None and node.op in _GROWING:
                shape = _size_from_operands(node, [fixed(t, self.loose) for t in node.inputs])
            itemsize = np.dtype(tensor.dtype).itemsize if tensor.dtype is not None else 8
            total += itemsize * int(np.prod(shape, dtype=object)) if shape is not None else 0
        return total

    def forget_made_up(self) -> None:
        """Drop the names that an earlier inference made up: in the next one they may mean other sizes."""
        ends = {id(t) for t in self.model.graph.outputs}
        tensors = (t for scope in computing_scopes(self.model) for n in scope.nodes for t in n.outputs)
        for tensor in tensors:
            if isinstance(tensor, Variable) and id(tensor) not in ends and any(map(made_up, tensor.shape or ())):
                tensor.shape = [None if made_up(d) else d for d in tensor.shape]

    def all_known(self) -> bool:
        """Can no further inference tell more, because every shape is complete already?"""
        nodes = (n for scope in computing_scopes(self.model) for n in scope.nodes)
        return all(t.is_empty() or _complete(t) for n in nodes for t in n.outputs)


def _complete(tensor: Tensor) -> bool:
    shape = shape_of(tensor)
    return tensor.dtype is not None and shape is not None and not any(d is None or made_up(d) for d in shape)


def settle(scope: Graph, tensor: Tensor, values: Array, output: bool) -> None:
    """Make a value a constant; one that is an output of its scope becomes the output of a Constant node."""
    if not output:
        make_constant(tensor, values)
        return
    producer = tensor.inputs[0]
    at = next(i for i, t in enumerate(producer.outputs) if t is tensor)
    producer.outputs[at] = Variable("")
    name = producer.name if len(producer.outputs) == 1 else ""
    scope.nodes.append(Node("Constant", name, {"value": Constant("", values)}, (), (tensor,)))


def constant_of(node: gs.Node) -> Any:
    """The array (or what stands for it unread) of a Constant node; None for forms without a dense one."""
    for name, value in node.attrs.items():
        if isinstance(value, onnx.AttributeProto):
            return None
        match name:
            case "value":
                return value._values
            case "value_float" | "value_floats":
                return np.array(value, np.float32)
            case "value_int" | "value_ints":
                return np.array(value, np.int64)
            case "value_string" | "value_strings":
                return np.array(value, object)
    return None


def _computable(node: gs.Node) -> bool:
    if not node.inputs and node.op not in ("EyeLike",):
        return False
    if node.op in RANDOM or node.op in _KEPT or not cast(Node, node).standard or not node.outputs:
        return False
    if _reads_stored_weight(node):
        return False
    if "Sequence" in node.op or "Optional" in node.op:
        return False
    if any(isinstance(v, gs.Graph | onnx.AttributeProto) for v in node.attrs.values()):
        return False
    return all(t.type == "tensor_type" for t in node.outputs if isinstance(t, Variable))


def _reads_stored_weight(node: gs.Node) -> bool:
    """A Cast of codes: computing it ahead would store the weight in more bits."""
    source = node.inputs[0]
    if node.op != "Cast" or not isinstance(source, Constant) or source.size < STORED:
        return False
    kind, to = np.dtype(source.dtype), node.outputs[0].dtype
    if elem_type_of(kind) in PACKED_BITS:
        return True
    if kind not in (np.int8, np.uint8) or to is None:
        return False
    return np.dtype(to).kind == "f" or all(_looks_up(reader, node.outputs[0]) for reader in node.outputs[0].outputs)


def _looks_up(node: gs.Node, index: gs.Tensor) -> bool:
    """Does a Gather take these indices into a constant table? (Weights that share a codebook.)"""
    return node.op == "Gather" and isinstance(node.inputs[0], Constant) and node.inputs[1] is index


def _size_from_operands(node: gs.Node, operands: list[Array | None]) -> tuple[int, ...] | None:
    """The shape of the result of an operator that shape inference knew nothing of."""
    first, second = (*operands, None, None)[:2]
    if node.op == "ConstantOfShape" and first is not None:
        return tuple(int(d) for d in first)
    if first is None or second is None:
        return None
    if node.op == "Expand":
        return np.broadcast_shapes(first.shape, tuple(int(d) for d in second))
    if node.op == "Tile":
        return tuple(int(d) * int(r) for d, r in zip(first.shape, second, strict=True))
    if node.op == "Range" and operands[2] is not None:
        return (max(0, int(np.ceil((second - first) / operands[2]))),)
    if node.op == "OneHot":
        return (*first.shape, int(np.max(second)))
    return None
