"""Sketches in a file: when they are used, when not, and how parts add up."""

import hashlib
import io
import multiprocessing
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zc.backends.onnxruntime import TARGET
from zc.data import load_samples
from zc.errors import ZcError
from zc.ir.model import load
from zc.passes.quantize import calibrate
from zc.passes.quantize.cache import Origin, merge_sketches, origin_of, read_sketches, write_sketches
from zc.passes.quantize.calibrate import Calibration, Key
from zc.passes.quantize.quantize import Quantize
from zc.passes.quantize.shards import merge_parts, sketch_part
from zc.passes.quantize.sketch import Sketch
from zc.pipeline.base import Context

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4,8,8] x) => (float[N,6,4,4] z) <float[8,4,3,3] w, float[6,8,3,3] u> {
    stem = Conv (x, w)
    head = Relu (stem)
    z = Conv (head, u)
}"""
KEYS = [Key(0, "x"), Key(0, "head"), Key(0, "z")]
MODEL = "ab" * 32


def origin(rows=3, content=1, model=MODEL):
    return Origin(model, rows, f"{content:064x}")


def sketch_of(*parts):
    sketch = Sketch()
    for part in parts:
        sketch.update(np.asarray(part, np.float32))
    return sketch


def state(sketch):
    return {**vars(sketch), "bins": sketch.bins.tobytes()}


def states(sections):
    return {o: {key: state(one) for key, one in sketches.items()} for o, sketches in sections.items()}


@pytest.fixture
def net(graph):
    return graph(TEXT)


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, x=np.random.default_rng(0).standard_normal((40, 4, 8, 8)).astype(np.float32))
    return str(path)


@pytest.fixture
def forwards(monkeypatch):
    """How often a forward was run for sketches."""
    calls = []
    real = calibrate.calibrate
    monkeypatch.setattr(calibrate, "calibrate", lambda *a: calls.append(1) or real(*a))
    return calls


def sketches(net, samples, path):
    calibration = Calibration(net, samples, Context(TARGET, threads=1), path)
    found = calibration.sketches(KEYS)
    return {key: state(one) for key, one in found.items()}, calibration.cache.note


@settings(deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.integers(0, 3), st.text(max_size=5)),
        hnp.arrays(np.float32, st.integers(0, 20), elements=st.floats(width=32, allow_nan=True)),
        max_size=4,
    )
)
def test_what_is_written_is_read_back(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("c") / "c.npz"
    sections = {origin(): {key: sketch_of(one) for key, one in values.items()}, origin(4): {(0, "a"): Sketch()}}
    write_sketches(path, sections)
    assert states(read_sketches(path)) == states(sections)


def test_equal_sketches_make_equal_files(tmp_path):
    for name in ("a", "b"):
        write_sketches(tmp_path / name, {origin(): {(0, "x"): sketch_of([1, 2])}})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_second_run_on_the_same_model_and_rows_runs_no_forward(net, data, tmp_path, forwards):
    samples = load_samples(data, net.inputs)
    first, note = sketches(net, samples, tmp_path / "c.npz")
    assert (len(forwards), note) == (1, "")
    second, note = sketches(net, samples, tmp_path / "c.npz")
    assert (len(forwards), second) == (1, first)
    assert note.startswith("3 values are known from")


def test_only_what_the_file_lacks_is_looked_at(net, data, tmp_path, forwards):
    samples, path = load_samples(data, net.inputs), tmp_path / "c.npz"
    Calibration(net, samples, Context(TARGET, threads=1), path).sketches(KEYS[:1])
    whole, _ = sketches(net, samples, path)
    assert len(forwards) == 2
    assert whole == sketches(net, samples, path)[0]
    assert len(forwards) == 2


def test_the_same_rows_in_another_order_and_file_are_the_same(net, data, tmp_path, forwards):
    sketches(net, load_samples(data, net.inputs), tmp_path / "c.npz")
    other = tmp_path / "other.npz"
    np.savez(other, x=np.random.default_rng(1).permutation(np.load(data)["x"]))
    sketches(net, load_samples(str(other), net.inputs), tmp_path / "c.npz")
    assert len(forwards) == 1


@pytest.mark.parametrize("change", ["rows", "prep", "weights"])
def test_other_rows_or_weights_are_looked_at_anew(net, data, tmp_path, forwards, change):
    samples = load_samples(data, net.inputs)
    sketches(net, samples, tmp_path / "c.npz")
    if change == "weights":
        w = next(c for c in net.constants() if c.name == "w")
        w.values = w.values * 2
    elif change == "rows":
        samples = samples.take(0, 39)
    else:
        samples = load_samples(data, net.inputs, prep="scale=2")
    _, note = sketches(net, samples, tmp_path / "c.npz")
    assert len(forwards) == 2
    assert "is of another model or of other rows; it is made anew" in note or change == "weights"


def test_two_models_on_the_same_rows_share_a_file(net, data, tmp_path, forwards):
    samples, other = load_samples(data, net.inputs), net.copy()
    w = next(c for c in other.constants() if c.name == "w")
    w.values = w.values * 2
    for _ in range(2):
        sketches(net, samples, tmp_path / "c.npz")
        sketches(other, samples, tmp_path / "c.npz")
    assert len(forwards) == 2


def damage(path, how):
    whole = path.read_bytes()
    if how == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "bits":
        path.write_bytes(whole[: len(whole) - 400] + bytes(b ^ 0x55 for b in whole[-400:-300]) + whole[-300:])
    else:
        sections = read_sketches(path)
        one = next(iter(next(iter(sections.values())).values()))
        if how == "sum":
            one.bins[5] += 1
        elif how == "negative":
            one.bins[5:7] = (-1, 1)
        elif how == "extremes":
            one.low = np.nan
        elif how == "exponent":
            one.exponent = 1000
        write_sketches(path, sections)


@pytest.mark.parametrize("how", ["cut", "bits", "sum", "negative", "extremes", "exponent"])
def test_a_damaged_file_is_not_trusted(net, data, tmp_path, forwards, how):
    samples, path = load_samples(data, net.inputs), tmp_path / "c.npz"
    first, _ = sketches(net, samples, path)
    damage(path, how)
    again, note = sketches(net, samples, path)
    assert (len(forwards), again) == (2, first)
    assert "a damaged sketch cache; it is made anew" in note
    assert sketches(net, samples, path)[1].startswith("3 values are known")


def test_another_version_is_made_anew(net, data, tmp_path, forwards, monkeypatch):
    samples, path = load_samples(data, net.inputs), tmp_path / "c.npz"
    monkeypatch.setattr("zc.passes.quantize.cache.FORMAT", 99)
    sketches(net, samples, path)
    monkeypatch.undo()
    _, note = sketches(net, samples, path)
    assert "a sketch cache of another version (99, not 1); it is made anew" in note


@pytest.mark.parametrize("content", ["npz", "text", "empty", "pickle"])
def test_a_file_that_is_something_else_is_refused_and_left_alone(net, data, tmp_path, content):
    path = tmp_path / "c.npz"
    if content == "npz":
        np.savez(path, x=np.zeros(3))
    elif content == "pickle":
        np.savez(path, about=np.array([{"a": 1}], object))
    else:
        path.write_text("hello" if content == "text" else "")
    before = path.read_bytes()
    with pytest.raises(ZcError, match="is no sketch cache; name another file"):
        sketches(net, load_samples(data, net.inputs), path)
    assert path.read_bytes() == before


def test_a_member_that_unfolds_to_more_than_told_is_refused(tmp_path):
    path = tmp_path / "c.npz"
    write_sketches(path, {origin(): {(0, "x"): sketch_of([1])}})
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    big = io.BytesIO()
    np.save(big, np.zeros(10**6))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in parts.items():
            kind = zipfile.ZIP_STORED if name == "about.npy" else zipfile.ZIP_DEFLATED
            new.writestr(name, big.getvalue() if name == "bins.npy" else content, kind)
    with pytest.raises(ZcError, match="damaged"):
        read_sketches(path)


@settings(deadline=None)
@given(st.lists(hnp.arrays(np.float32, st.integers(0, 50), elements=st.floats(width=32)), min_size=1, max_size=5))
def test_merged_files_are_the_file_of_all(tmp_path_factory, parts):
    folder = tmp_path_factory.mktemp("m")
    paths = [folder / f"{i}.npz" for i in range(len(parts))]
    for i, (path, part) in enumerate(zip(paths, parts, strict=True)):
        write_sketches(path, {origin(1, i + 1): {(0, "x"): sketch_of(part)}})
    whole = {origin(len(parts), sum(range(len(parts) + 1))): {(0, "x"): sketch_of(*parts)}}
    assert states(merge_sketches(paths)) == states(whole)


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    a, b, c = (tmp_path / name for name in "abc")
    write_sketches(a, {origin(): {(0, "x"): sketch_of([1])}})
    write_sketches(b, {origin(): {(0, "y"): sketch_of([1])}})
    write_sketches(c, {origin(model="cd" * 32): {(0, "x"): sketch_of([1])}})
    with pytest.raises(ZcError, match="holds other values than"):
        merge_sketches([a, b])
    with pytest.raises(ZcError, match="of 2 models cannot be added up"):
        merge_sketches([a, c])
    with pytest.raises(ZcError, match="no such file"):
        merge_sketches([a, tmp_path / "d"])


def test_the_hash_of_rows_is_a_sum_that_knows_their_content(net, data):
    samples = load_samples(data, net.inputs)
    parts = [origin_of(net, samples.take(a, b)) for a, b in ((0, 7), (7, 33), (33, 40))]
    assert parts[0] + parts[1] + parts[2] == origin_of(net, samples)
    row = hashlib.sha256(b"prep \n" + b"".join(samples.reader.fingerprint(0, 1))).hexdigest()
    assert origin_of(net, samples.take(0, 1)).content == row


def _part(folder, number):
    model = load(folder / "net.onnx")
    ctx = Context(TARGET, load_samples(str(folder / "x.npz"), model.inputs), threads=1)
    sketch_part(model, ctx, number, 2, folder / f"part{number}.npz")


def test_two_processes_add_up_to_the_same_model_as_one(net, data, tmp_path, forwards):
    net.save(tmp_path / "net.onnx")
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_part, args=(tmp_path, number)) for number in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    merge_parts([tmp_path / "part0.npz", tmp_path / "part1.npz"], tmp_path / "all.npz")
    results = []
    for cache in ("", str(tmp_path / "all.npz")):
        model = load(tmp_path / "net.onnx")
        ctx = Context(TARGET, load_samples(data, model.inputs), threads=1)
        options = {"float_if_faster": False, "equalize": False, "cache": cache}
        result = Quantize(**options).run(model, ctx)
        results.append(model.to_proto().SerializeToString())
        known = [n.what for n in result.notes if n.where == "cache"]
    assert results[0] == results[1]
    assert len(forwards) == 1
    assert "3 values are known from" in known[0] or "4 values" in known[0]


def test_a_part_without_rows_is_an_error(net, data, tmp_path):
    ctx = Context(TARGET, load_samples(data, net.inputs), threads=1)
    with pytest.raises(ZcError, match="part 5 of 5 has no rows"):
        sketch_part(net, ctx, 5, 5, tmp_path / "p.npz")


def test_the_file_is_no_part_of_the_effective_pipeline(net, data, tmp_path):
    ctx = Context(TARGET, load_samples(data, net.inputs), threads=1)
    result = Quantize(float_if_faster=False, cache=str(tmp_path / "c.npz")).run(net, ctx)
    assert result.chose.cache == ""
    assert (tmp_path / "c.npz").exists()
