"""ModelProto -> graph. Unlike onnx-graphsurgeon's importer it drops nothing and reads no weight."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import onnx
import onnx_graphsurgeon as gs
from onnx import AttributeProto, GraphProto, NodeProto, ValueInfoProto

from zc.errors import ZcError
from zc.ir.external import LazySparse, LazyTensor, dtype_of, inline_external
from zc.ir.garbage import without_gc
from zc.ir.graph import Constant, Function, Graph, Node, Tensor, TypedList, Variable, scopes


class Scope(dict[str, Tensor]):
    """The values of one scope by name; names that it has not are looked up in the scopes around it."""

    def __init__(self, around: "Scope | None" = None) -> None:
        super().__init__()
        self.around = around

    @staticmethod
    def of(tensor: Tensor) -> "Scope":
        """A scope of one value."""
        scope = Scope()
        scope[tensor.name] = tensor
        return scope

    def find(self, name: str) -> Tensor | None:
        """The value that a name stands for here."""
        scope: Scope | None = self
        while scope is not None:
            found = scope.get(name)
            if found is not None:
                return found
            scope = scope.around
        return None


def import_graph(model: onnx.ModelProto, folder: Path | None) -> Graph:
    """The graph of a model. `folder` is where external data may lie.

    ZcError for data that is missing or does not fit its shape, and for values that are defined twice.
    """
    imports = plain_imports(model.opset_import)
    reader = _Reader(folder, imports)
    with without_gc():
        graph = reader.graph(model.graph, None)
        functions = [reader.function(f) for f in model.functions]
        require_text(_strings(graph, *functions), "the graph")
        if len({f.unique_id for f in functions}) < len(functions):
            raise ZcError(f"two functions have the name '{_repeated('::'.join(f.unique_id) for f in functions)}'")
        graph.functions = functions
    graph.producer_name, graph.producer_version = model.producer_name, model.producer_version
    graph.ir_version = model.ir_version
    return graph


def plain_imports(imports: Iterable[onnx.OperatorSetIdProto]) -> list[onnx.OperatorSetIdProto]:
    """Operator sets, each once; `ai.onnx` is the long name of the default one."""
    versions: dict[str, int] = {}
    imports = list(imports)
    require_text((o.domain for o in imports), "the operator sets")
    for one in imports:
        domain = plain_domain(one.domain) or ""
        if not 0 <= one.version < 2**31:
            raise ZcError(f"operator set '{domain or 'ai.onnx'}' has no version {one.version}")
        if versions.setdefault(domain, one.version) != one.version:
            raise ZcError(f"operator set '{domain or 'ai.onnx'}' is imported in two versions")
    return [onnx.helper.make_opsetid(domain, version) for domain, version in versions.items()]


def plain_domain(domain: str) -> str | None:
    """A node's domain; None for ONNX's own."""
    return None if domain in {"", "ai.onnx"} else domain


UNUSED_OPSET = 17
"""Default operator set of a model that imports none: nothing in it says otherwise, and everybody runs it."""


def _default_opset(imports: Iterable[onnx.OperatorSetIdProto], otherwise: int) -> int:
    return next((o.version for o in imports if not o.domain), otherwise)


class _Reader:
    def __init__(
        self, folder: Path | None, imports: list[onnx.OperatorSetIdProto], otherwise: int = UNUSED_OPSET
    ) -> None:
        self.folder, self.imports, self.opset = folder, imports, _default_opset(imports, otherwise)

    def graph(self, proto: GraphProto, around: Scope | None) -> Graph:
        local = Scope(around)
        declared = [self.constant(t, local) for t in proto.initializer]
        declared += [self.sparse(t, local) for t in proto.sparse_initializer]
        inputs = [self.value(info, local, listed=True) for info in proto.input]
        if len({info.name for info in proto.input}) < len(inputs):
            raise ZcError(f"graph input '{_repeated(i.name for i in proto.input)}' is listed twice")
        made = self.made(proto.node, local)
        for info in proto.value_info:  # one that speaks of a value from outside would hide it
            if info.name in local:
                self.value(info, local)
        nodes = self.nodes(proto.node, made, local)
        outputs = [self.output(info, local) for info in proto.output]
        graph = Graph(
            nodes,
            inputs,
            outputs,
            name=proto.name,
            doc_string=proto.doc_string,
            opset=self.opset,
            import_domains=self.imports,
        )
        graph.declared = declared
        for constant in declared:
            if not constant.outputs:
                constant.spare = True
        graph.metadata = tuple((p.key, p.value) for p in proto.metadata_props)
        graph.quantization = tuple(proto.quantization_annotation)
        return graph

    def function(self, proto: onnx.FunctionProto) -> Function:
        local = Scope()
        local.update({name: Variable(name) for name in proto.input})
        inner = _Reader(self.folder, plain_imports(proto.opset_import), self.opset)
        made = inner.made(proto.node, local)
        for info in proto.value_info:
            if info.name in local:
                inner.value(info, local)
        nodes = inner.nodes(proto.node, made, local)
        attrs: dict[str, Any] = dict.fromkeys(proto.attribute)
        attrs.update({a.name: inner.attribute(a, local) for a in proto.attribute_proto})
        function = Function(
            proto.name,
            proto.domain,
            nodes=nodes,
            inputs=[local[name] for name in proto.input],
            outputs=[local.setdefault(name, Variable(name)) for name in proto.output],
            doc_string=proto.doc_string,
            opset=inner.opset,
            import_domains=inner.imports,
            attrs=attrs,
        )
        function.overload = proto.overload
        function.metadata = tuple((p.key, p.value) for p in proto.metadata_props)
        return function

    def made(self, protos: Iterable[NodeProto], local: Scope) -> list[list[Tensor]]:
        """The outputs of all nodes, before any input is looked up: an unsorted file has consumers before producers."""
        defined = set(local)
        result = []
        for proto in protos:
            outputs: list[Tensor] = []
            for name in proto.output:
                if name in defined:
                    what = "an initializer" if isinstance(local[name], Constant) else "a graph input or another node's"
                    raise ZcError(f"node '{proto.name or proto.op_type}': its output '{name}' is also {what}")
                tensor = Variable(name)
                if name:
                    defined.add(name)
                    local[name] = tensor
                outputs.append(tensor)
            result.append(outputs)
        return result

    def nodes(self, protos: Iterable[NodeProto], made: list[list[Tensor]], local: Scope) -> list[gs.Node]:
        return [self.node(proto, outputs, local) for proto, outputs in zip(protos, made, strict=True)]

    def node(self, proto: NodeProto, outputs: list[Tensor], local: Scope) -> Node:
        inputs: list[Tensor] = []
        for name in proto.input:
            tensor = (local.get(name) or local.find(name)) if name else Variable("")
            if tensor is None:  # nobody makes it: zc.ir.check names the node
                tensor = local[name] = Variable(name)
            inputs.append(tensor)
        node = Node(proto.op_type, proto.name, {}, inputs, outputs, plain_domain(proto.domain))
        for attr in proto.attribute:
            if attr.name in node.attrs:
                raise ZcError(f"node '{proto.name or proto.op_type}': attribute '{attr.name}' is given twice")
            node.attrs[attr.name] = self.attribute(attr, local)
            if attr.doc_string:
                node.attr_docs = (*node.attr_docs, (attr.name, attr.doc_string))
        if proto.doc_string:
            node.doc = proto.doc_string
        if proto.overload:
            node.overload = proto.overload
        if proto.metadata_props:
            node.metadata = tuple((p.key, p.value) for p in proto.metadata_props)
        return node

    def attribute(self, attr: AttributeProto, local: Scope) -> Any:
        """A plain value where there is one, else the AttributeProto itself (references, types, lists of tensors)."""
        kinds = AttributeProto
        if attr.ref_attr_name:
            return attr
        kind = attr.type or _type_of(attr)
        match kind:
            case kinds.FLOAT:
                return attr.f
            case kinds.INT:
                return attr.i
            case kinds.STRING:
                return _text(attr.s)
            case kinds.FLOATS | kinds.INTS | kinds.STRINGS:
                lists: dict[int, Any] = {kinds.FLOATS: attr.floats, kinds.INTS: attr.ints, kinds.STRINGS: attr.strings}
                items = lists[kind]
                if not items:
                    return TypedList(int(kind))
                return [_text(s) for s in items] if kind == kinds.STRINGS else list(items)
            case kinds.TENSOR:
                return self.tensor(attr.t)
            case kinds.GRAPH:
                return self.graph(attr.g, local)
            case kinds.GRAPHS if attr.graphs:
                return [self.graph(g, local) for g in attr.graphs]
            case _:
                return inline_external(attr, self.folder)

    def tensor(self, proto: onnx.TensorProto) -> Constant:
        constant = Constant(proto.name, LazyTensor(proto, self.folder))
        if proto.doc_string:
            constant.doc = proto.doc_string
        if proto.metadata_props:
            constant.metadata = tuple((p.key, p.value) for p in proto.metadata_props)
        return constant

    def constant(self, proto: onnx.TensorProto, local: Scope) -> Constant:
        if proto.name in local:
            raise ZcError(f"two initializers have the name '{proto.name}'")
        constant = local[proto.name] = self.tensor(proto)
        return constant

    def sparse(self, proto: onnx.SparseTensorProto, local: Scope) -> Constant:
        name = proto.values.name
        if name in local:
            raise ZcError(f"two initializers have the name '{name}'")
        constant = local[name] = Constant(name, LazySparse(inline_external(proto, self.folder)))
        return constant

    def output(self, info: ValueInfoProto, local: Scope) -> Tensor:
        """A graph output; a body may hand through a value of a scope around it."""
        outer = None if info.name in local else local.find(info.name)
        if outer is None:
            return self.value(info, local)
        if isinstance(outer, Variable) and outer.dtype is None and outer.info is None:
            self.value(info, Scope.of(outer))  # what the body says of it is all that is known
        return outer

    def value(self, info: ValueInfoProto, local: Scope, listed: bool = False) -> Tensor:
        """The value that a value_info speaks of. An initializer knows its type; it may be listed as an input."""
        tensor = local.get(info.name)
        if tensor is None:
            tensor = local[info.name] = Variable(info.name)
        if isinstance(tensor, Variable):
            kind = info.type.WhichOneof("value")
            if kind in ("tensor_type", "sparse_tensor_type"):
                part = getattr(info.type, kind)
                tensor.dtype = _dtype(info.name, part.elem_type) if part.elem_type else tensor.dtype
                if part.HasField("shape"):
                    tensor.shape = [_dim(d) for d in part.shape.dim]
            if kind is not None:
                tensor.type = kind
            tensor.info = info
        elif listed and isinstance(tensor, Constant):
            tensor.info = info
        return tensor


def require_text(strings: Iterable[Any], where: str) -> None:
    """ZcError when one is not UTF-8: protobuf hands such a string out as bytes, and takes it back from nobody."""
    for one in strings:
        if type(one) is not str:
            raise ZcError(f"not an ONNX model, or a damaged one: a name or text in {where} is not UTF-8: {one!r}")


def _strings(graph: Graph, *functions: Function) -> Iterator[Any]:
    """Every name and text that is written back as such."""
    for top in (graph, *functions):
        for scope in scopes(top):
            yield from (scope.name, scope.doc_string, *(s for pair in scope.metadata for s in pair))
            if isinstance(scope, Function):
                yield from (scope.domain, scope.overload, *scope.attrs)
            for constant in scope.declared:
                yield from (constant.doc, constant.name, *(s for pair in constant.metadata for s in pair))
            for tensor in (*scope.inputs, *scope.outputs):
                yield tensor.name
            for node in scope.nodes:
                yield from _node_strings(cast(Node, node))


def _node_strings(node: Node) -> Iterator[Any]:
    yield from (node.op, node.name, node.domain or "", node.doc, node.overload)
    yield from (t.name for t in node.inputs)
    yield from (t.name for t in node.outputs)
    for name, value in node.attrs.items():
        yield name
        if isinstance(value, Constant):
            yield from (value.name, value.doc, *(s for pair in value.metadata for s in pair))
    yield from (s for pairs in (node.metadata, node.attr_docs) for pair in pairs for s in pair)


def _dtype(name: str, elem_type: int) -> Any:
    try:
        return dtype_of(elem_type)
    except ZcError as err:
        raise ZcError(f"value '{name}': {err}") from err


def _repeated(names: Iterable[str]) -> str:
    seen: set[str] = set()
    return next((n for n in names if n in seen or seen.add(n)), "")  # type: ignore[func-returns-value]


def _type_of(attr: AttributeProto) -> int:
    """The type of an attribute that does not say it, as IR version 1 allowed."""
    for field, kind in _FIELDS.items():
        if attr.HasField(field) if field in "fistg" else len(getattr(attr, field)):
            return kind
    return AttributeProto.UNDEFINED


_FIELDS: dict[str, int] = {
    "f": AttributeProto.FLOAT,
    "i": AttributeProto.INT,
    "s": AttributeProto.STRING,
    "t": AttributeProto.TENSOR,
    "g": AttributeProto.GRAPH,
    "floats": AttributeProto.FLOATS,
    "ints": AttributeProto.INTS,
    "strings": AttributeProto.STRINGS,
    "tensors": AttributeProto.TENSORS,
    "graphs": AttributeProto.GRAPHS,
}


def _dim(dim: Any) -> int | str | None:
    match dim.WhichOneof("value"):
        case "dim_value":
            return int(dim.dim_value) if dim.dim_value >= 0 else None  # some exporters write -1 for "unknown"
        case "dim_param":
            return str(dim.dim_param) or None
    return None


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
