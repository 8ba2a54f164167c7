"""Tests of a pass of one's own, with a golden file: `pytest examples`; `--update-golden` rewrites the file."""

from collections.abc import Callable
from pathlib import Path

from zc.pipeline.registry import load_plugin
from zc.testing import assert_same_outputs, from_text, ops, run_pass

load_plugin(Path(__file__).with_name("strip_softmax.py"))

CLASSIFIER = from_text("""
    <ir_version: 8, opset_import: ["" : 17]>
    classifier (float[N,2] x) => (float[N,3] probs) <float[2,3] w = {1, 2, 3, 4, 5, 6}, float[N,3] logits>
    {
        [dense] logits = MatMul (x, w)
        [softmax] probs = Softmax <axis = 1> (logits)
    }""")

LOGITS = from_text("""
    <ir_version: 8, opset_import: ["" : 17]>
    classifier (float[N,2] x) => (float[N,3] probs) <float[2,3] w = {1, 2, 3, 4, 5, 6}> { probs = MatMul (x, w) }""")


def test_the_softmax_is_dropped() -> None:
    """The one behaviour of the pass."""
    after = run_pass("strip-softmax", CLASSIFIER)
    assert ops(after) == ["MatMul"]
    assert_same_outputs(after, LOGITS)


def test_the_graph_is_as_expected(golden: Callable[..., None]) -> None:
    """Everything else about the graph: names, types, order."""
    golden(run_pass("strip-softmax", CLASSIFIER), "expected/strip-softmax.txt")
