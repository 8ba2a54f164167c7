"""Files that are no models, or damaged ones: one clear line each, and nothing else, ever."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from zc.errors import ZcError
from zc.ir.check import problems
from zc.ir.edit import sort_nodes
from zc.ir.model import Model, from_text, load
from zc.ir.shapes import infer_shapes

TEXT = """
    <ir_version: 10, opset_import: ["" : 17, "local" : 1], producer_name: "test">
    g (bool c, float[N,2] x) => (float[N,2] y) <float[2] w = {1, 2}, int64[2] s = {0, -1}> {
        a = Add (x, w)
        [if] b = If (c) <then_branch = t () => (float[N,2] p) { p = local.f (a) },
                         else_branch = e () => (float[N,2] r) <float[1] one = {1}> { r = Mul (x, one) }>
        d = Reshape <allowzero = 0> (b, s)
        y = Elu <alpha = 0.5> (d)
    }
    <domain: "local", opset_import: ["" : 17]> f (p) => (q) { k = Constant <value = float {3}> ()  q = Sub (p, k) }"""


def said_of(path: Path) -> str:
    """The one line that is said when the file is loaded."""
    with pytest.raises(ZcError) as caught:
        load(path)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line.removeprefix(f"{path}: ")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.onnx"


def test_a_missing_file(path: Path) -> None:
    assert said_of(path) == "no such file"


def test_a_folder(tmp_path: Path) -> None:
    assert said_of(tmp_path) == "a folder, not an ONNX file"


def test_an_empty_file(path: Path) -> None:
    path.write_bytes(b"")
    assert said_of(path) == "the file is empty"


def test_a_file_below_a_file(path: Path) -> None:
    path.write_bytes(b"x")
    assert "cannot be read" in said_of(path / "below.onnx")


def test_text(path: Path) -> None:
    path.write_text("# Not a model\n" * 20)
    assert said_of(path).startswith("not an ONNX model, or a damaged one")


def test_random_bytes(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(4096))
    assert said_of(path) == "not an ONNX model, or a damaged one (4096 bytes)"


def test_a_truncated_file(path: Path) -> None:
    data = from_text(TEXT).to_proto().SerializeToString()
    refused = []
    for length in range(1, len(data)):
        path.write_bytes(data[:length])
        try:
            load(path)
        except ZcError as err:
            refused.append(str(err))
    assert len(refused) > 0.9 * len(data)
    assert not any("\n" in line for line in refused)


@pytest.mark.parametrize(
    "message",
    [
        numpy_helper.from_array(np.ones(8, np.float32), "t"),
        helper.make_graph([], "g", [], []),
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_opsetid("", 17),
        onnx.ModelProto(ir_version=8),
    ],
    ids=lambda m: type(m).__name__,
)
def test_a_message_of_another_kind(path: Path, message: object) -> None:
    path.write_bytes(message.SerializeToString())  # type: ignore[attr-defined]
    assert said_of(path).startswith("not an ONNX model, or a damaged one")


def test_a_name_that_breaks_the_line_is_escaped(path: Path) -> None:
    assert edited(path, "g.initializer[0].name = 'a\\nb'; g.initializer[0].dims[0] = -1") == (
        r"initializer 'a\nb' has a negative dimension: [-1]"
    )


def test_a_model_without_operator_sets(path: Path) -> None:
    proto = from_text(TEXT).to_proto()
    del proto.opset_import[:]
    path.write_bytes(proto.SerializeToString())
    assert said_of(path) == "not an ONNX model, or a damaged one: it names no operator set"


def edited(path: Path, edit: str) -> str:
    """What is said of the model after a statement about its message `p` was run."""
    proto = from_text(TEXT).to_proto()
    exec(edit, {"p": proto, "g": proto.graph, "helper": helper, "onnx": onnx})
    path.write_bytes(proto.SerializeToString())
    return said_of(path)


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        ("g.initializer.append(g.initializer[0])", "two initializers have the name 'w'"),
        ("g.node[2].output[0] = 'a'", "node 'Reshape': its output 'a' is also a graph input or another node's"),
        ("g.node[2].output[0] = 'x'", "node 'Reshape': its output 'x' is also a graph input or another node's"),
        ("g.node[2].output[0] = 'w'", "node 'Reshape': its output 'w' is also an initializer"),
        ("g.input.append(g.input[1])", "graph input 'x' is listed twice"),
        ("g.node[2].attribute.append(g.node[2].attribute[0])", "node 'Reshape': attribute 'allowzero' is given twice"),
        ("p.opset_import.append(helper.make_opsetid('', 18))", "operator set 'ai.onnx' is imported in two versions"),
        ("g.initializer[0].dims[0] = -2", "initializer 'w' has a negative dimension: [-2]"),
        (
            "g.input[1].type.tensor_type.elem_type = 99",
            f"value 'x': element type 99 is not known to the installed onnx {onnx.__version__}",
        ),
        ("p.functions.append(p.functions[0])", "two functions have the name 'local::f'"),
    ],
)
def test_what_contradicts_itself_is_named(path: Path, edit: str, line: str) -> None:
    assert edited(path, edit) == line


def test_a_huge_shape_with_little_data_allocates_nothing(path: Path) -> None:
    line = edited(path, "w = g.initializer[0]; w.dims[0] = 1 << 40; w.ClearField('float_data'); w.raw_data = b'1234'")
    assert line == "initializer 'w': its shape [1099511627776] of float32 needs 4398046511104 bytes, and there are 4"


def nested(depth: int) -> bytes:
    """A file of bodies inside bodies, made by hand: protobuf's own writer refuses such depth too."""

    def field(number: int, data: bytes) -> bytes:
        size, length = len(data), b""
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + data

    graph = field(2, b"b")
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, graph) + bytes([20 << 3 & 255 | 0x80, 1, 5])
        graph = field(1, field(4, b"If") + field(2, b"y") + field(5, attribute)) + field(2, b"b")
    return b"\x08\x08" + field(7, graph) + field(8, b"\x10\x11")


def test_thousands_of_nested_bodies_do_not_overflow_the_stack(path: Path) -> None:
    path.write_bytes(nested(5000))
    assert said_of(path).startswith("not an ONNX model, or a damaged one")


def said(act: Callable[[], object]) -> str:
    """What a ZcError says, or nothing; any other exception fails the test."""
    try:
        act()
    except ZcError as err:
        return str(err)
    return ""


def survives(proto: onnx.ModelProto) -> None:
    """Reading it, and whatever is done with it then, ends well or with one line."""
    lines = [said(lambda: Model.from_proto(proto))]
    if not lines[0]:
        model = Model.from_proto(proto)
        lines += [
            said(lambda: problems(model)),
            said(lambda: model.copy().to_proto()),
            said(lambda: sort_nodes(model.graph)),
            said(lambda: infer_shapes(model)),
            said(lambda: [c.values for c in model.constants()]),
            said(model.to_proto),
            said(model.weights_digest),
            said(lambda: (model.inputs, model.outputs, model.opsets, model.nbytes())),
        ]
    assert not any("\n" in line for line in lines)


DATA = from_text(TEXT).to_proto().SerializeToString()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_file_with_changed_bytes_is_a_model_or_an_error(changes: list[tuple[int, int]]) -> None:
    data = bytearray(DATA)
    for place, byte in changes:
        data[place] = byte
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(bytes(data))
    except Exception:  # what load turns into one line
        return
    survives(proto)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(DATA) - 1), st.integers(0, 40), st.binary(max_size=12))
def test_a_file_with_a_piece_replaced_is_a_model_or_an_error(start: int, length: int, piece: bytes) -> None:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(DATA[:start] + piece + DATA[start + length :])
    except Exception:  # what load turns into one line
        return
    survives(proto)


numbers = st.sampled_from([-(2**63), -1, 0, 1, 3, 7, 99, 2**31 - 1, 2**40, 2**62])
NAMES = ["", "x", "y", "a", "b", "w", "s", "p", "q", "one", "nothing", "é\0"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_model_with_changed_fields_is_a_model_or_an_error(data: st.DataObject) -> None:
    """Well-formed messages that say nonsense: the bytes above rarely get that far."""
    proto = from_text(TEXT).to_proto()
    for _ in range(data.draw(st.integers(1, 4))):
        message = proto
        while True:
            fields = [f for f, _ in message.ListFields() if f.message_type is not None]
            if not fields or data.draw(st.integers(0, 4)) == 0:
                break
            inside = getattr(message, data.draw(st.sampled_from(fields)).name)
            message = data.draw(st.sampled_from(list(inside))) if hasattr(inside, "add") else inside
        plain = [f for f in message.DESCRIPTOR.fields if f.message_type is None and f.enum_type is None]
        if not plain:
            continue
        field = data.draw(st.sampled_from(plain))
        kind = {f.TYPE_STRING: "s", f.TYPE_BYTES: "b"}.get(field.type, "n") if (f := field) else ""
        value = data.draw({"s": st.sampled_from(NAMES), "b": st.binary(max_size=9), "n": numbers}[kind])
        try:
            target = getattr(message, field.name)
            if hasattr(target, "append"):
                if target and data.draw(st.booleans()):
                    target[0] = value
                else:
                    target.append(value)
            else:
                setattr(message, field.name, value)
        except (ValueError, TypeError):  # out of the field's range
            continue
    survives(proto)


@example(dims=[0, 1 << 62])
@example(dims=[1 << 62, 1 << 62])
@settings(max_examples=50, deadline=None)
@given(dims=st.lists(numbers, max_size=4))
def test_a_weight_of_any_shape_is_a_model_or_an_error(dims: list[int]) -> None:
    proto = from_text(TEXT).to_proto()
    del proto.graph.initializer[0].dims[:]
    proto.graph.initializer[0].dims.extend(dims)
    survives(proto)
    proto.graph.initializer[0].ClearField("float_data")
    survives(proto)
    proto.graph.initializer[0].data_type = TensorProto.STRING
    survives(proto)
