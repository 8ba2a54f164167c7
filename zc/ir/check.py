"""Is the graph a valid model? A table of rules, cheap enough to run after every pass, then onnx's own checker.

Each problem is one line that names the node, the value and what is wrong with it.
"""

import re
from collections import ChainMap, Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import onnx
import onnx_graphsurgeon as gs
from onnx import checker, defs, shape_inference

from zc.errors import ZcError, nearest
from zc.ir.adopt import adopt
from zc.ir.edit import needs, sort_nodes
from zc.ir.exporter import imports_of, initializers
from zc.ir.garbage import without_gc
from zc.ir.graph import Constant, Function, Graph, Node, Tensor, describe
from zc.ir.model import Model
from zc.ir.schema import NodeSchema, node_schema

MIN_OPSET = 7
"""Older operator sets leave broadcasting to attributes; onnxruntime does not promise to run them either."""

_STANDARD = frozenset(s.domain for s in defs.get_all_schemas())


@dataclass(frozen=True)
class Place:
    """One scope as the rules see it."""

    graph: Graph
    where: str
    """Which body or function this is, as a prefix of messages; empty for the main graph."""
    opsets: Mapping[str, int]
    functions: Mapping[tuple[str, str, str], Function]
    around: Mapping[str, Tensor]
    """The values of the scopes around it, by name."""
    declared: list[Constant]
    """The initializers that will be written into it."""
    own: dict[str, Tensor] = field(default_factory=dict)
    """The values of this scope, by name; the first where two share it."""

    def resolve(self, name: str) -> Tensor | None:
        """The value that a name stands for in this scope."""
        found = self.own.get(name)
        return self.around.get(name) if found is None else found


def problems(model: Model) -> list[str]:
    """Everything that makes the model invalid, one line each; empty when it is valid.

    The cost does not depend on the size of the weights. onnx's own checker and its shape inference have their say only
    when the rules find nothing, as one cause would show up many times.
    """
    with without_gc():
        adopt(model.graph)
        return _problems(model)


def _problems(model: Model) -> list[str]:
    places = list(_places(model))
    found = [line for rule in MODEL_RULES for line in rule(model)]
    for place in places:
        for rule in RULES:
            found.extend(place.where + line for line in rule(place))
    return found or _by_onnx(model)


def check(model: Model) -> None:
    """ZcError with the first problem of the model, and how many more there are."""
    found = problems(model)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ZcError(f"{model.name}: {found[0]}{more}")


# ---- the scopes


def _functions(model: Model) -> dict[tuple[str, str, str], Function]:
    return {(f.domain, f.name, cast(Function, f).overload): cast(Function, f) for f in model.graph.functions}


def _places(model: Model) -> Iterator[Place]:
    functions = _functions(model)
    yield from _with_bodies(model.graph, "", model.opsets, functions, ChainMap(), frozenset())
    for function in functions.values():
        where = f"function '{function.domain}::{function.name}': "
        opsets = {o.domain: o.version for o in imports_of(function)}
        yield from _with_bodies(function, where, opsets, functions, ChainMap(), frozenset())


def _with_bodies(
    graph: Graph,
    where: str,
    opsets: Mapping[str, int],
    functions: Mapping[tuple[str, str, str], Function],
    around: "ChainMap[str, Tensor]",
    visible: frozenset[int],
) -> Iterator[Place]:
    declared = initializers(graph, set(visible))
    place = Place(graph, where, opsets, functions, around, declared)
    for tensor in _definitions(place):
        place.own.setdefault(tensor.name, tensor)
    yield place
    inner: ChainMap[str, Tensor] | None = None
    for node in graph.nodes:
        for name, body in _bodies(node) if node.attrs else ():
            if inner is None:
                inner, visible = around.new_child(place.own), visible | {id(c) for c in declared}
            inside = f"{where}body '{name}' of node '{describe(node)}': "
            yield from _with_bodies(body, inside, opsets, functions, inner, visible)


def _bodies(node: gs.Node) -> Iterator[tuple[str, Graph]]:
    for name, value in node.attrs.items():
        for one in value if type(value) is list else (value,):
            if isinstance(one, Graph):
                yield name, one


def _definitions(place: Place) -> Iterator[Tensor]:
    """Every value that this scope defines, repeated where it does so twice."""
    yield from place.graph.inputs
    listed = {id(t) for t in place.graph.inputs}
    yield from (c for c in place.declared if id(c) not in listed)
    for node in place.graph.nodes:
        yield from (t for t in node.outputs if t.name)


# ---- rules of one scope


def _named(place: Place) -> Iterator[str]:
    """Everything that is read by name has one."""
    for kind, tensors in (("input", place.graph.inputs), ("output", place.graph.outputs)):
        if any(not t.name for t in tensors):
            yield f"a graph {kind} has no name"
    for node in place.graph.nodes:
        if not node.op:
            yield f"node '{describe(node)}' has no operator"
        for tensor in node.inputs:
            if not tensor.name and (tensor.inputs or isinstance(tensor, gs.Constant)):
                yield f"node '{describe(node)}': an input has a value but no name"


def _single_assignment(place: Place) -> Iterator[str]:
    """A name stands for one value (onnx/docs/IR.md, "Names Within a Graph")."""
    seen: dict[str, Tensor] = {}
    for tensor in _definitions(place):
        name = tensor.name
        if not name:
            continue
        if name in seen:
            yield f"value '{name}' is defined more than once"
        elif tensor.inputs and not isinstance(tensor, gs.Constant) and name in place.around:
            yield f"node '{describe(tensor.inputs[0])}': output '{name}' hides a value of that name around it"
        if tensor.inputs and isinstance(tensor, gs.Constant):
            yield f"node '{describe(tensor.inputs[0])}': output '{name}' is an initializer"
        seen[name] = tensor


def _defined(place: Place) -> Iterator[str]:
    """What is read exists, and is what its name stands for."""

    def trouble(tensor: Tensor) -> str | None:
        meant = place.resolve(tensor.name)
        if meant is tensor:
            return None
        if meant is None:
            return f"'{tensor.name}' is not defined: no node writes it and it is no graph input or initializer"
        return f"'{tensor.name}' is not the value that has this name here: two values share it"

    for node in place.graph.nodes:
        for tensor in node.inputs:
            if tensor.name and (line := trouble(tensor)):
                yield f"node '{describe(node)}': input {line}"
    for tensor in place.graph.outputs:
        if tensor.name and (line := trouble(tensor)):
            yield f"graph output {line}"


def _ordered(place: Place) -> Iterator[str]:
    """Nodes stand after what they need."""
    at = {id(node): i for i, node in enumerate(place.graph.nodes)}
    for i, node in enumerate(place.graph.nodes):
        for tensor in needs(node) if node.attrs else node.inputs:
            if any(at.get(id(p), -1) >= i for p in tensor.inputs):
                try:  # on a list of its own: looking must not change the graph
                    sort_nodes(_shell(place.graph))
                except ZcError as err:
                    yield str(err)
                else:
                    yield f"node '{describe(node)}' stands before the node that makes its input '{tensor.name}'"
                return


def _shell(graph: Graph) -> Graph:
    shell = Graph(name=graph.name)
    shell.nodes = list(graph.nodes)
    return shell


def _operators(place: Place) -> Iterator[str]:
    """Operators exist in the operator set, and have the inputs, outputs and attributes that it says."""
    for node in place.graph.nodes:
        own = cast(Node, node)
        domain = own.domain or ""
        called = place.functions.get((domain, own.op, own.overload))
        if called is not None:
            yield from _call(own, called)
        elif domain in _STANDARD:
            version = place.opsets.get(domain, 1)
            schema = node_schema(own.op, version, domain)
            if isinstance(schema, str):
                yield f"node '{describe(node)}': {schema}"
            else:
                yield from _signature(own, schema)


def _signature(node: Node, schema: NodeSchema) -> Iterator[str]:
    what = f"node '{describe(node)}': {node.op}"
    for kind, tensors, low, high, required in (
        ("input", node.inputs, schema.min_inputs, schema.max_inputs, schema.required_inputs),
        ("output", node.outputs, schema.min_outputs, schema.max_outputs, schema.required_outputs),
    ):
        count = len(tensors)
        if not low <= count <= high:
            wanted = f"{low}" if low == high else f"at least {low}" if count < low else f"at most {high}"
            yield f"{what} has {count} {kind}s, it takes {wanted}"
            continue
        for i in required:
            if i < count and not tensors[i].name:
                yield f"{what} lacks its {kind} {i}"
    missing = schema.required_attributes - node.attrs.keys()
    if missing:
        yield f"{what} lacks its attribute '{min(missing)}'"
    unknown = node.attrs.keys() - schema.attributes
    if unknown:
        name = min(unknown)
        yield f"{what} has no attribute '{name}'{nearest(name, sorted(schema.attributes))}"


def _call(node: Node, function: Function) -> Iterator[str]:
    what = f"node '{describe(node)}': function '{function.domain}::{function.name}'"
    for kind, given, most in (("input", node.inputs, function.inputs), ("output", node.outputs, function.outputs)):
        if len(given) > len(most):
            yield f"{what} is given {len(given)} {kind}s and has {len(most)}"
    unknown = node.attrs.keys() - function.attrs.keys()
    if unknown:
        yield f"{what} has no attribute '{min(unknown)}'{nearest(min(unknown), sorted(function.attrs))}"


RULES: tuple[Callable[[Place], Iterable[str]], ...] = (
    _named,
    _single_assignment,
    _defined,
    _ordered,
    _operators,
)
"""Rules that look at one scope at a time."""


# ---- rules of the model


def _supported(model: Model) -> Iterator[str]:
    """The operator sets are known to the installed onnx."""
    newest = defs.onnx_opset_version()
    versions = {"": model.opset}
    versions.update({f"function {f.name}": int(f.opset) for f in model.graph.functions if f.opset})
    for version in sorted(set(versions.values())):
        if version > newest:
            yield f"operator set {version} is not known to the installed onnx {onnx.__version__} (up to {newest})"
        elif version < MIN_OPSET:
            yield f"operator set {version} is not supported; convert the model to {MIN_OPSET} or later first"


def _linked(model: Model) -> Iterator[str]:
    """Edges are known at both ends, and every node on one is in the graph. One look at each edge."""
    nodes = [node for scope in model.scopes() for node in scope.nodes]
    owned = {id(n) for n in nodes}
    if len(owned) < len(nodes):
        twice = next(id_ for id_, count in Counter(id(n) for n in nodes).items() if count > 1)
        yield f"node '{describe(next(n for n in nodes if id(n) == twice))}' is listed twice"
        return
    tensors: dict[int, Tensor] = {}
    reads: Counter[int] = Counter()
    writes: Counter[int] = Counter()
    for node in nodes:
        for tensor in node.inputs:
            tensors[id(tensor)] = tensor
            reads[id(tensor)] += 1
        for tensor in node.outputs:
            tensors[id(tensor)] = tensor
            writes[id(tensor)] += 1
    for key, tensor in tensors.items():
        for ends, count, verb in ((tensor.outputs, reads[key], "read"), (tensor.inputs, writes[key], "written")):
            if len(ends) == count:
                continue
            stray = next((n for n in ends if id(n) not in owned), None)
            if stray is not None:
                yield f"value '{tensor.name}' is {verb} by node '{describe(stray)}', which is in no graph"
            else:
                yield f"value '{tensor.name}': {len(ends)} nodes are noted where it is {verb} by {count}"


def _constants(model: Model) -> Iterator[str]:
    """Weights are arrays of a type that ONNX has."""
    from zc.ir.external import elem_type_of

    for constant in model.constants():
        try:
            elem_type_of(constant.dtype)
        except (ZcError, TypeError) as err:
            yield f"initializer '{constant.name}': {err}"


MODEL_RULES: tuple[Callable[[Model], Iterable[str]], ...] = (_supported, _linked, _constants)
"""Rules that look at the whole."""


# ---- onnx's own opinion


def _by_onnx(model: Model) -> list[str]:
    """What onnx's checker and its strict shape inference say of the model without its big weights."""
    try:
        proto = model.to_proto(skeleton=True)
    except ZcError as err:
        return [str(err)]
    found = []
    try:
        shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    except Exception as err:  # onnx raises several unrelated types
        if not _in_its_own_function(str(err)):
            found.append(one_line(err))
    for value in (*proto.graph.input, *proto.graph.output):
        _give_shape(value.type)  # an unknown rank is fine with everybody but the checker
    try:
        checker.check_model(proto)
    except Exception as err:  # as above
        found.append(one_line(err))
    return found


def _in_its_own_function(message: str) -> bool:
    """Is it about the body that onnx itself gives an operator? (MeanVarianceNormalization's fails in onnx 1.23.)"""
    ops = re.findall(r"op_type:\s*([^,)\s]+)", message)
    schema: Any = defs.get_schema(ops[0]) if len(ops) > 1 and defs.has(ops[0]) else None
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def _give_shape(kind: onnx.TypeProto) -> None:
    match kind.WhichOneof("value"):
        case "tensor_type":
            kind.tensor_type.shape.SetInParent()
        case "sparse_tensor_type":
            kind.sparse_tensor_type.shape.SetInParent()
        case "sequence_type":
            _give_shape(kind.sequence_type.elem_type)
        case "optional_type":
            _give_shape(kind.optional_type.elem_type)
        case "map_type":
            _give_shape(kind.map_type.value_type)


def one_line(err: Exception) -> str:
    """A message of onnx without the C++ around it."""
    lines = [line.strip() for line in str(err).splitlines()]
    kept = [line for line in lines if line and not line.startswith(("==> Context:", "Traceback"))]
    context = [line.removeprefix("==> Context:").strip() for line in lines if line.startswith("==> Context:")]
    return " ".join(kept + [f"({c})" for c in context])[:400]
