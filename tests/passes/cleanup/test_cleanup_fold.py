import ml_dtypes
import numpy as np
import pytest

from zc.ir.check import problems
from zc.passes.cleanup.fold import Fold


def test_constants_are_computed_and_their_nodes_go(run_pass):
    after = run_pass(
        "fold",
        """g (float[N,4] x) => (float[N,4] y) <float[4] a = {1, 4, 9, 16}> {
            root = Sqrt (a)
            two = Constant <value_float = 2.0> ()
            twice = Mul (root, two)
            y = Add (x, twice)
        }""",
    )
    assert after.ops == ["Add"]
    assert after.constant("twice").tolist() == [2, 4, 6, 8]


def test_a_constant_that_a_caller_may_replace_is_not_folded(run_pass, text_model):
    model = text_model("g (float[4] x) => (float[4] y) <float[4] a = {1, 4, 9, 16}> { r = Sqrt (a)  y = Add (x, r) }")
    model.graph.inputs.append(model.constants()[0])
    assert run_pass("fold", model).ops == ["Sqrt", "Add"]


@pytest.mark.parametrize("op", ["RandomNormalLike", "RandomUniformLike"])
def test_random_numbers_are_not_frozen(op, text_model):
    model = text_model(
        f"g (float[4] x) => (float[4] y) <float[4] a = {{1, 4, 9, 16}}> {{ r = {op} (a)  y = Add (x, r) }}"
    )
    Fold().run(model, None)
    assert [n.op for n in model.graph.nodes] == [op, "Add"]


def test_the_storage_of_quantized_weights_is_kept(run_pass):
    after = run_pass(
        "fold",
        """g (float[N,4] x) => (float[N,2] y)
        <int8[4,2] q = {1,2,3,4,5,6,7,8}, float s = {0.5}, int8 z = {0}> {
            w = DequantizeLinear (q, s, z)
            y = MatMul (x, w)
        }""",
    )
    assert after.ops == ["DequantizeLinear", "MatMul"]


def test_an_output_computed_from_constants_becomes_a_constant_node(run_pass):
    after = run_pass(
        "fold", "g (float[4] x) => (float[4] y, float[2] z) <float[2] a = {1, 4}> { y = Relu (x)  z = Sqrt (a) }"
    )
    assert sorted(after.ops) == ["Constant", "Relu"]


def test_a_value_over_the_limit_is_declined_with_the_limit(run_pass):
    text = """g (float[N,64] x) => (float[N,64] y) <int64[2] s = {100, 64}> {
        big = ConstantOfShape <value = float[1] {1}> (s)
        total = ReduceSum <keepdims = 1> (big)
        y = Mul (x, total)
    }"""
    small = run_pass(Fold(limit=1000), text)
    assert small.ops == ["ConstantOfShape", "ReduceSum", "Mul"]
    assert "limit=1000" in small.reasons
    assert run_pass(Fold(limit=100_000), text).ops == ["Mul"]


def test_the_batch_is_carried_along_as_zero_in_a_constant_shape(run_pass):
    after = run_pass(
        "fold",
        """g (float[N,8,2,2] x) => (float[N,32] y) {
            shape = Shape (x)
            zero = Constant <value_int = 0> ()
            batch = Gather <axis = 0> (shape, zero)
            axes = Constant <value_ints = [0]> ()
            first = Unsqueeze (batch, axes)
            rest = Constant <value_ints = [32]> ()
            target = Concat <axis = 0> (first, rest)
            y = Reshape (x, target)
        }""",
    )
    assert after.ops == ["Reshape"]
    assert after.model.graph.nodes[0].inputs[1].values.tolist() == [0, 32]


def test_a_product_of_dynamic_sizes_becomes_minus_one(run_pass):
    after = run_pass(
        "fold",
        """g (float[N,S,4] x) => (float[K,4] y) {
            n = Shape <start = 0, end = 1> (x)
            s = Shape <start = 1, end = 2> (x)
            both = Mul (n, s)
            four = Constant <value_ints = [4]> ()
            target = Concat <axis = 0> (both, four)
            y = Reshape (x, target)
        }""",
    )
    assert after.ops == ["Reshape"]
    assert after.model.graph.nodes[0].inputs[1].values.tolist() == [-1, 4]


def test_two_dynamic_sizes_that_are_not_handed_through_stay_computed(run_pass):
    after = run_pass(
        "fold",
        """g (float[N,S,4] x) => (float[S,N,4] y) {
            n = Shape <start = 0, end = 1> (x)
            s = Shape <start = 1, end = 2> (x)
            four = Constant <value_ints = [4]> ()
            target = Concat <axis = 0> (s, n, four)
            y = Reshape (x, target)
        }""",
    )
    assert "Concat" in after.ops


@pytest.mark.parametrize("opset", [9, 12, 13, 17])
def test_a_known_dimension_folds_in_any_operator_set(run_pass, opset):
    axes = ("<axes = [0]> (six)", "") if opset < 13 else ("(six, zero_axis)", ", int64[1] zero_axis = {0}")
    after = run_pass(
        "fold",
        f"""g (float[N,6] x) => (float[N,6] y) <int64 one = {{1}}, int64[1] minus = {{-1}}{axes[1]}> {{
            shape = Shape (x)
            six = Gather <axis = 0> (shape, one)
            six_1d = Unsqueeze {axes[0]}
            target = Concat <axis = 0> (minus, six_1d)
            y = Reshape (x, target)
        }}""",
        opset,
    )
    assert after.ops == ["Reshape"]


@pytest.mark.parametrize("opset", [9, 17])
def test_a_slice_of_a_shape_folds_in_both_its_forms(run_pass, opset):
    cut = "<starts = [1], ends = [3]> (shape)" if opset < 10 else "(shape, one, three)"
    after = run_pass(
        "fold",
        f"""g (float[N,2,3] x) => (float[N,2,3] y)
        <int64[1] one = {{1}}, int64[1] three = {{3}}, int64[1] minus = {{-1}}> {{
            shape = Shape (x)
            tail = Slice {cut}
            target = Concat <axis = 0> (minus, tail)
            y = Reshape (x, target)
        }}""",
        opset,
    )
    assert after.ops == ["Reshape"]
    assert after.model.graph.nodes[0].inputs[1].values.tolist() == [-1, 2, 3]


def test_equal_sizes_found_on_two_ways_are_computed_once(run_pass):
    after = run_pass(
        "fold",
        """g (float[N,S] x, float[N,S,8] z) => (int64[1] a, float[N,S] y) {
            first = Shape <start = 1, end = 2> (x)
            second = Shape <start = 1, end = 2> (z)
            a = Add (first, second)
            one = ConstantOfShape <value = float[1] {1}> (second)
            y = Mul (x, one)
        }""",
    )
    assert after.ops.count("Shape") == 1


def test_expand_to_the_size_that_a_value_has_gets_ones(run_pass):
    after = run_pass(
        "fold",
        """g (float[N,1] x) => (float[N,4] y) <int64[1] four = {4}> {
            n = Shape <start = 0, end = 1> (x)
            target = Concat <axis = 0> (n, four)
            y = Expand (x, target)
        }""",
    )
    assert after.ops == ["Expand"]
    assert after.model.graph.nodes[0].inputs[1].values.tolist() == [1, 4]


@pytest.mark.parametrize(("name", "target"), [("Q", [0, 4]), ("?", [-1, 4])])
def test_vague_dimension_names_are_not_taken_for_equal_sizes(run_pass, text_model, name, target):
    model = text_model(
        """g (float[D,4] x, float[D,4] z) => (float[D,4] y) <int64[1] four = {4}> {
            n = Shape <start = 0, end = 1> (z)
            target = Concat <axis = 0> (n, four)
            y = Reshape (x, target)
        }"""
    )
    for tensor in (*model.graph.inputs, *model.graph.outputs):
        tensor.shape = [name, 4]
    after = run_pass("fold", model)
    assert after.model.graph.nodes[0].inputs[1].values.tolist() == target


def test_the_branch_that_a_constant_condition_takes_is_inlined(run_pass):
    after = run_pass(
        "fold",
        """g (float[N,8] x) => (float[N,8] y) <bool condition = {1}> {
            relu = Relu (x)
            y = If (condition) <
                then_branch = taken () => (float[N,8] t) { e = Exp (relu)  t = Neg (e) },
                else_branch = other () => (float[N,8] t) { e = Neg (relu)  t = Exp (e) }
            >
        }""",
    )
    assert after.ops == ["Relu", "Exp", "Neg"]


def test_a_branch_that_hands_an_outer_value_through_is_inlined(run_pass):
    after = run_pass(
        "fold",
        """g (float[N,8] x) => (float[N,8] y) <bool condition = {0}> {
            relu = Relu (x)
            y = If (condition) <
                then_branch = taken () => (float[N,8] t) { t = Exp (relu) },
                else_branch = other () => (float[N,8] t) { t = Identity (relu) }
            >
        }""",
    )
    assert "If" not in after.ops


def test_what_computed_a_condition_leaves_no_loose_ends(run_pass):
    after = run_pass(
        "fold",
        """g (float[2,3] x) => (float[2,3] y) <int64 six = {6}> {
            size = Size (x)
            small = Equal (size, six)
            y = If (small) <
                then_branch = taken () => (float[2,3] t) { f = CastLike (six, x)  t = Add (x, f) },
                else_branch = other () => (float[2,3] t) { t = Neg (x) }
            >
        }""",
    )
    assert after.ops == ["CastLike", "Add"]
    assert problems(after.model) == []  # Equal was dropped with its inputs still knowing it


def test_an_if_whose_condition_is_an_input_stays(run_pass):
    after = run_pass(
        "fold",
        """g (float[N,8] x, bool c) => (float[N,8] y) {
            y = If (c) <
                then_branch = a () => (float[N,8] t) { t = Exp (x) },
                else_branch = b () => (float[N,8] t) { t = Neg (x) }
            >
        }""",
    )
    assert after.ops == ["If"]


def test_constants_in_bodies_are_folded_too(run_pass):
    after = run_pass(
        "fold",
        """g (float[4] x, bool c) => (float[4] y) <float[4] a = {1, 4, 9, 16}> {
            y = If (c) <
                then_branch = a1 () => (float[4] t) { r = Sqrt (a)  t = Mul (x, r) },
                else_branch = b1 () => (float[4] t) { t = Neg (x) }
            >
        }""",
    )
    assert [n.op for n in after.model.graph.nodes[0].attrs["then_branch"].nodes] == ["Mul"]


def test_nan_and_inf_survive_folding(text_model):
    model = text_model("g (float[2] x) => (float[2] y) <float[2] a = {1, -1}> { r = Log (a)  y = Add (x, r) }")
    Fold().run(model, None)
    assert np.isnan(next(c.values for c in model.constants() if c.name == "r")[1])


def test_an_operator_set_below_7_is_declined(run_pass):
    after = run_pass("fold", "g (float[4] x) => (float[4] y) { r = Relu (x)  y = Neg (r) }", opset=6)
    assert "older than 7" in after.reasons
    assert not after.result.changed


def test_dimension_names_of_the_signature_stay_whatever_they_look_like(run_pass, text_model):
    model = text_model(
        "g (float[unk__7,4] x) => (float[unk__7,4] y) { a = Relu (x)  s = Shape (a)  y = Reshape (a, s) }"
    )
    after = run_pass("fold", model)
    assert after.model.graph.outputs[0].shape == ["unk__7", 4]
    assert after.ops == ["Relu", "Reshape"]


@pytest.mark.parametrize(("stored", "read"), [("int4", "int8"), ("int4", "float"), ("int8", "float")])
def test_weights_stored_in_few_bits_are_not_widened(text_model, stored, read):
    to, then = {"int8": (3, "DequantizeLinear"), "float": (1, "Mul")}[read]
    model = text_model(
        f"""g (float[N,8] x) => (float[N,8] z) <int8[8,8] w = {{{", ".join(["1", "-3"] * 32)}}}, float s = {{0.5}}> {{
            c = Cast <to = {to}> (w)
            y = {then} (c, s)
            z = MatMul (x, y)
        }}"""
    )
    weight = next(c for c in model.constants() if c.name == "w")
    weight.values = weight.values.astype(np.dtype(getattr(ml_dtypes, stored, np.int8)))
    model.set_opset(21)
    Fold().run(model, None)
    assert [n.op for n in model.graph.nodes] == ["Cast", then, "MatMul"]
