"""ModelProto -> text in ONNX's own grammar (onnx/defs/parser.cc), one line a node, initializer and value.

ONNX's printer drops node metadata silently, writes `...` for some tensors, and puts all initializers on one line.
This one is canonical (attributes sorted, initializers in the order of their first use) and keeps account of what the
grammar has no words for.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto

from zc.ir.literals import (
    TYPE_NAMES,
    dims_text,
    float_literal,
    is_identifier,
    is_plain,
    name,
    quoted,
    string_text,
    tensor_literal,
)

_KIND = {v: k.lower() for k, v in AttributeProto.AttributeType.items()}
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\Z", re.ASCII)


@dataclass
class Gaps:
    """What the text does not say."""

    unsayable: list[str] = field(default_factory=list)
    """Parts of the computation that the grammar has no words for, each with its place."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Documentation that the grammar has no place for: how many of each kind."""

    def __str__(self) -> str:
        return ", ".join(f"{n} {what}" for what, n in sorted(self.left_out.items()))


class Printer:
    """Prints one model; `gaps` fills on the way."""

    def __init__(self) -> None:
        self.gaps = Gaps()

    def model(self, proto: ModelProto) -> str:
        """The whole model. Metadata and operator sets are sorted."""
        entries = [f"ir_version: {proto.ir_version}", f"opset_import: {_opsets(proto.opset_import)}"]
        for key in ("producer_name", "producer_version", "domain"):
            if getattr(proto, key):
                entries.append(f"{key}: {quoted(getattr(proto, key))}")
        if proto.model_version:
            entries.append(f"model_version: {proto.model_version}")
        if proto.doc_string:
            entries.append(f"doc_string: {quoted(proto.doc_string)}")
        if proto.metadata_props:
            pairs = sorted((p.key, p.value) for p in proto.metadata_props)
            entries.append("metadata_props: [" + ", ".join(f"{quoted(k)}: {quoted(v)}" for k, v in pairs) + "]")
        if proto.training_info:
            self.gaps.unsayable.append("training_info")
        lines = [*_header(entries), *self.graph(proto.graph, name(proto.graph.name))]
        for function in proto.functions:
            lines += ["", *self.function(function)]
        if any("\0" in line for line in lines):
            self.gaps.unsayable.append("a name or string with a NUL character")
        return "\n".join([*self._account(), *lines]) + "\n"

    def _account(self) -> Iterator[str]:
        for what in self.gaps.unsayable[:5]:
            yield f"# ONNX text cannot say: {_one_line(what)}"
        if len(self.gaps.unsayable) > 5:
            yield f"# ONNX text cannot say: {len(self.gaps.unsayable) - 5} more"

    # ---- graphs and functions

    def graph(self, graph: GraphProto, title: str) -> list[str]:
        """A graph or a body; the first line starts with its name."""
        self._leave_out("graph doc strings", bool(graph.doc_string))
        self._leave_out("graph metadata entries", len(graph.metadata_props))
        for annotation in graph.quantization_annotation:
            self.gaps.unsayable.append(f"quantization annotation of '{annotation.tensor_name}'")
        inputs = ", ".join(self.value(v) for v in graph.input)
        outputs = ", ".join(self.value(v) for v in graph.output)
        lines = [f"{title} ({inputs}) => ({outputs})"]
        entries = [self.initializer(t) for t in _by_first_use(graph)]
        entries += [(self.value(v), "") for v in graph.value_info]
        comments = [self._sparse(s) for s in graph.sparse_initializer]
        return lines + _block("<", entries, comments, ">") + self._body(graph.node)

    def function(self, function: FunctionProto) -> list[str]:
        """One function of the model."""
        self._leave_out("function metadata entries", len(function.metadata_props))
        entries = [f"domain: {quoted(function.domain)}", f"opset_import: {_opsets(function.opset_import)}"]
        if function.overload:
            entries.append(f"overload: {quoted(function.overload)}")
        if function.doc_string:
            entries.append(f"doc_string: {quoted(function.doc_string)}")
        attributes = [name(a) for a in sorted(function.attribute)]
        where = f"function '{function.name}'"
        for attr in sorted(function.attribute_proto, key=lambda a: a.name):
            attributes.append("\n".join(self.attribute(attr, where)))
        shown = f" <{', '.join(attributes)}>" if attributes else ""
        inputs, outputs = (", ".join(map(name, part)) for part in (function.input, function.output))
        lines = [*_header(entries), f"{name(function.name)}{shown} ({inputs}) => ({outputs})"]
        entries_of_values = [(self.value(v), "") for v in function.value_info]
        return lines + _block("<", entries_of_values, [], ">") + self._body(function.node)

    def _body(self, nodes: Iterable[NodeProto]) -> list[str]:
        return ["{", *("  " + line for node in nodes for line in self.node(node)), "}"]

    def initializer(self, tensor: TensorProto) -> tuple[str, str]:
        """An initializer, and the comment after it."""
        self._documentation(tensor)
        data, comment = self.data(tensor, f"initializer '{tensor.name}'")
        return f"{_type_name(tensor.data_type)}{dims_text(tensor.dims)} {name(tensor.name)} = {data}", comment

    def data(self, tensor: TensorProto, where: str) -> tuple[str, str]:
        """A tensor's data: literally, or where it lies."""
        if tensor.data_location == TensorProto.EXTERNAL:
            entries = ", ".join(f"{quoted(e.key)}: {quoted(e.value)}" for e in tensor.external_data)
            return f"[{entries}]", ""
        if not all(string_text(s)[1] for s in tensor.string_data):
            self.gaps.unsayable.append(f"{where}: a string that is not UTF-8")
        return tensor_literal(tensor)

    def _sparse(self, sparse: onnx.SparseTensorProto) -> str:
        values = sparse.values
        self.gaps.unsayable.append(f"initializer '{values.name}': it is sparse")
        return (
            f"# sparse {_type_name(values.data_type)}{dims_text(sparse.dims)} {_one_line(name(values.name))}: "
            f"{values.dims[0] if values.dims else 0} values"
        )

    # ---- values and types

    def value(self, info: onnx.ValueInfoProto) -> str:
        """Type, shape and name of a value; the name alone where nothing is known."""
        self._leave_out("value doc strings", bool(info.doc_string))
        self._leave_out("value metadata entries", len(info.metadata_props))
        try:
            kind = self.type(info.type)
        except _NoWordsError as err:
            if str(err):
                self.gaps.left_out[str(err)] += 1
            kind = ""
        return f"{kind} {name(info.name)}".lstrip()

    def type(self, proto: TypeProto) -> str:
        """A type, as in `float[N,3,?]` or `seq(int64)`. _NoWordsError if text cannot say it (empty: there is none)."""
        self._leave_out("type denotations", bool(proto.denotation))
        match proto.WhichOneof("value"):
            case "tensor_type":
                return self._tensor_type(proto.tensor_type)
            case "sparse_tensor_type":
                return f"sparse_tensor({self._tensor_type(proto.sparse_tensor_type)})"
            case "sequence_type":
                return f"seq({self._inner(proto.sequence_type.elem_type)})"
            case "optional_type":
                return f"optional({self._inner(proto.optional_type.elem_type)})"
            case "map_type":
                return f"map({_type_name(proto.map_type.key_type)}, {self._inner(proto.map_type.value_type)})"
            case "opaque_type":
                return _opaque(proto.opaque_type)
        raise _NoWordsError("")

    def _inner(self, proto: TypeProto) -> str:
        if proto.WhichOneof("value") is None:
            raise _NoWordsError("container types without an element type")
        return self.type(proto)

    def _tensor_type(self, proto: Any) -> str:
        if proto.elem_type not in TYPE_NAMES:
            raise _NoWordsError("shapes of values of unknown type" if proto.HasField("shape") else "")
        if not proto.HasField("shape"):
            return TYPE_NAMES[proto.elem_type] + "[]"
        dims = []
        for dim in proto.shape.dim:
            self._leave_out("dimension denotations", bool(dim.denotation))
            which = dim.WhichOneof("value")
            symbol = name(dim.dim_param) if which == "dim_param" and dim.dim_param else "?"
            dims.append(str(dim.dim_value) if which == "dim_value" else symbol)
        return TYPE_NAMES[proto.elem_type] + (f"[{','.join(dims)}]" if dims else "")

    # ---- nodes and attributes

    def node(self, node: NodeProto) -> list[str]:
        """`[name] outputs = Op <attributes> (inputs)`; attributes follow the inputs where bodies are among them."""
        where = f"node '{node.name or ', '.join(node.output)}'"
        self._documentation(node)
        for what, text, fits in (
            ("operator", node.op_type, is_identifier(node.op_type)),
            ("domain", node.domain, not node.domain or _DOTTED.match(node.domain)),
            ("overload", node.overload, not node.overload or is_identifier(node.overload)),
        ):
            if not fits:
                self.gaps.unsayable.append(f"{where}: {what} '{text}' is no identifier")
        title = f"[{name(node.name)}] " if node.name else ""
        outputs = ", ".join(map(name, node.output))
        op = (f"{node.domain}." if node.domain else "") + node.op_type + (f":{node.overload}" if node.overload else "")
        inputs = f"({', '.join(map(name, node.input))})"
        call = f"{title}{outputs}{' ' if outputs else ''}= {op}"
        attributes = [self.attribute(a, where) for a in sorted(node.attribute, key=lambda a: a.name)]
        if not attributes:
            return [f"{call} {inputs}"]
        if all(len(lines) == 1 for lines in attributes):
            return [f"{call} <{', '.join(lines[0] for lines in attributes)}> {inputs}"]
        result = [f"{call} {inputs} <"]
        for i, lines in enumerate(attributes):
            end = "," if i + 1 < len(attributes) else ""
            result += ["  " + line for line in [*lines[:-1], lines[-1] + end]]
        return [*result, ">"]

    def attribute(self, attr: AttributeProto, where: str) -> list[str]:
        """`name = value`, with the kind where the value alone does not tell it. Several lines for a body."""
        self._leave_out("attribute doc strings", bool(attr.doc_string))
        place = f"{where}: attribute '{attr.name}'"
        if not is_identifier(attr.name):
            self.gaps.unsayable.append(f"{place}: its name is no identifier")
        kind = _KIND.get(attr.type, "undefined")
        if attr.ref_attr_name:
            return [f"{attr.name}: {kind} = @{name(attr.ref_attr_name)}"]
        if attr.type == AttributeProto.GRAPH:
            lines = self.graph(attr.g, self._body_name(attr.g))
            return [f"{attr.name} = {lines[0]}", *("  " + line for line in lines[1:])]
        value = self._value(attr, place)
        return [f"{attr.name}: {kind} = []" if value == "[]" else f"{attr.name} = {value}"]

    def _value(self, attr: AttributeProto, place: str) -> str:
        match attr.type:
            case AttributeProto.FLOAT:
                return float_literal(attr.f)
            case AttributeProto.INT:
                return str(attr.i)
            case AttributeProto.STRING:
                return self._string(attr.s, place)
            case AttributeProto.FLOATS:
                return "[" + ", ".join(map(float_literal, attr.floats)) + "]"
            case AttributeProto.INTS:
                return "[" + ", ".join(map(str, attr.ints)) + "]"
            case AttributeProto.STRINGS:
                return "[" + ", ".join(self._string(s, place) for s in attr.strings) + "]"
            case AttributeProto.TENSOR:
                return self._tensor(attr.t, place)
            case AttributeProto.TYPE_PROTO:
                return self._type_value(attr.tp, place)
        return self._list_without_words(attr, place)

    def _list_without_words(self, attr: AttributeProto, place: str) -> str:
        """Lists of tensors, graphs and types, and sparse tensors: the parser takes the empty lists alone."""
        kind = _KIND.get(attr.type, "undefined")
        count = sum(len(v) for v in (attr.tensors, attr.graphs, attr.type_protos, attr.sparse_tensors))
        if kind.endswith("s") and not count:
            return "[]"
        self.gaps.unsayable.append(f"{place} of kind {kind}")
        match attr.type:
            case AttributeProto.TENSORS:
                return "[" + ", ".join(self._tensor(t, place) for t in attr.tensors) + "]"
            case AttributeProto.TYPE_PROTOS:
                return "[" + ", ".join(self._type_value(t, place) for t in attr.type_protos) + "]"
            case AttributeProto.GRAPHS:
                return "[" + " ".join(_one_line(" ".join(self.graph(g, self._body_name(g)))) for g in attr.graphs) + "]"
            case AttributeProto.SPARSE_TENSOR:
                sparse = attr.sparse_tensor
                return f"sparse_tensor({_type_name(sparse.values.data_type)}{dims_text(sparse.dims)})"
        return f"{kind}({count})"

    def _string(self, raw: bytes, place: str) -> str:
        text, exact = string_text(raw)
        if not exact:
            self.gaps.unsayable.append(f"{place}: a string that is not UTF-8")
        return text

    def _tensor(self, tensor: TensorProto, place: str) -> str:
        self._documentation(tensor)
        data, _ = self.data(tensor, place)
        title = tensor.name
        if title and not is_identifier(title):  # quoted, it would be read as a type
            self.gaps.left_out["names of tensors in attributes"] += 1
            title = ""
        parts = [f"{_type_name(tensor.data_type)}{dims_text(tensor.dims)}", title, "=" if data[0] == "[" else "", data]
        return " ".join(p for p in parts if p)

    def _type_value(self, proto: TypeProto, place: str) -> str:
        try:
            return self.type(proto)
        except _NoWordsError:
            self.gaps.unsayable.append(f"{place}: a type that is not known")
            return "undefined"

    def _body_name(self, graph: GraphProto) -> str:
        """A body's name must be an identifier; it has no meaning, so another one does."""
        if is_plain(graph.name) and graph.name.lower() not in ("nan", "inf", "infinity"):
            return graph.name
        self.gaps.left_out["names of bodies"] += 1
        return "body"

    def _leave_out(self, what: str, count: int) -> None:
        if count:
            self.gaps.left_out[what] += count

    def _documentation(self, proto: NodeProto | TensorProto) -> None:
        kind = "node" if isinstance(proto, NodeProto) else "tensor"
        self._leave_out(f"{kind} doc strings", bool(proto.doc_string))
        self._leave_out(f"{kind} metadata entries", len(proto.metadata_props))


class _NoWordsError(Exception):
    """A type that the grammar cannot say; the message names its kind."""


def _opaque(proto: TypeProto.Opaque) -> str:
    if not (is_identifier(proto.name) and (not proto.domain or _DOTTED.match(proto.domain))):
        raise _NoWordsError("opaque types")
    return f"opaque({proto.domain},{proto.name})" if proto.domain else f"opaque({proto.name})"


def _type_name(elem_type: int) -> str:
    return TYPE_NAMES.get(elem_type, "undefined")


def _opsets(opsets: Iterable[onnx.OperatorSetIdProto]) -> str:
    pairs = sorted((o.domain, o.version) for o in opsets)
    return "[" + ", ".join(f"{quoted(domain)}: {version}" for domain, version in pairs) + "]"


def _header(entries: list[str]) -> list[str]:
    return _block("<", [(e, "") for e in entries], [], ">")


def _block(start: str, entries: list[tuple[str, str]], comments: list[str], end: str) -> list[str]:
    """Entries on lines of their own, with commas between them and comments behind them."""
    if not entries:
        return comments
    lines = []
    for i, (entry, comment) in enumerate(entries):
        comma = "," if i + 1 < len(entries) else ""
        lines.append(f"  {entry}{comma}{'  # ' + comment if comment else ''}")
    return [start, *lines, *("  " + c for c in comments), end]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _by_first_use(graph: GraphProto) -> list[TensorProto]:
    """Initializers in the order in which nodes (and the bodies inside them) use them; at last the unused, by name."""
    place: dict[str, int] = {}
    for used in _uses(graph):
        place.setdefault(used, len(place))
    return sorted(graph.initializer, key=lambda t: (place.get(t.name, len(place)), t.name))


def _uses(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from node.input
        for attr in sorted(node.attribute, key=lambda a: a.name):
            for body in [attr.g, *attr.graphs] if attr.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) else ():
                yield from _uses(body)
    yield from (v.name for v in graph.output)
