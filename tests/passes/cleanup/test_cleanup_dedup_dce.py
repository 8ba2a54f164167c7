import numpy as np

from zc.passes.cleanup.dce import drop_dead
from zc.passes.cleanup.dedup import dedup


def test_equal_expressions_are_computed_once(run_pass):
    after = run_pass(
        "dedup",
        """g (float[N,8] x) => (float[N,8] y) {
            ra = Relu (x)  ea = Exp (ra)  rb = Relu (x)  eb = Exp (rb)  y = Add (ea, eb)
        }""",
    )
    assert after.ops == ["Relu", "Exp", "Add"]


def test_expressions_with_other_attributes_or_inputs_stay(run_pass):
    after = run_pass(
        "dedup",
        """g (float[N,8] x) => (float[N,8] y) {
            a = LeakyRelu <alpha = 0.1> (x)  b = LeakyRelu <alpha = 0.2> (x)
            c = Sub (a, b)  d = Sub (b, a)  y = Add (c, d)
        }""",
    )
    assert len(after.ops) == 5


def test_random_numbers_are_drawn_twice(text_model):
    model = text_model(
        "g (float[8] x) => (float[8] y) { a = RandomNormalLike (x)  b = RandomNormalLike (x)  y = Sub (a, b) }"
    )
    assert not dedup(model).changed


def test_an_output_that_equals_an_inner_value_keeps_its_name(run_pass):
    after = run_pass("dedup", "g (float[N] x) => (float[N] y, float[N] z) { a = Relu (x)  z = Neg (a)  y = Relu (x) }")
    assert after.ops == ["Relu", "Neg"]


def test_two_equal_outputs_stay_with_the_reason(run_pass):
    after = run_pass("dedup", "g (float[N] x) => (float[N] y, float[N] z) { y = Relu (x)  z = Relu (x) }")
    assert after.ops == ["Relu", "Relu"]
    assert "both are outputs" in after.reasons


def test_equal_weights_are_stored_once(run_pass, text_model):
    model = text_model(
        "g (float[N,8] x) => (float[N,8] y) <float[8,8] w1, float[8,8] w2> "
        "{ a = MatMul (x, w1)  r = Relu (a)  y = MatMul (r, w2) }"
    )
    first, second = model.constants()
    second.values = first.values.copy()
    after = run_pass("dedup", model)
    assert [c.name for c in after.model.constants() if c.outputs] == ["w1"]


def test_biases_of_two_layers_are_not_tied_together(run_pass, text_model):
    model = text_model(
        "g (float[N,8] x) => (float[N,8] y) <float[8,8] w1, float[8,8] w2, float[8] b1, float[8] b2> "
        "{ a = Gemm (x, w1, b1)  r = Relu (a)  y = Gemm (r, w2, b2) }"
    )
    for constant in model.constants():
        if constant.name in ("b1", "b2"):
            constant.values = np.zeros(8, np.float32)
    assert not run_pass("dedup", model).result.changed


def test_equal_numbers_of_other_type_or_shape_stay(run_pass):
    after = run_pass(
        "dedup",
        """g (float[N,4] x, int64[N,4] i) => (float[N,4] y, int64[N,4] j)
        <float[1,4] a = {0,0,0,0}, float[4] b = {0,0,0,0}, int64[4] c = {0,0,0,0}> {
            s = Add (x, a)  y = Mul (s, b)  j = Add (i, c)
        }""",
    )
    assert len(after.model.constants()) == 3


def test_an_initializer_that_a_caller_may_replace_is_not_joined(run_pass, text_model):
    model = text_model(
        "g (float[N,2] x) => (float[N,2] y) <float[2,2] a = {1,2,3,4}, float[2,2] b = {1,2,3,4}> "
        "{ r = MatMul (x, a)  y = MatMul (r, b) }"
    )
    model.graph.inputs.append(model.constants()[0])
    assert not run_pass("dedup", model).result.changed


def test_a_weight_of_a_body_is_not_joined_with_one_outside(run_pass):
    after = run_pass(
        "dedup",
        """g (float[N,2] x, bool c) => (float[N,2] y) <float[2,2] a = {1,2,3,4}> {
            r = MatMul (x, a)
            y = If (c) <
                then_branch = t () => (float[N,2] o) <float[2,2] b = {1,2,3,4}> {
                    s = MatMul (r, b)  o = MatMul (s, a)
                },
                else_branch = e () => (float[N,2] o) { o = Neg (r) }
            >
        }""",
    )
    assert after.ops == ["MatMul", "If"]


def test_what_reaches_no_output_goes_with_its_weights(run_pass):
    after = run_pass(
        "dce",
        """g (float[N,3,8,8] x) => (float[N,4,8,8] y)
        <float[4,3,1,1] w, float[16,4,3,3] lost, float[2] never = {1, 2}> {
            y = Conv (x, w)  unused = Conv (y, lost)  more = Relu (unused)
        }""",
    )
    assert after.ops == ["Conv"]
    assert [c.name for c in after.model.constants()] == ["w"]


def test_an_input_that_nobody_reads_stays(run_pass):
    after = run_pass("dce", "g (float[N] x, float[N] u) => (float[N] y) { y = Relu (x)  z = Neg (u) }")
    assert after.ops == ["Relu"]
    assert [t.name for t in after.model.graph.inputs] == ["x", "u"]


def test_an_optional_output_that_nobody_reads_goes(run_pass):
    after = run_pass(
        "dce",
        "g (float[N,3,8,8] x) => (float[N,3,4,4] y) { y, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x) }",
    )
    assert len(after.model.graph.nodes[0].outputs) == 1


def test_outputs_of_a_split_stay_in_place(run_pass):
    after = run_pass("dce", "g (float[N,4] x) => (float[N,2] y) { a, y = Split <axis = 1> (x) }")
    assert len(after.model.graph.nodes[0].outputs) == 2


def test_a_value_that_only_a_body_reads_is_alive(run_pass):
    after = run_pass(
        "dce",
        """g (float[N] x, bool c) => (float[N] y) {
            used = Relu (x)  lost = Neg (x)
            y = If (c) <
                then_branch = t () => (float[N] o) { o = Exp (used)  p = Exp (lost) },
                else_branch = e () => (float[N] o) { o = Identity (x) }
            >
        }""",
    )
    assert after.ops == ["Relu", "If"]


def test_what_only_a_dead_body_reads_is_dead(run_pass):
    after = run_pass(
        "dce",
        """g (float[N] x, bool c) => (float[N] y) {
            inner = Relu (x)
            lost = If (c) <
                then_branch = t () => (float[N] o) { o = Exp (inner) },
                else_branch = e () => (float[N] o) { o = Neg (inner) }
            >
            y = Abs (x)
        }""",
    )
    assert after.ops == ["Abs"]


def test_operator_sets_and_functions_that_nobody_uses_go(text_model):
    model = text_model(
        """<ir_version: 8, opset_import: ["" : 17, "far" : 1, "near" : 1]>
        g (float[N] x) => (float[N] y) { y = Relu (x) }
        <domain: "near", opset_import: ["" : 17]> twice (a) => (b) { b = Add (a, a) }"""
    )
    stats = drop_dead(model)
    assert stats["functions"] == 1
    assert set(model.opsets) == {""}


def test_a_long_dead_chain_goes_at_once(text_model):
    lines = "  ".join(f"v{i + 1} = Neg (v{i})" for i in range(3000))
    model = text_model(f"g (float[N] x) => (float[N] y) {{ y = Abs (x)  v0 = Relu (x)  {lines} }}")
    assert drop_dead(model)["nodes"] == 3001
