"""ModelProto -> graph. Unlike onnx-graphsurgeon's importer it drops nothing and reads no weight."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx
import onnx_graphsurgeon as gs
from onnx import AttributeProto, GraphProto, NodeProto, ValueInfoProto

from zc.errors import ZcError
from zc.ir.external import LazySparse, LazyTensor, dtype_of
from zc.ir.graph import Constant, Function, Graph, Node, Tensor, Variable

Scope = dict[str, Tensor]


class TypedList(list[Any]):
    """An empty list attribute: it remembers of what."""

    def __init__(self, kind: int) -> None:
        super().__init__()
        self.kind = kind


def import_graph(model: onnx.ModelProto, folder: Path | None) -> Graph:
    """The graph of a model. `folder` is where external data may lie. ZcError for data that is missing or does not fit."""
    opset = _default_opset(model.opset_import)
    reader = _Reader(folder, opset, model.opset_import)
    graph = reader.graph(model.graph, {})
    graph.producer_name, graph.producer_version = model.producer_name, model.producer_version
    graph.ir_version = model.ir_version
    graph.functions = [reader.function(f) for f in model.functions]
    return graph


def _default_opset(imports: Iterable[onnx.OperatorSetIdProto]) -> int:
    return next((o.version for o in imports if o.domain in ("", "ai.onnx")), 1)


class _Reader:
    def __init__(self, folder: Path | None, opset: int, imports: Any) -> None:
        self.folder, self.opset, self.imports = folder, opset, imports

    def graph(self, proto: GraphProto, outer: Scope) -> Graph:
        local: Scope = {}
        declared = [self.constant(t, local) for t in proto.initializer]
        for sparse in proto.sparse_initializer:
            name = sparse.values.name
            local[name] = constant = Constant(name, LazySparse(sparse))
            declared.append(constant)
        for info in proto.value_info:
            self.value(info, local)
        inputs = [self.value(info, local) for info in proto.input]
        # An output may be a value of the scope around (a body that hands it through): then it is that value.
        made = {name for node in proto.node for name in node.output}
        outputs = [
            outer[info.name]
            if info.name in outer and info.name not in local and info.name not in made
            else self.value(info, local)
            for info in proto.output
        ]
        graph = Graph(
            self.nodes(proto.node, local, outer),
            inputs,
            outputs,
            name=proto.name,
            doc_string=proto.doc_string,
            opset=self.opset,
            import_domains=self.imports,
        )
        graph.declared = declared
        graph.metadata = tuple((p.key, p.value) for p in proto.metadata_props)
        graph.quantization = tuple(proto.quantization_annotation)
        return graph

    def function(self, proto: onnx.FunctionProto) -> Function:
        local: Scope = {name: Variable(name) for name in proto.input}
        inner = _Reader(self.folder, _default_opset(proto.opset_import) or self.opset, proto.opset_import)
        for info in proto.value_info:
            inner.value(info, local)
        nodes = inner.nodes(proto.node, local, {})
        attrs: dict[str, Any] = dict.fromkeys(proto.attribute)
        attrs.update({a.name: inner.attribute(a, local, {}) for a in proto.attribute_proto})
        function = Function(
            proto.name,
            proto.domain,
            nodes=nodes,
            inputs=[local[name] for name in proto.input],
            outputs=[local.setdefault(name, Variable(name)) for name in proto.output],
            doc_string=proto.doc_string,
            opset=inner.opset,
            import_domains=proto.opset_import,
            attrs=attrs,
        )
        function.overload = proto.overload
        function.metadata = tuple((p.key, p.value) for p in proto.metadata_props)
        return function

    def nodes(self, protos: Iterable[NodeProto], local: Scope, outer: Scope) -> list[gs.Node]:
        # Outputs first: a node may stand before its producer in an unsorted file.
        protos = list(protos)
        made = [[self.made(name, local) for name in proto.output] for proto in protos]
        return [self.node(proto, outputs, local, outer) for proto, outputs in zip(protos, made, strict=True)]

    def made(self, name: str, local: Scope) -> Tensor:
        if not name:
            return Variable("")
        tensor = local.get(name)
        if tensor is None:
            tensor = local[name] = Variable(name)
        if tensor.inputs:
            raise ZcError(f"value '{name}' is written by two nodes")
        return tensor

    def node(self, proto: NodeProto, outputs: list[Tensor], local: Scope, outer: Scope) -> Node:
        inputs: list[Tensor] = []
        for name in proto.input:
            tensor = local.get(name) or outer.get(name) if name else Variable("")
            if tensor is None:  # nobody makes it: zc.ir.check names the node
                tensor = local[name] = Variable(name)
            inputs.append(tensor)
        attrs = {a.name: self.attribute(a, local, outer) for a in proto.attribute}
        node = Node(proto.op_type, proto.name, attrs, inputs, outputs, proto.domain or None)
        node.doc, node.overload = proto.doc_string, proto.overload
        node.metadata = tuple((p.key, p.value) for p in proto.metadata_props)
        return node

    def attribute(self, attr: AttributeProto, local: Scope, outer: Scope) -> Any:
        """A plain value where there is one, else the AttributeProto itself (references, types, lists of tensors)."""
        kinds = AttributeProto
        if attr.ref_attr_name or attr.doc_string:
            return attr
        match attr.type:
            case kinds.FLOAT:
                return attr.f
            case kinds.INT:
                return attr.i
            case kinds.STRING:
                return _text(attr.s)
            case kinds.FLOATS | kinds.INTS | kinds.STRINGS:
                items: Any = {kinds.FLOATS: attr.floats, kinds.INTS: attr.ints, kinds.STRINGS: attr.strings}[attr.type]
                if not items:
                    return TypedList(attr.type)
                return [_text(s) for s in items] if attr.type == kinds.STRINGS else list(items)
            case kinds.TENSOR:
                return Constant(attr.t.name, LazyTensor(attr.t, self.folder))
            case kinds.GRAPH:
                return self.graph(attr.g, {**outer, **local})
            case _:
                return attr

    def constant(self, proto: onnx.TensorProto, local: Scope) -> Constant:
        if proto.name in local:
            raise ZcError(f"two initializers have the name '{proto.name}'")
        constant = Constant(proto.name, LazyTensor(proto, self.folder))
        constant.doc = proto.doc_string
        constant.metadata = tuple((p.key, p.value) for p in proto.metadata_props)
        local[proto.name] = constant
        return constant

    def value(self, info: ValueInfoProto, local: Scope) -> Tensor:
        """The value that a value_info speaks of. One that repeats an initializer adds nothing but may list it as an input."""
        tensor = local.get(info.name)
        if tensor is None:
            tensor = local[info.name] = Variable(info.name)
        if isinstance(tensor, Variable):
            kind = info.type.WhichOneof("value")
            if kind in ("tensor_type", "sparse_tensor_type"):
                part = getattr(info.type, kind)
                tensor.dtype = dtype_of(part.elem_type) if part.elem_type else tensor.dtype
                if part.HasField("shape"):
                    tensor.shape = [_dim(d) for d in part.shape.dim]
            if kind is not None:
                tensor.type = kind
            tensor.info = info
        return tensor


def _dim(dim: Any) -> int | str | None:
    match dim.WhichOneof("value"):
        case "dim_value":
            return int(dim.dim_value)
        case "dim_param":
            return str(dim.dim_param) or None
    return None


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
