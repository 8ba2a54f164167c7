import ml_dtypes
import numpy as np
import pytest

from zc.errors import CheckFailed
from zc.ir.model import Model, from_text
from zc.pipeline.verify import Prover, movement, require_same_signature, signature, tolerance

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x) => (float[N,4] y) <float[4] b = {1.0, 2.0, 3.0, 4.0}> {
    y = Add (x, b)
}"""
FEEDS = [{"x": np.ones((2, 4), np.float32)}]


def shifted(by: float) -> Model:
    model = from_text(TEXT)
    bias = model.constants()[0]
    bias.values = bias.values * np.float32(1 + by)
    return model


def test_a_movement_below_the_tolerance_is_equal() -> None:
    prover = Prover.start(from_text(TEXT), FEEDS)
    assert prover.exact(shifted(1e-6), "pass").relative < 1e-5


def test_a_movement_above_it_is_caught() -> None:
    prover = Prover.start(from_text(TEXT), FEEDS)
    with pytest.raises(CheckFailed, match="output 'y' moved by"):
        prover.exact(shifted(1e-3), "pass")


def test_coarse_types_may_move_by_their_last_places() -> None:
    assert tolerance(np.zeros(1, np.float32)) == 1e-5
    assert 1e-3 < tolerance(np.zeros(1, np.float16)) < 4e-3
    assert tolerance(np.zeros(1, ml_dtypes.bfloat16)) > tolerance(np.zeros(1, np.float16))


def test_sequences_are_compared_by_element() -> None:
    now = [{"y": [np.float32([1, 2]), np.float32([3])]}]
    assert movement(now, now).relative == 0
    assert movement([{"y": [np.float32([1, 2])]}], now).relative == float("inf")
    assert movement([{"y": [np.float32([1, 2]), np.float32([6])]}], now).relative == pytest.approx(1)


def test_the_signal_to_noise_ratio_is_in_decibels() -> None:
    moved = movement([{"y": np.float32([1.1, 1.1])}], [{"y": np.float32([1, 1])}])
    assert moved.sqnr_db == pytest.approx(20, abs=0.1)
    assert moved.worst == "y"


def test_noise_in_a_sequence_counts_and_arrays_of_other_sizes_are_left_out() -> None:
    then = [{"y": [np.float32([1, 1])], "boxes": np.float32([[1, 2]])}]
    moved = movement([{"y": [np.float32([1.1, 1.1])], "boxes": np.float32([[1, 2], [3, 4]])}], then)
    assert moved.sqnr_db == pytest.approx(20, abs=0.1)
    assert (moved.relative, moved.worst) == (float("inf"), "boxes")


def test_equal_outputs_have_no_noise() -> None:
    same = [{"y": np.float32([1, np.nan, np.inf])}]
    assert movement(same, same).relative == 0
    assert movement(same, same).sqnr_db == float("inf")


def test_a_known_dimension_may_not_change() -> None:
    before = from_text(TEXT)
    after = from_text(TEXT.replace("=> (float[N,4] y)", "=> (float[N,5] y)"))
    with pytest.raises(CheckFailed, match=r"output 'y' was y: float32\[N,4\] and is y: float32\[N,5\]"):
        require_same_signature(signature(before), after, "pass")


def test_an_open_dimension_of_an_input_may_not_be_baked_in() -> None:
    before = from_text(TEXT)
    require_same_signature(signature(before), from_text(TEXT.replace("=> (float[N,4] y)", "=> (float[1,4] y)")), "pass")
    with pytest.raises(CheckFailed, match=r"input 'x' was x: float32\[N,4\] and is x: float32\[1,4\]"):
        require_same_signature(signature(before), from_text(TEXT.replace("(float[N,4] x)", "(float[1,4] x)")), "pass")


def test_outputs_that_are_never_finite_prove_nothing() -> None:
    assert Prover.start(from_text(TEXT), [{"x": np.full((2, 4), np.nan, np.float32)}]).blind() == ["y"]
    assert Prover.start(from_text(TEXT), FEEDS).blind() == []


BRANCHES = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x, bool way) => (float[N,4] y) <float[4] b = {1.0, 2.0, 3.0, 4.0}> {
    y = If (way) <
        then_branch = left () => (float[N,4] l) { l = Add (x, b) },
        else_branch = right () => (float[N,4] r) { r = Mul (x, b) }
    >
}"""


@pytest.mark.parametrize("way", [True, False])
def test_a_branch_that_no_sample_takes_is_proven_too(way: bool) -> None:
    feeds = [{"x": np.ones((2, 4), np.float32), "way": np.array(way)}]
    prover = Prover.start(from_text(BRANCHES), feeds)
    assert prover.exact(from_text(BRANCHES), "pass").relative == 0
    spoiled = from_text(BRANCHES.replace("l = Add", "l = Sub") if not way else BRANCHES.replace("r = Mul", "r = Div"))
    with pytest.raises(CheckFailed, match=f"with every If taking its {'else' if way else 'then'} branch"):
        prover.exact(spoiled, "pass")


def test_an_if_that_a_pass_dissolves_is_no_movement() -> None:
    feeds = [{"x": np.ones((2, 4), np.float32), "way": np.array(True)}]
    prover = Prover.start(from_text(BRANCHES), feeds)
    after = from_text(TEXT.replace("(float[N,4] x)", "(float[N,4] x, bool way)"))
    assert prover.exact(after, "pass").relative == 0
