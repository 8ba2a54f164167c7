"""Operators that only move codes about: every code where onnxruntime puts it, around convolutions and alone."""

from typing import Any

import numpy as np
import pytest
from onnx import helper

CODING = (0.1, 100)
MOVES: dict[str, tuple[str, dict[str, Any], list[Any]]] = {
    "transpose": ("Transpose", {"perm": [0, 2, 3, 1]}, []),
    "transpose back": ("Transpose", {"perm": [3, 1, 0, 2]}, []),
    "reshape": ("Reshape", {}, [np.array([2, -1, 6])]),
    "reshape with a zero": ("Reshape", {}, [np.array([0, 4, 2, 36])]),
    "flatten": ("Flatten", {"axis": 2}, []),
    "unsqueeze": ("Unsqueeze", {}, [np.array([0, 3])]),
    "slice": ("Slice", {}, [np.array([1, 0]), np.array([6, 2**40]), np.array([2, 3]), np.array([2, 1])]),
    "slice backwards": ("Slice", {}, [np.array([-1]), np.array([-(2**40)]), np.array([3]), np.array([-2])]),
    "slice channels": ("Slice", {}, [np.array([3]), np.array([7]), np.array([1])]),
    "pad space": ("Pad", {}, [np.array([0, 0, 1, 2, 0, 0, 0, 3]), np.float32(0.0)]),
    "pad channels": ("Pad", {}, [np.array([0, 4, 0, 0, 0, 2, 0, 0]), np.float32(-1.0)]),
    "pad and cut": ("Pad", {}, [np.array([0, 0, -1, 2, 0, -3, 0, -2]), np.float32(0.0)]),
    "pad by reflection": ("Pad", {"mode": "reflect"}, [np.array([0, 0, 1, 2, 0, 0, 3, 0])]),
    "pad by the edge": ("Pad", {"mode": "edge"}, [np.array([0, 1, 1, 2, 0, 0, 3, 1])]),
    "gather channels": ("Gather", {"axis": 1}, [np.array([0, 3, 2, 1, 7, -1, 5, 5])]),
    "gather evenly": ("Gather", {"axis": 2}, [np.array([5, 3, 1])]),
    "gather one": ("Gather", {"axis": 0}, [np.array(1)]),
    "gather a table": ("Gather", {"axis": 3}, [np.array([[5, 3, 1], [0, 0, 4]])]),
    "expand": ("Expand", {}, [np.array([3, 1, 8, 6, 6])]),
    "tile": ("Tile", {}, [np.array([1, 2, 3, 1])]),
    "dropout": ("Dropout", {}, []),
    "depth to space": ("DepthToSpace", {"blocksize": 2, "mode": "DCR"}, []),
    "depth to space CRD": ("DepthToSpace", {"blocksize": 2, "mode": "CRD"}, []),
    "space to depth": ("SpaceToDepth", {"blocksize": 2}, []),
    **{
        f"resize {how} {rounding}": (
            "Resize",
            {"mode": "nearest", "coordinate_transformation_mode": how, "nearest_mode": rounding},
            [None, np.array([1, 1, 2.0, 1.5], np.float32)],
        )
        for how in ("asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel", "tf_half_pixel_for_nn")
        for rounding in ("floor", "round_prefer_floor", "round_prefer_ceil", "ceil")
    },
    "resize by less than a pixel": (
        "Resize",
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        [None, np.array([1, 1, 1.1, 1.1], np.float32)],
    ),
    "resize down": (
        "Resize",
        {"mode": "nearest", "coordinate_transformation_mode": "half_pixel"},
        [None, None, np.array([2, 8, 3, 4])],
    ),
}


def move(b: Any, name: str, value: str) -> str:
    op, attributes, constants = MOVES[name]
    inputs = [value, *(b.constant(f"k{i}", v) if v is not None else "" for i, v in enumerate(constants))]
    return b.node(op, inputs, "moved", **attributes)


POOLS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "MaxPool": ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}, (2, 20, 9, 8)),
    "GlobalMaxPool": ("GlobalMaxPool", {}, (2, 70, 9, 8)),
    "GlobalMaxPool of a line": ("GlobalMaxPool", {}, (2, 7, 9)),
    "ReduceMax": ("ReduceMax", {"axes": [2, 3]}, (2, 70, 9, 8)),
    "ReduceMax without axes left": ("ReduceMax", {"axes": [-1, 2], "keepdims": 0}, (2, 70, 9, 8)),
    "ReduceMax of a line": ("ReduceMax", {"axes": [2], "keepdims": 0}, (3, 5, 9)),
}


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("y", [CODING, (0.07, 30)])
@pytest.mark.parametrize("name", POOLS)
def test_maxima(qdq, agree, name: str, y: tuple[float, int], kind: type) -> None:
    op, attributes, shape = POOLS[name]
    b = qdq(kind)
    b.input("x", ["N", *shape[1:]], CODING)
    b.output(b.node(op, ["x"], "y", **attributes), y)
    agree(b.model(), {"x_q": codes(shape, kind)})


def codes(shape: tuple[int, ...], kind: type = np.uint8) -> np.ndarray:
    info = np.iinfo(kind)
    return np.random.default_rng(0).integers(info.min, info.max + 1, shape).astype(kind)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("name", MOVES)
def test_alone(qdq, agree, name: str, kind: type) -> None:
    b = qdq(kind)
    b.input("x", [2, 8, 6, 6], CODING)
    b.output(move(b, name, "x"), CODING)
    agree(b.model(), {"x_q": codes((2, 8, 6, 6), kind)})


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("name", [n for n in MOVES if not n.startswith("resize") or n.startswith("resize down")])
def test_into_another_scale(qdq, agree, name: str, kind: type) -> None:
    b = qdq(kind)
    b.input("x", [2, 8, 6, 6], CODING)
    b.output(move(b, name, "x"), (0.07, 30))
    agree(b.model(), {"x_q": codes((2, 8, 6, 6), kind)})


@pytest.mark.parametrize("name", [n for n in MOVES if "expand" not in n and "table" not in n and "one" not in n])
def test_between_convolutions_that_pad(qdq, agree, name: str) -> None:
    rng = np.random.default_rng(1)
    b = qdq()
    b.input("x", [2, 3, 6, 6], CODING)
    b.weight(
        "w", rng.integers(-90, 90, (8, 3, 3, 3)).astype(np.int8), np.array(np.float32(0.01)), np.array(np.int8(0)), 0
    )
    b.node("Conv", ["x", "w"], "c", pads=[1, 1, 1, 1])
    between(b, "c", "d")
    moved = move(b, name, "d")
    if name in ("reshape", "flatten", "unsqueeze", "reshape with a zero"):
        b.output(moved, CODING)
    else:
        between(b, moved, "e")
        channels = {
            "transpose": 6,
            "slice channels": 4,
            "pad channels": 14,
            "space to depth": 32,
            "pad by the edge": 9,
            "tile": 16,
            "pad and cut": 5,
        }.get(name, 8)
        channels = 2 if name.startswith("depth") else channels
        w = rng.integers(-90, 90, (5, channels, 3, 3)).astype(np.int8)
        b.weight("v", w, np.array(np.float32(0.01)), np.array(np.int8(0)), 0)
        b.output(b.node("Conv", ["e", "v"], "y", pads=[1, 2, 2, 1]), CODING)
    agree(b.model(), {"x_q": codes((2, 3, 6, 6))})


def between(b: Any, value: str, after: str) -> None:
    """Q and DQ."""
    b.nodes.append(helper.make_node("QuantizeLinear", [value, *b.parameters(f"{after}q", CODING)], [f"{after}q"]))
    b.nodes.append(helper.make_node("DequantizeLinear", [f"{after}q", f"{after}q_s", f"{after}q_z"], [after]))


def test_split_into_branches_of_a_concat(qdq, agree) -> None:
    """Channels are split, convolved and put together again: the parts are views, and the Concat is written in place."""
    rng = np.random.default_rng(2)
    b = qdq()
    b.input("x", [2, 9, 7, 7], CODING)
    b.nodes.append(helper.make_node("Split", ["x_q", b.constant("sizes", np.array([4, 5]))], ["l_q", "r_q"], axis=1))
    for i, (part, channels) in enumerate((("l", 4), ("r", 5))):
        b.nodes.append(helper.make_node("DequantizeLinear", [f"{part}_q", "x_s", "x_z"], [part]))
        w = rng.integers(-90, 90, (20 + i, channels, 3, 3)).astype(np.int8)
        b.weight(f"w{i}", w, np.array(np.float32(0.01)), np.array(np.int8(0)), 0)
        b.node("Conv", [part, f"w{i}"], f"c{i}", pads=[1, 1, 1, 1])
        between(b, f"c{i}", f"d{i}")
    b.node("Concat", ["d0", "d1"], "both", axis=1)
    between(b, "both", "e")
    b.weight(
        "v", rng.integers(-90, 90, (6, 41, 3, 3)).astype(np.int8), np.array(np.float32(0.01)), np.array(np.int8(0)), 0
    )
    b.output(b.node("Conv", ["e", "v"], "y", pads=[1, 1, 1, 1]), CODING)
    agree(b.model(), {"x_q": codes((2, 9, 7, 7))})


@pytest.mark.parametrize("scale", [0.1, 0.05])
def test_split_between_dq_and_q(qdq, agree, scale: float) -> None:
    """With one scale for all; onnxruntime splits float values otherwise, and so do we."""
    b = qdq()
    b.input("x", [2, 9, 7], CODING)
    b.nodes.append(helper.make_node("Split", ["x", b.constant("sizes", np.array([4, 5]))], ["l", "r"], axis=1))
    b.output("l", CODING)
    b.output("r", (scale, 100))
    agree(b.model(), {"x_q": codes((2, 9, 7))}, islands=int(scale != 0.1))
