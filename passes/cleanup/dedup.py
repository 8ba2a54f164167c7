"""dedup: what is stored or computed twice is stored or computed once."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from zc.ir.edit import Editor, Names, replace_uses, sweep
from zc.ir.external import digest
from zc.ir.graph import Constant, Graph, Node, Tensor
from zc.ir.model import Model
from zc.passes.cleanup.dce import discard
from zc.passes.cleanup.fold import RANDOM
from zc.passes.cleanup.operands import computing_scopes, overridable
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.registry import register

_LAYER_VECTORS = {
    "Conv": 2,
    "ConvTranspose": 2,
    "Gemm": 2,
    "BatchNormalization": 1,
    "LayerNormalization": 1,
    "InstanceNormalization": 1,
    "PRelu": 1,
    "QuantizeLinear": 1,
    "DequantizeLinear": 1,
}
"""Operator -> first input from which on its vectors belong to the layer (biases, scales, statistics)."""


@register
@dataclass(frozen=True)
class Dedup(Pass):
    """Compute equal expressions once and store equal initializers once. Main graph and bodies, each by itself.

    before:  Relu(x) -> a;  Relu(x) -> b;  MatMul(a, w1);  MatMul(b, w2)          (w1 and w2 hold the same numbers)
    after:   Relu(x) -> a;  MatMul(a, w1) read by all that read either

    Only operators that give the same value each time. Equal vectors that belong to a layer (biases, scales, statistics)
    are not joined: it would save nothing and tie layers together that later passes rewrite one by one.
    """

    name: ClassVar[str] = "dedup"
    exact: ClassVar[bool] = True

    def run(self, model: Model, ctx: Context) -> PassResult:
        """Join what is equal; declines what would join two graph outputs."""
        return dedup(model)


def dedup(model: Model) -> PassResult:
    """Join equal expressions, then equal initializers. See `Dedup`."""
    loose = overridable(model)
    content = _Content(model, loose)
    result = PassResult(False)
    nodes = sum(_join_expressions(scope, content, Names(model.graph), result) for scope in computing_scopes(model))
    owned: set[int] = set()
    weights = sum(_join_initializers(scope, content, owned) for scope in computing_scopes(model))
    result.stats = {k: v for k, v in (("expressions", nodes), ("initializers", weights)) if v}
    result.changed = bool(result.stats)
    return result


class _Content:
    """Keys of constants by what they hold: two have one key if and only if they hold the same bytes."""

    def __init__(self, model: Model, loose: frozenset[int]) -> None:
        self.loose = loose
        self.keys: dict[int, Hashable] = {}
        alike: dict[Hashable, list[Constant]] = {}
        for constant in model.constants():
            if id(constant) not in loose:
                alike.setdefault((str(constant.dtype), tuple(constant.shape)), []).append(constant)
        for group in alike.values():
            if len(group) == 1:  # only constants of one type and shape can be equal: one alone need not be read
                self.keys[id(group[0])] = ("one", id(group[0]))
            else:
                self._compare(group)

    def _compare(self, group: list[Constant]) -> None:
        """Give equal members of a group the key of the first of them; a sample tells most of the others apart."""
        found: dict[Hashable, list[tuple[Constant, Hashable]]] = {}
        for constant in group:
            known = found.setdefault(_sample(constant), [])
            same = next((key for one, key in known if _same_bytes(one, constant)), None)
            if same is None:
                same = ("first", id(constant))
                known.append((constant, same))
            self.keys[id(constant)] = same

    def key(self, tensor: Tensor) -> Hashable:
        """What stands for an input in a comparison."""
        return "" if tensor.is_empty() else self.keys.get(id(tensor), id(tensor))


def _sample(constant: Constant) -> Hashable:
    """Some of the numbers, as bytes; all of them where they are few or texts."""
    if constant.dtype.kind in "OUS":
        return digest(constant)
    flat = constant.values.reshape(-1)
    return bytes(flat[:: max(1, flat.size // 61)].tobytes())


def _same_bytes(a: Constant, b: Constant) -> bool:
    if a.dtype.kind in "OUS":
        return True  # the sample was all
    left, right = (np.ascontiguousarray(c.values).reshape(-1).view(np.uint8) for c in (a, b))
    return bool(np.array_equal(left, right))


def _join_expressions(scope: Graph, content: _Content, names: Names, result: PassResult) -> int:
    editor = Editor(scope, names)
    first: dict[Hashable, gs.Node] = {}
    count = 0
    for node in cast(Iterable[Node], scope.nodes):
        key = _expression(node, content)
        if key is None:
            continue
        kept = first.setdefault(key, node)
        if kept is node:
            continue
        why = _reason(node, kept, editor)
        if why is not None:
            result.declined(node.name or node.op, why)
            continue
        for old, new in zip(node.outputs, list(kept.outputs), strict=True):
            if not old.is_empty() and (old.outputs or editor.is_output(old)):
                editor.forward(old, new)
        discard(node)
        count += 1
    if count:
        sweep(scope)
    return count


def _expression(node: Node, content: _Content) -> Hashable | None:
    """A key that equal computations share; None for what must not be joined."""
    if node.op in RANDOM or not node.outputs or node.op == "Constant":
        return None
    attributes = []
    for name, value in sorted(node.attrs.items()):
        if isinstance(value, gs.Graph):
            return None
        attributes.append((name, _attribute(value)))
    known = node.standard or node.domain in ("ai.onnx.ml", "com.microsoft")
    if not known:
        return None  # nobody says that it gives the same value each time
    present = tuple(not t.is_empty() for t in node.outputs)
    return node.op, node.domain or "", tuple(attributes), tuple(content.key(t) for t in node.inputs), present


def _attribute(value: Any) -> Hashable:
    if isinstance(value, Constant):
        return str(value.dtype), tuple(value.shape), digest(value)
    if isinstance(value, onnx.AttributeProto):
        return bytes(value.SerializeToString(deterministic=True))
    return repr(value)


def _reason(node: gs.Node, kept: gs.Node, editor: Editor) -> str | None:
    """Why two equal nodes cannot become one, or None."""
    for old, new in zip(node.outputs, kept.outputs, strict=True):
        if editor.cannot_forward(old, new) is not None:
            return f"it equals '{kept.name or kept.op}', but both are outputs of the graph or of a body"
    return None


def _join_initializers(scope: Graph, content: _Content, owned: set[int]) -> int:
    """Join the equal initializers of one scope; `owned` are those of the scopes before it, and grows."""
    ends = {id(t) for t in (*scope.inputs, *scope.outputs)}
    first: dict[Hashable, Constant] = {}
    own: dict[int, Constant] = {id(c): c for c in scope.declared if isinstance(c, Constant) and c.outputs}
    for node in scope.nodes:
        own.update({id(t): t for t in node.inputs if isinstance(t, Constant)})
    own = {i: c for i, c in own.items() if i not in owned}
    owned.update(own)
    count = 0
    for constant in own.values():
        key = content.keys.get(id(constant))
        if key is None or id(constant) in ends or _belongs_to_layer(constant):
            continue
        kept = first.setdefault(key, constant)
        if kept is not constant:
            replace_uses(constant, kept)
            count += 1
    return count


def _belongs_to_layer(constant: Constant) -> bool:
    if len(constant.shape) != 1 or constant.size < 2 or np.dtype(constant.dtype).kind in "iub":
        return False
    for node in constant.outputs:
        since = _LAYER_VECTORS.get(node.op)
        if since is not None and any(t is constant for t in list(node.inputs)[since:]):
            return True
    return False
