"""Calibration as a whole: which values, in what order, on how many threads, and what happens when it fails."""

import threading

import numpy as np
import pytest

from zc.backends.onnxruntime import TARGET
from zc.errors import ZcError
from zc.passes.quantize import anyorder, calibrate
from zc.passes.quantize.anyorder import open_any_order
from zc.passes.quantize.calibrate import Calibration, Key
from zc.passes.quantize.sketch import Sketch
from zc.pipeline.base import Context

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,16,8,8] x) => (float[N,20,4,4] z) <float[32,16,3,3] w, float[32,32,1,1] v, float[20,32,3,3] u> {
    stem = Conv (x, w)
    head = Relu (stem)
    more = Conv (head, v)
    sum = Add (head, more)
    z = Conv (sum, u)
}"""
NAMES = ["x", "head", "more", "sum", "z"]
ROWS = 70


@pytest.fixture
def net(graph):
    return graph(TEXT)


@pytest.fixture
def samples(net, samples_of):
    return samples_of(net, {"x": np.random.default_rng(0).standard_normal((ROWS, 16, 8, 8)).astype(np.float32)})


def sketched(net, samples, threads=1):
    return calibrate.calibrate(net, NAMES, samples, Context(TARGET, threads=threads))


def states(sketches):
    return {name: {**vars(one), "bins": one.bins.tobytes()} for name, one in sketches.items()}


def test_values_are_looked_at_as_they_lie_in_the_session(net):
    with open_any_order(net, NAMES[1:], ROWS, 1) as session:
        turned = {name for name, source in session.sources.items() if name != source}
    if not turned:
        pytest.skip("onnxruntime has no blocked convolutions on this processor")
    assert turned == {"head", "more", "sum"}  # 20 channels are no whole blocks


def test_the_order_of_elements_does_not_show(net, samples, monkeypatch):
    whole = states(sketched(net, samples))
    monkeypatch.setattr(anyorder, "WORTH", ROWS + 1)
    assert states(sketched(net, samples)) == whole
    assert whole["head"]["count"] == ROWS * 32 * 6 * 6


@pytest.mark.parametrize("rows", [1, 7, 32])
def test_batches_and_threads_do_not_show(net, samples, monkeypatch, rows):
    whole = states(sketched(net, samples))
    monkeypatch.setattr(calibrate, "MOST_ROWS", rows)
    assert states(sketched(net, samples, threads=3)) == whole


def test_shuffled_rows_give_the_same_sketches(net, samples, samples_of):
    shuffled = samples_of(net, {"x": np.random.default_rng(1).permutation(samples.reader.arrays["x"])})
    assert states(sketched(net, shuffled)) == states(sketched(net, samples))


def test_ragged_feeds_are_taken_one_by_one(graph, feeds_of):
    net = graph(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,S,4] x) => (float[N,S,3] y) <float[4,3] w> '
        "{ r = Relu (x)  y = MatMul (r, w) }"
    )
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((1, size, 4)).astype(np.float32)} for size in (3, 0, 5)]
    found = calibrate.calibrate(net, ["x", "y"], feeds_of(net, feeds), Context(TARGET, threads=2))
    assert (found["x"].count, found["y"].count) == (8 * 4, 8 * 3)


def test_a_value_is_looked_at_once(net, samples, monkeypatch):
    calibration = Calibration(net, samples, Context(TARGET, threads=1))
    first = calibration.sketches([Key(0, "head")])
    looked = []
    monkeypatch.setattr(
        calibrate, "calibrate", lambda model, names, *_: looked.append(names) or {n: Sketch() for n in names}
    )
    again = calibration.sketches([Key(0, "head"), Key(0, "z"), Key(0, "head")])
    assert again[Key(0, "head")] is first[Key(0, "head")]
    assert looked == [["z"]]


def test_an_error_in_a_thread_ends_the_others(net, samples, monkeypatch):
    calls = []

    def update(sketch, values):
        calls.append(threading.get_ident())
        if len(calls) > 8:
            raise ZcError("no more")

    monkeypatch.setattr(calibrate, "MOST_ROWS", 1)
    monkeypatch.setattr(Sketch, "update", update)
    with pytest.raises(ZcError, match="no more"):
        sketched(net, samples, threads=2)
    assert len(calls) < ROWS
    assert threading.active_count() < 10


def test_progress_counts_batches(net, samples):
    seen = []

    def track(items, label, total=None):
        seen.append((label, total))
        return iter(items)

    calibrate.calibrate(net, ["head"], samples, Context(TARGET, threads=1, track=track))
    assert seen == [("calibrate", 3)]
