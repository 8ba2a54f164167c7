"""Files that no runtime can run: one line that names the node, and the process goes on."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from zc.errors import ZcError
from zc.runtime import Session

F32 = np.float32
SCALE, ZERO = F32(0.1), np.uint8(3)

UNUSABLE: dict[str, tuple[str, dict[str, Any], list[Any], str]] = {
    "strides": ("MaxPool", {"kernel_shape": [2, 2], "strides": [0, 1]}, [], r"strides \[0, 1\]"),
    "a window": ("AveragePool", {"kernel_shape": [0, 1]}, [], r"kernel_shape \[0, 1\]"),
    "no window": ("MaxPool", {}, [], "no kernel_shape"),
    "a window of three": ("MaxPool", {"kernel_shape": [1, 1, 1]}, [], "3 dimensions over a value with 4 axes"),
    "pads": ("MaxPool", {"kernel_shape": [2, 2], "pads": [1, 1]}, [], r"pads \[1, 1\] for 2 dimensions"),
    "an order": ("Transpose", {"perm": [0, 1, 1, 3]}, [], r"\[0, 1, 1, 3\] is no order of 4 axes"),
    "an axis of Softmax": ("Softmax", {"axis": 7}, [], "axis 7 of a value with 4 axes"),
    "an axis of Gather": ("Gather", {"axis": -5}, [np.array([0])], "axis -5 of a value with 4 axes"),
    "a position": ("Gather", {"axis": 1}, [np.array([9])], "no position 9 along axis 1"),
    "a shape": ("Reshape", {}, [np.array([5, -1])], r"cannot take shape \[5, -1\]"),
    "an axis of Slice": ("Slice", {}, [np.array([0]), np.array([1]), np.array([8])], "axis 8"),
    "a step": ("Slice", {}, [np.array([0]), np.array([1]), np.array([1]), np.array([0])], "a step of 0"),
    "a slice of nothing": ("Slice", {}, [np.array([3]), np.array([1]), np.array([1])], "holds nothing"),
    "an axis that is not 1": ("Squeeze", {}, [np.array([1])], "axis 1 has length 4, not 1"),
    "a new axis": ("Unsqueeze", {}, [np.array([9])], "axis 9"),
    "blocks of nothing": ("DepthToSpace", {"blocksize": 0}, [], "blocksize 0"),
    "blocks": ("SpaceToDepth", {"blocksize": 4}, [], r"blocks of 4 do not divide \[2, 4, 6, 6\]"),
    "repeats": ("Tile", {}, [np.array([1, 2])], r"cannot be repeated \[1, 2\] times"),
    "no repeats": ("Tile", {}, [np.array([1, 0, 1, 1])], "holds nothing"),
    "an expansion": ("Expand", {}, [np.array([2, 4, 5, 6])], "cannot be broadcast"),
    "reflection": ("Pad", {"mode": "reflect"}, [np.array([0, 0, 7, 0, 0, 0, 0, 0])], "too small to be reflected"),
    "a pad of other axes": ("Pad", {}, [np.array([1, 1])], "other axes than the 1 that are padded"),
    "scales": ("Resize", {}, [np.zeros(0, F32), F32([1, 1, 0, 1])], "holds nothing"),
    "a constant": ("Mul", {}, [np.zeros(5, F32)], "do not go together"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_attributes_that_cannot_be(qdq: Callable[..., Any], name: str) -> None:
    op, attributes, constants, message = UNUSABLE[name]
    b = qdq()
    b.input("x", [2, 4, 6, 6], (0.1, 100))
    b.output(b.node(op, ["x", *(b.constant(f"k{i}", v) for i, v in enumerate(constants))], "y", **attributes), (0.1, 9))
    with pytest.raises(ZcError, match=rf"node 'y': .*{message}") as found:
        Session(b.model()).run(None, {"x_q": np.zeros((2, 4, 6, 6), np.uint8)})
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("shape", "scale", "attributes", "message"),
    [
        ((0, 4, 3, 3), 0.1, {}, "one of its constants holds nothing"),
        ((8, 5, 3, 3), 0.1, {}, "does not take codes of shape"),
        ((8, 4, 3, 3), 0.1, {"group": 3}, "does not take codes of shape"),
        ((8, 4, 3, 3), 0.1, {"kernel_shape": [5, 5]}, r"kernel_shape \[5, 5\] with weights \[8, 4, 3, 3\]"),
        ((8, 4, 3, 3), 0.1, {"dilations": [0, 1]}, r"dilations \[0, 1\]"),
        ((8, 4, 3, 3), np.nan, {}, "scale nan is not a positive, finite, normal number"),
        ((8, 4, 3, 3), 0.0, {}, "scale 0 is not a positive, finite, normal number"),
    ],
)
def test_weights_that_cannot_be(qdq: Callable[..., Any], shape, scale, attributes, message) -> None:
    b = qdq()
    b.input("x", [1, 4, 6, 6], (0.1, 100))
    b.weight("w", np.ones(shape, np.int8), np.full(shape[0], scale, F32), np.zeros(shape[0], np.int8), 0)
    b.output(b.node("Conv", ["x", "w"], "y", **attributes), (0.1, 9))
    with pytest.raises(ZcError, match=message):
        Session(b.model()).run(None, {"x_q": np.zeros((1, 4, 6, 6), np.uint8)})


@pytest.mark.parametrize(
    ("op", "inputs", "message"),
    [
        ("QLinearAdd", [SCALE, ZERO], "QLinearAdd has 3 inputs, and needs 7"),
        ("QLinearAdd", [F32(0), ZERO, "x", SCALE, ZERO, SCALE, ZERO], "scale 0 is not a positive"),
        ("QLinearMul", [SCALE, ZERO, "x", SCALE, ZERO, F32(np.nan), ZERO], "scale nan is not a positive"),
        ("QLinearSigmoid", [], "QLinearSigmoid has 1 inputs, and needs 4"),
        ("QLinearSoftmax", [np.zeros(0, F32), ZERO, SCALE, ZERO], "one of its constants holds nothing"),
        ("QGemm", [SCALE, ZERO], "QGemm has 3 inputs, and needs 6"),
        ("QLinearConv", [SCALE, ZERO], "QLinearConv has 3 inputs, and needs 8"),
    ],
)
def test_operators_on_codes_with_other_inputs(
    qdq: Callable[..., Any], op: str, inputs: list[Any], message: str
) -> None:
    b = qdq()
    b.inputs.append(helper.make_tensor_value_info("x", TensorProto.UINT8, [2, 4]))
    names = ["x", *(v if isinstance(v, str) else b.constant(f"k{i}", v) for i, v in enumerate(inputs))]
    domain = "" if op == "QLinearConv" else "com.microsoft"
    b.nodes.append(helper.make_node(op, names, ["y"], domain=domain))
    b.outputs.append(helper.make_tensor_value_info("y", TensorProto.UINT8, None))
    with pytest.raises(ZcError, match=message):
        Session(b.model())


def test_an_unknown_operator(qdq: Callable[..., Any]) -> None:
    b = qdq()
    b.input("x", [2, 4], (0.1, 100))
    b.nodes.append(helper.make_node("Wild", ["x"], ["w"], name="wild", domain="my.own"))
    b.output("w", (0.1, 9))
    with pytest.raises(
        ZcError, match=r"strict: 1 nodes have no kernel on codes: Wild 'wild': my.own.Wild has no kernel"
    ):
        Session(b.model(), strict=True)
    with pytest.raises(ZcError, match="onnxruntime does not"):
        Session(b.model())
