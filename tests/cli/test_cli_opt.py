"""`zc opt` as its user meets it: what it writes, what it says, and what it never damages."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from zc.cli import show
from zc.figures import size_text
from zc.ir.model import from_text, load
from zc.pipeline.base import Note
from zc.pipeline.verify import Movement

GOLDEN = Path(__file__).resolve().parents[2] / "golden_models"
DIGITS = GOLDEN / "digits_cnn.onnx"
CALIB = GOLDEN / "digits_calib.npz"
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "strip_softmax.py"

SMALL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x) => (float[N,4] y) <float[4] b = {1.0, 2.0, 3.0, 4.0}> {
    i = Identity (x)
    h = Add (i, b)
    y = Softmax <axis=-1> (h)
}"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    from_text(SMALL).save(path)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output file that exists already and must survive every failure."""
    path = tmp_path / "out.onnx"
    path.write_bytes(b"precious")
    return path


def test_the_main_job(zc, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    done = zc("opt", DIGITS, "-p", "prune:ratio=0.3,quantize", "--calib", CALIB, "-o", out)
    assert done.code == 0, done.err
    assert out.stat().st_size < 0.5 * DIGITS.stat().st_size
    x = np.load(GOLDEN / "digits_test.npz")
    logits = ort.InferenceSession(out).run(None, {"input": x["x"]})[0]
    assert logits.shape == (500, 10)
    assert "clean,prune:ratio=0.3,clean,quantize" in done.err


def test_quiet_leaves_the_warnings_of_passes(zc, small: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=np.ones((4, 4), np.float32))
    done = zc("opt", small, "-p", "quantize", "--calib", tmp_path / "rows.npz", "-o", tmp_path / "made.onnx", "-q")
    assert done.code == 0, done.err
    assert "warning small.onnx: nothing to quantise" in done.err
    assert "left as it was" not in done.err
    assert "nodes 3 -> 2" not in done.err


def test_the_same_input_gives_the_same_bytes(zc, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        assert zc("opt", DIGITS, "-p", "prune,quantize", "--calib", CALIB, "-o", tmp_path / name).code == 0
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_replay_makes_the_same_model(zc, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    zc("opt", DIGITS, "-p", "quantize", "--calib", CALIB, "--calib-rows", "0:64", "-o", out)
    assert zc("replay", out, "--source", DIGITS, "--calib", CALIB).code == 0
    wrong = zc("replay", out, "--source", DIGITS, "--calib", GOLDEN / "digits_test.npz")
    assert (wrong.code, "are not those that were used" in wrong.err) == (2, True)
    other = zc("replay", out, "--source", GOLDEN / "digits_cnn_bn.onnx", "--calib", CALIB)
    assert (other.code, "is not the file" in other.err) == (2, True)
    source = tmp_path / "source.onnx"
    source.write_bytes(DIGITS.read_bytes())
    onto = zc("replay", out, "--source", source, "--calib", CALIB, "-o", source)
    assert (onto.code, "is the model it was made from" in onto.err) == (2, True)
    assert source.read_bytes() == DIGITS.read_bytes()


def test_the_kind_of_processor_is_told_and_replayed(zc, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    done = zc("opt", DIGITS, "-p", "quantize", "--calib", CALIB, "--cpu", "avx2", "-o", out)
    assert done.code == 0
    assert "cannot saturate 16 bits" in done.err
    assert load(out).metadata["zc.target"] == "ort-cpu/avx2"
    assert zc("replay", out, "--source", DIGITS, "--calib", CALIB).code == 0


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("zc.source", "../../etc/model.onnx", "names no file that it was made from"),
        ("zc.source", "", "names no file that it was made from"),
        ("zc.plugins", "[1]", "its zc metadata is damaged"),
        ("zc.plugins", '[["a.py", 3]]', "its zc metadata is damaged"),
    ],
)
def test_replay_does_not_trust_what_a_file_says(zc, small: Path, tmp_path: Path, key: str, value: str, message: str):
    out = tmp_path / "out.onnx"
    assert zc("opt", small, "-p", "clean", "-o", out).code == 0
    model = load(out)
    model.metadata[key] = value
    model.save(out)
    done = zc("replay", out)
    assert (done.code, message in done.err) == (2, True), done.err


def test_without_samples_the_user_is_told(zc, tmp_path: Path) -> None:
    done = zc("opt", DIGITS, "-p", "quantize", "-o", tmp_path / "out.onnx")
    assert done.code == 0
    assert "SYNTHETIC" in done.err


def test_a_custom_pass_from_a_file(zc, small: Path, out: Path) -> None:
    done = zc("opt", small, "--plugin", EXAMPLE, "-p", "strip-softmax", "-o", out)
    assert done.code == 0
    assert [n.op for n in load(out).graph.nodes] == ["Identity", "Add"]


def test_a_pass_of_an_installed_package(zc, tmp_path: Path, out: Path) -> None:
    pytest.importorskip("zc_negate", reason="tests/plugin is not installed: pip install ./tests/plugin")
    from_text(SMALL.replace("Add", "Sub")).save(tmp_path / "sub.onnx")
    assert zc("opt", tmp_path / "sub.onnx", "-p", "sub-to-add", "-o", out).code == 0
    assert [n.op for n in load(out).graph.nodes] == ["Identity", "Add", "Softmax"]


def test_a_missed_gate_writes_nothing(zc, tmp_path: Path, out: Path) -> None:
    done = zc(
        "opt", DIGITS, "-p", "prune:ratio=0.9", "--eval", GOLDEN / "digits_test.npz", "--max-drop", "0.5%", "-o", out
    )
    assert done.code == 3
    assert "at most 0.5 was allowed" in done.err
    assert out.read_bytes() == b"precious"


def test_samples_that_differ_from_those_of_the_gate_are_warned_of(zc, tmp_path: Path) -> None:
    with np.load(CALIB) as file:
        np.savez(tmp_path / "scaled.npz", **{name: file[name] / 100 for name in file.files})
    test = GOLDEN / "digits_test.npz"
    options = ("-p", "quantize", "--eval", test, "--no-bench", "-o", tmp_path / "out.onnx")
    assert "lie outside of what calibration saw" in zc("opt", DIGITS, *options, "--calib", tmp_path / "scaled.npz").err
    assert "calibration saw" not in zc("opt", DIGITS, *options, "--calib", CALIB).err


def test_json_holds_every_pass(zc, tmp_path: Path) -> None:
    zc("opt", DIGITS, "-p", "clean", "-o", tmp_path / "o.onnx", "--json", tmp_path / "r.json")
    report = json.loads((tmp_path / "r.json").read_text())
    assert [p["name"] for p in report["passes"]] == ["clean"]
    assert report["total"]["relative"] <= 1e-5


def test_dumps_and_prints(zc, tmp_path: Path) -> None:
    done = zc("opt", DIGITS, "-p", "clean,dce", "--dump-ir", tmp_path / "ir", "--print-after", "dce")
    assert done.code == 0
    assert sorted(p.name for p in (tmp_path / "ir").iterdir()) == ["00-clean.txt", "01-dce.txt"]
    assert done.out.startswith("# after 1 dce\n")


def test_a_dry_run_shows_the_effective_pipeline(zc) -> None:
    done = zc("opt", "missing.onnx", "-p", "prune,quantize", "--dry-run")
    assert (done.code, done.out.strip()) == (0, "clean,prune,clean,quantize")


def test_external_data_beside_the_output(zc, tmp_path: Path) -> None:
    out = tmp_path / "big.onnx"
    assert zc("opt", DIGITS, "-p", "clean", "-o", out, "--external-data").code == 0
    assert (tmp_path / "big.onnx.data").stat().st_size > 50_000
    assert out.stat().st_size < 20_000
    assert load(out).to_proto() is not None


def test_sizes_are_those_of_all_files_of_a_model_and_of_no_other(zc, tmp_path: Path) -> None:
    source, out = tmp_path / "source.onnx", tmp_path / "out.onnx"
    load(DIGITS).save(source, external=True)
    (tmp_path / "out.onnx.data").write_bytes(bytes(10**6))  # somebody else's
    done = zc("opt", source, "-p", "clean", "-o", out)
    before = source.stat().st_size + (tmp_path / "source.onnx.data").stat().st_size
    assert f"{size_text(before)} -> {size_text(out.stat().st_size)}" in done.out


def damaged(path: Path, how: str) -> Path:
    data = DIGITS.read_bytes()
    made = {
        "truncated": data[: len(data) // 2],
        "random": np.random.default_rng(0).bytes(5000),
        "empty": b"",
        "text": b"hello, I am no model\n",
    }
    path.write_bytes(made[how])
    return path


def assert_refused(done, out: Path, *words: str) -> None:
    """Exit 2, one line on stderr that holds the words, nothing written."""
    assert done.code == 2, done
    lines = [line for line in done.err.splitlines() if line.startswith("zc: ")]
    assert len(lines) == 1, done.err
    assert "Traceback" not in done.err
    for word in words:
        assert word in lines[0]
    assert out.read_bytes() == b"precious"
    assert [p.name for p in out.parent.iterdir() if p.name.startswith((".", "zc-repro"))] == []


@pytest.mark.parametrize("how", ["truncated", "random", "empty", "text"])
def test_a_damaged_model(zc, tmp_path: Path, out: Path, how: str) -> None:
    bad = damaged(tmp_path / "bad.onnx", how)
    assert_refused(zc("opt", bad, "-p", "clean", "-o", out), out, "bad.onnx")


def test_a_missing_model(zc, tmp_path: Path, out: Path) -> None:
    assert_refused(zc("opt", tmp_path / "no.onnx", "-p", "clean", "-o", out), out, "no such file")


def test_a_folder(zc, tmp_path: Path, out: Path) -> None:
    assert_refused(zc("opt", tmp_path, "-p", "clean", "-o", out), out, "folder")


def test_an_output_that_cannot_be_written(zc, small: Path, tmp_path: Path, out: Path) -> None:
    done = zc("opt", small, "-p", "clean", "-o", tmp_path / "none" / "o.onnx")
    assert_refused(done, out, "cannot be written")
    assert_refused(zc("opt", small, "-p", "clean", "-o", tmp_path), out, "must end in .onnx")


def test_the_output_may_not_be_the_input(zc, small: Path, out: Path) -> None:
    before = small.read_bytes()
    assert_refused(zc("opt", small, "-p", "clean", "-o", small), out, "is the input itself")
    assert small.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SMALL.replace("Softmax", "Softmaxx"), ["Softmaxx"]),
        (SMALL.replace('"" : 17', '"" : 9999'), ["9999"]),
        (SMALL.replace('"" : 17', '"" : 3').replace("<axis=-1>", ""), ["3"]),
    ],
)
def test_unknown_operators_and_opsets(zc, tmp_path: Path, out: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "odd.onnx"
    from_text(text).save(path)
    assert_refused(zc("opt", path, "-p", "clean", "-o", out), out, *words)


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        ("quantise", ["unknown pass 'quantise'", "did you mean 'quantize'"]),
        ("prune:ration=0.3", ["no option 'ration'", "did you mean 'ratio'"]),
        ("prune:ratio=much", ["'ratio' takes number"]),
        ("prune:ratio=1.5", ["ratio"]),
        ("prune:skip=/nothing/like/this", ["/nothing/like/this"]),
        ("quantize:skip=/nothing/like/this", ["/nothing/like/this"]),
    ],
)
def test_mistakes_in_the_pipeline(zc, out: Path, pipeline: str, words: list[str]) -> None:
    assert_refused(zc("opt", DIGITS, "-p", pipeline, "--calib", CALIB, "-o", out), out, *words)


def arrays(case: str) -> dict[str, np.ndarray]:
    x = np.load(CALIB)["x"][:8].copy()
    if case == "nan":
        x[3, 0, 2, 2] = np.nan
    return {
        "names": {"picture": x, "other": x},
        "shape": {"input": x[:, :, :7]},
        "dtype": {"input": np.array(["a"] * 8)},
        "nan": {"input": x},
        "empty": {"input": x[:0]},
    }[case]


@pytest.mark.parametrize("case", ["names", "shape", "dtype", "nan", "empty"])
def test_wrong_calibration_data(zc, tmp_path: Path, out: Path, case: str) -> None:
    np.savez(tmp_path / "calib.npz", **arrays(case))
    done = zc("opt", DIGITS, "-p", "quantize", "--calib", tmp_path / "calib.npz", "-o", out)
    assert_refused(done, out, "calib.npz")


def test_missing_calibration_data(zc, tmp_path: Path, out: Path) -> None:
    assert_refused(zc("opt", DIGITS, "-p", "quantize", "--calib", tmp_path / "no.npz", "-o", out), out, "no.npz")
    done = zc("opt", DIGITS, "-p", "quantize", "--calib", CALIB, "--calib-rows", "0:9999", "-o", out)
    assert_refused(done, out, "9999")


def test_nan_in_a_weight(zc, tmp_path: Path, out: Path) -> None:
    model = load(DIGITS)
    weight = next(c for c in model.constants() if len(c.shape) == 4)
    values = weight.values.copy()
    values[0, 0, 0, 0] = np.nan
    weight.values = values
    model.save(tmp_path / "nan.onnx")
    for pipeline in ("clean", "prune", "quantize"):
        done = zc("opt", tmp_path / "nan.onnx", "-p", pipeline, "--calib", CALIB, "-o", out)
        assert_refused(done, out, weight.name)


@pytest.mark.parametrize("location", ["missing.bin", "../outside.bin", "/etc/hostname"])
def test_external_data_missing_or_outside(zc, tmp_path: Path, out: Path, location: str) -> None:
    (tmp_path / "outside.bin").write_bytes(bytes(64))
    proto = onnx.parser.parse_model(SMALL)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "ext.onnx").write_bytes(proto.SerializeToString())
    assert_refused(zc("opt", tmp_path / "m" / "ext.onnx", "-p", "clean", "-o", out), out, location)


def test_dynamic_shapes_everywhere_work(zc, tmp_path: Path, out: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,C,H,W] x) => (float[N,M,P,Q] y) <float[4,3,1,1] w = {1,2,3,4,5,6,7,8,9,10,11,12}> {
        h = Conv <kernel_shape=[1,1]> (x, w)
        y = Relu (h)
    }"""
    from_text(text).save(tmp_path / "dynamic.onnx")
    done = zc("opt", tmp_path / "dynamic.onnx", "-p", "prune,quantize", "-o", out)
    assert done.code == 0, done.err
    assert ort.InferenceSession(out).run(None, {"x": np.zeros((1, 3, 5, 7), np.float32)})[0].shape == (1, 4, 5, 7)


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        ("prune:ratio=1.5", ["ratio is 1.5", "below 1"]),
        ("prune:macs=0.0001", ["macs=0.0001: it gets to", "cannot go below", "pinned are", "best_effort=true"]),
        ("prune:ratio=0.5:skip=/nothing/*", ["skip=/nothing/* matches no node and no weight"]),
        ("prune:ratio=0.5:only=con1", ["only=con1 matches no node and no weight (did you mean 'con"]),
    ],
)
def test_a_prune_that_cannot_be_done(zc, out: Path, pipeline: str, words: list[str]) -> None:
    assert_refused(zc("opt", DIGITS, "-p", pipeline, "-o", out), out, *words)


def test_best_effort_writes_as_far_as_it_gets(zc, out: Path) -> None:
    done = zc("opt", DIGITS, "-p", "prune:params=0.0001", "--best-effort", "--no-bench", "-o", out)
    assert done.code == 0, done.err
    assert "which is as far as it gets" in done.err
    assert load(out).nbytes() < load(DIGITS).nbytes() / 10


def test_nothing_left_to_prune_is_said(zc, out: Path) -> None:
    done = zc("opt", DIGITS, "-p", "prune:ratio=0.5:skip=*", "--no-bench", "-o", out)
    assert done.code == 0, done.err
    assert "no channel was removed: all channels are pinned" in done.err


def test_options_that_speak_of_nothing_are_refused(zc, small: Path, out: Path) -> None:
    assert_refused(zc("opt", small, "-p", "clean", "--prep", "unit", "-o", out), out, "--calib DATA is not given")
    assert_refused(zc("opt", small, "-p", "clean", "--max-drop", "1", "-o", out), out, "--eval")
    assert_refused(zc("opt", small, "-p", "clean", "--best-effort", "-o", out), out, "no pass of 'clean' has a goal")
    assert_refused(zc("opt", small, "-p", "clean", "--eval-rows", "0:4", "-o", out), out, "--eval DATA is not given")
    rows = ("--calib-rows", "0:4", "--eval", CALIB)
    assert_refused(zc("opt", small, "-p", "clean", *rows, "-o", out), out, "--calib DATA is not given")
    assert_refused(zc("opt", small, "-p", "clean"), out, "-o OUT.onnx")
    assert_refused(zc("opt", small, "-p", "clean", "--print-after", "prune", "-o", out), out, "no such pass")


def test_json_has_no_number_that_readers_refuse(zc, small: Path, tmp_path: Path) -> None:
    zc("opt", small, "-p", "clean", "-o", tmp_path / "o.onnx", "--json", tmp_path / "r.json")

    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is not JSON")

    report = json.loads((tmp_path / "r.json").read_text(), parse_constant=refuse)
    assert report["passes"][0]["movement"]["sqnr_db"] is None  # nothing moved: infinite


def test_a_figure_before_and_after_is_one_and_nodes_are_told_once(zc, tmp_path: Path) -> None:
    done = zc("opt", DIGITS, "-p", "prune:ratio=0.3", "--calib", CALIB, "-o", tmp_path / "o.onnx")
    assert "params 20,234 -> " in done.err
    assert "params before" not in done.err
    assert "nodes before" not in done.err


def test_rules_that_end_in_before_and_after_are_two_figures() -> None:
    stats = {"fuse: add into the layer before": 1, "fuse: add into the layer after": 2, "bytes_before": 3}
    assert show.stat_parts(stats) == [
        "fuse: add into the layer before 1",
        "fuse: add into the layer after 2",
        "bytes before 3",
    ]


@pytest.mark.parametrize(
    ("moved", "text"),
    [
        (Movement(0.1, 20.0, "y"), "SQNR 20.0 dB"),
        (Movement(float("inf"), float("inf"), "boxes"), "'boxes' differs in size or in where it is finite"),
        (Movement(0.25, float("inf"), "ids"), "'ids' differs by 0.2 of its largest value"),
    ],
)
def test_how_far_outputs_moved_is_told_where_no_float_can_tell(moved: Movement, text: str) -> None:
    assert show.moved_text(moved) == text


def test_a_long_reason_is_one_line_in_a_pipe(capsys) -> None:
    out = show.console()
    show.notes(out, [Note("declined", f"/a/long/name/of/a/node/{i}/MatMul", "why not " * 40) for i in range(9)])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("  /a/long/name/of/a/node/0/MatMul, ")
    assert lines[1].count("why not") == 40
    assert "and 6 more" in lines[1]


def test_the_result_is_timed_beside_the_input_after_lossy_passes(zc, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    assert " ms (x" in zc("opt", DIGITS, "-p", "prune", "-o", out).out
    assert " ms (x" not in zc("opt", DIGITS, "-p", "prune", "-o", out, "--no-bench").out
    assert " ms (x" not in zc("opt", DIGITS, "-p", "clean", "-o", out).out
    assert " ms (x" in zc("opt", DIGITS, "-p", "clean", "-o", out, "--bench").out


def test_a_result_that_is_slower_is_warned_of(zc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zc.cli import speed

    monkeypatch.setattr(speed, "_SLOWER", 0.0)
    done = zc("opt", DIGITS, "-p", "quantize", "--calib", CALIB, "-o", tmp_path / "out.onnx")
    assert "x as long as the original" in done.err


@pytest.mark.parametrize("pipeline", ["prune:ratio=0.3,quantize", "quantize,prune:ratio=0.3"])
def test_pruning_and_quantising_work_in_either_order(zc: Callable, tmp_path: Path, pipeline: str) -> None:
    out = tmp_path / "o.onnx"
    done = zc("opt", DIGITS, "-p", pipeline, "--calib", CALIB, "-o", out, "--no-bench")
    assert done.code == 0
    stats = [json.loads(zc("stats", path, "--json").out) for path in (DIGITS, out)]
    assert stats[1]["macs"] < 0.8 * stats[0]["macs"]
    assert stats[1]["bytes"] < 0.3 * stats[0]["bytes"]
    assert stats[1]["ops"]["QuantizeLinear"] > 5
    assert ("prune,quantize keeps more" in done.err + done.out) == pipeline.startswith("quantize")
