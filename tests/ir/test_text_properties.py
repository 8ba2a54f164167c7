"""print -> parse -> print, on generated models with everything that ONNX text can say."""

import math

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from zc.ir.literals import TYPE_NAMES
from zc.ir.model import Model
from zc.ir.text import parse_text, print_model

words = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=6)
identifiers = st.one_of(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True), st.sampled_from(["float", "map", "nan"])
)
names = st.one_of(identifiers, words)
floats = st.floats(width=32).map(lambda x: float("nan") if math.isnan(x) else x)  # text has one NaN, without a payload
ints = st.integers(-(2**63), 2**63 - 1)
dims = st.lists(st.one_of(st.integers(0, 9), st.none(), names), max_size=3)
elem_types = st.sampled_from([t for t in TYPE_NAMES if t != TensorProto.STRING])


@st.composite
def tensors(draw: st.DrawFn, name: str) -> TensorProto:
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    size = int(np.prod(shape))
    kind = draw(st.sampled_from(list(TYPE_NAMES)))
    if kind == TensorProto.STRING:
        strings = [s.encode() for s in draw(st.lists(words, min_size=size, max_size=size))]
        return TensorProto(name=name, data_type=kind, dims=shape, string_data=strings)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    raw = np.frombuffer(draw(st.binary(min_size=size * 16, max_size=size * 16)), np.uint8)
    small = raw[:size] % 2 if np.dtype(dtype).kind == "b" else raw[:size].astype(np.int8) % 8
    if np.dtype(dtype).kind == "f" and draw(st.booleans()):  # any bits, NaN payloads aside
        array = np.nan_to_num(raw.view(dtype)[:size], nan=np.nan)
    else:
        array = small.astype(np.float32).astype(dtype)
    tensor = numpy_helper.from_array(array.reshape(shape), name)
    tensor.data_type = kind
    return tensor


@st.composite
def types(draw: st.DrawFn, depth: int = 2) -> onnx.TypeProto:
    inner = types(depth=depth - 1)
    choice = draw(st.integers(0, 5 if depth else 1))
    if choice <= 1:
        shape = draw(st.one_of(st.none(), dims))
        make = helper.make_sparse_tensor_type_proto if choice == 1 and depth < 2 else helper.make_tensor_type_proto
        return make(draw(st.sampled_from(list(TYPE_NAMES))), shape)
    if choice == 2:
        return helper.make_sequence_type_proto(draw(inner))
    if choice == 3:
        return helper.make_optional_type_proto(draw(inner))
    if choice == 4:
        return helper.make_map_type_proto(TensorProto.INT64, draw(inner))
    return helper.make_tensor_type_proto(draw(elem_types), draw(dims))


@st.composite
def attributes(draw: st.DrawFn, name: str, depth: int) -> AttributeProto:
    kinds = AttributeProto
    kind = draw(
        st.sampled_from(
            [kinds.FLOAT, kinds.INT, kinds.STRING, kinds.TENSOR, kinds.TYPE_PROTO, kinds.FLOATS, kinds.INTS]
            + [kinds.STRINGS, kinds.TENSORS, kinds.GRAPHS]
            + ([kinds.GRAPH] if depth else [])
        )
    )
    attr = AttributeProto(name=name, type=kind)
    match kind:
        case kinds.FLOAT:
            attr.f = draw(floats)
        case kinds.INT:
            attr.i = draw(ints)
        case kinds.STRING:
            attr.s = draw(st.one_of(st.just(""), words)).encode()
        case kinds.FLOATS:
            attr.floats.extend(draw(st.lists(floats, max_size=3)))
        case kinds.INTS:
            attr.ints.extend(draw(st.lists(ints, max_size=3)))
        case kinds.STRINGS:
            attr.strings.extend(s.encode() for s in draw(st.lists(words, max_size=3)))
        case kinds.TENSOR:
            attr.t.CopyFrom(draw(tensors(draw(st.one_of(st.just(""), identifiers)))))
        case kinds.TYPE_PROTO:
            attr.tp.CopyFrom(draw(types()))
        case kinds.GRAPH:
            attr.g.CopyFrom(draw(graphs(depth - 1, draw(st.from_regex(r"b_[a-z0-9]{0,3}", fullmatch=True)))))
    return attr


@st.composite
def graphs(draw: st.DrawFn, depth: int, title: str, prefix: str = "") -> onnx.GraphProto:
    pool = draw(st.lists(names, min_size=6, max_size=9, unique=True))
    values = [f"{title}{depth}{name}" if depth < 2 else name for name in pool]  # no shadowing between scopes
    infos = [onnx.ValueInfoProto(name=v, type=draw(types())) for v in values[:4]]
    made, weights = values[2:4], values[4:]
    nodes = []
    for output in made:
        node = onnx.NodeProto(
            op_type=draw(identifiers),
            name=draw(st.one_of(st.just(""), names)),
            domain=draw(st.sampled_from(["", "custom", "ai.onnx.ml"])),
            input=draw(st.lists(st.sampled_from(["", *values[:2], *weights]), max_size=4)),
            output=draw(st.sampled_from([[output], [output, ""], ["", output]])),
        )
        for name in draw(st.lists(identifiers, max_size=3, unique=True)):
            node.attribute.append(draw(attributes(name, depth)))
        nodes.append(node)
    initializers = [draw(tensors(w)) for w in weights]
    return helper.make_graph(nodes, title, infos[:2], [infos[3]], initializers, value_info=[infos[2]])


@st.composite
def models(draw: st.DrawFn) -> Model:
    graph = draw(graphs(2, draw(names)))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("custom", 1), helper.make_opsetid("ai.onnx.ml", 3)]
    proto = helper.make_model(graph, ir_version=10, opset_imports=draw(st.permutations(opsets)))
    proto.producer_name, proto.doc_string = draw(words), draw(words)
    proto.model_version = draw(st.integers(0, 99))
    for key, value in draw(st.dictionaries(words, words, max_size=2)).items():
        proto.metadata_props.add(key=key, value=value)
    return Model.from_proto(proto)


def facts(graph: onnx.GraphProto) -> object:
    """What a graph says, without the order of what has none and without how numbers are stored."""
    return (
        graph.name,
        [v.SerializeToString(deterministic=True) for v in (*graph.input, *graph.output, *graph.value_info)],
        sorted((t.name, tensor_facts(t)) for t in graph.initializer),
        [(n.op_type, n.domain, n.name, list(n.input), list(n.output), attribute_facts(n)) for n in graph.node],
    )


def tensor_facts(tensor: TensorProto) -> tuple[int, list[int], bytes]:
    if tensor.data_type == TensorProto.STRING:
        return tensor.data_type, list(tensor.dims), b"\0".join(tensor.string_data)
    return tensor.data_type, list(tensor.dims), numpy_helper.to_array(tensor).tobytes()


def attribute_facts(node: onnx.NodeProto) -> object:
    special = {
        AttributeProto.TENSOR: lambda a: (a.t.name, tensor_facts(a.t)),
        AttributeProto.GRAPH: lambda a: facts(a.g),
    }
    return [
        (a.name, a.type, special.get(a.type, lambda a: a.SerializeToString(deterministic=True))(a))
        for a in sorted(node.attribute, key=lambda a: a.name)
    ]


@settings(max_examples=200, deadline=None)
@given(models())
def test_full_text_reads_back_as_an_equal_model(model: Model) -> None:
    text = print_model(model, weights="full")
    back = parse_text(text)
    assert print_model(back, weights="full") == text
    assert print_model(back) == print_model(model)
    assert facts(back.to_proto().graph) == facts(model.to_proto().graph)
    assert back.metadata == {k: v for k, v in model.metadata.items() if not k.startswith("zc.")}


@settings(max_examples=100, deadline=None)
@given(models())
def test_hashed_text_reads_back_and_prints_the_same(model: Model) -> None:
    text = print_model(model)
    assert print_model(parse_text(text, hashed=True)) == text
