import numpy as np
import pytest

from zc.execute import Runner

ONE_HOT = """g (int32[N,5] i) => (float[N,5,3] y)
    <float[6,3] w, int64[1] last = {2}, int32[1,1,6] numbers = {0, 1, 2, 3, 4, 5}> {
    u = Unsqueeze (i, last) e = Equal (u, numbers) c = Cast <to = 1> (e) y = MatMul (c, w)
}"""


def test_a_product_of_one_hot_rows_becomes_a_choice_of_rows(run_pass):
    assert run_pass("clean", ONE_HOT).ops == ["Clip", "Gather"]


@pytest.mark.parametrize("index", [-7, -1, 0, 5, 6, 7, 2**31 - 1, -(2**31)])
def test_an_index_out_of_range_picks_a_row_of_zeros(run_pass, index):
    after = run_pass("clean", ONE_HOT)
    feed = {"i": np.full((1, 5), index, np.int32)}
    assert np.array_equal(Runner(after.model).run(feed)["y"], Runner(after.before).run(feed)["y"])


@pytest.mark.parametrize(
    ("old", "new"),
    [("{0, 1, 2, 3, 4, 5}", "{0, 1, 2, 3, 5, 4}"), ("int64[1] last = {2}", "int64[1] last = {1}")],
    ids=["another order", "another axis"],
)
def test_other_comparisons_stay(run_pass, old, new):
    text = ONE_HOT.replace(old, new)
    if "{1}" in new:
        text = text.replace("(float[N,5,3] y)", "(float[N,A,3] y)").replace("int32[N,5]", "int32[N,6]")
    assert "MatMul" in run_pass("fuse", text).ops


def test_a_matrix_that_is_read_elsewhere_is_not_written_twice(run_pass):
    text = ONE_HOT.replace("=> (float[N,5,3] y)", "=> (float[N,5,3] y, float[6,3] z)").replace(
        "y = MatMul (c, w)", "y = MatMul (c, w) z = Mul (w, w)"
    )
    after = run_pass("fuse", text)
    assert "MatMul" in after.ops
    assert "reads" in after.reasons


def test_arithmetic_on_picked_rows_is_done_on_the_table(run_pass):
    after = run_pass(
        "clean",
        """g (int64[N,5] i) => (float[N,5,3] y) <float[6,3] table, float[1,1,3] b, float half = {0.5}> {
            p = Gather (table, i) a = Add (b, p) m = Mul (a, half) t = Tanh (m) s = Sub (a, t) y = Relu (s)
        }""",
    )
    assert after.ops == ["Gather"]


def test_a_sum_of_embeddings_stays(run_pass):
    after = run_pass(
        "clean",
        """g (int64[N,5] i, int64[N,5] j) => (float[N,5,3] y) <float[6,3] a, float[6,3] b> {
            p = Gather (a, i) q = Gather (b, j) y = Add (p, q)
        }""",
    )
    assert after.ops == ["Gather", "Gather", "Add"]


def test_a_constant_that_differs_from_row_to_row_stays(run_pass):
    after = run_pass(
        "clean",
        """g (int64[N,5] i) => (float[N,5,3] y) <float[6,3] table, float[5,3] position> {
            p = Gather (table, i) y = Add (p, position)
        }""",
    )
    assert after.ops == ["Gather", "Add"]


def test_a_big_table_is_not_written_once_more_for_a_second_reader(run_pass):
    after = run_pass(
        "fuse",
        """g (int64[N,5] i) => (float[N,5,64] y, float[N,5,64] z) <float[2000,64] table, float[64] b> {
            p = Gather (table, i) y = Add (p, b) z = Tanh (p)
        }""",
    )
    assert after.ops == ["Gather", "Add", "Tanh"]
    assert "read elsewhere" in after.reasons


def test_arithmetic_behind_a_squeeze_goes_into_the_layer(run_pass):
    after = run_pass(
        "clean",
        """g (float[N,3,9,1] x) => (float[N,4,7] y)
        <float[4,3,3,1] w, float[4,1] s, float[1,4,1] b, int64[1] three = {3}> {
            c = Conv <kernel_shape = [3, 1]> (x, w) q = Squeeze (c, three) m = Mul (q, s) y = Add (b, m)
        }""",
    )
    assert after.ops == ["Conv", "Squeeze"]
