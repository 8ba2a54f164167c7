from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zc.data import Samples, load_samples
from zc.errors import ZcError
from zc.ir.model import Model, from_text, load
from zc.measure.evaluate import compare, evaluate, evaluate_all
from zc.measure.metrics import METRICS, ranks
from zc.measure.moments import Moments
from zc.measure.tensor_error import cosine, max_abs, sqnr

IDENTITY = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,C] x) => (float[N,C] y) { y = Identity (x) }"""
SHIFTED = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,C] x) => (float[N,C] y) <float[1] s = {0.5}> { y = Add (x, s) }"""
NEGATED = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,C] x) => (float[N,C] y) { y = Neg (x) }"""


def samples(model: Model, folder: Path, **arrays: Any) -> Samples:
    np.savez(folder / "data.npz", **arrays)
    return load_samples(str(folder / "data.npz"), model.inputs)


def one_hot(ids: list[int], classes: int) -> Any:
    return np.eye(classes, dtype=np.float32)[ids]


def test_top1_and_top5_count_rows_whose_label_is_among_the_best(tmp_path: Path):
    model = from_text(IDENTITY)
    scores = np.array([[9, 8, 7, 6, 5, 4, 3], [9, 8, 7, 6, 5, 4, 3], [0, 1, 2, 3, 4, 5, 6]], np.float32)
    data = samples(model, tmp_path, x=scores, y=np.array([0, 4, 1]))
    assert evaluate(model, data, "top1").value == pytest.approx(100 / 3)
    score = evaluate(model, data, "top5", batch=2)
    assert (score.value, score.unit, score.rows) == (pytest.approx(200 / 3), "%", 3)


def test_equal_scores_rank_as_argmax_does():
    scores = np.array([[1, 3, 3, 0]])
    assert ranks(scores, np.array([1])) == [0]
    assert ranks(scores, np.array([2])) == [1]


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("metric", sorted(METRICS))
def test_the_batch_size_is_no_part_of_the_figure(metric: str, batch: int, tmp_path: Path):
    rng = np.random.default_rng(1)
    model, other = from_text(IDENTITY), from_text(SHIFTED)
    data = samples(model, tmp_path, x=rng.random((11, 8), np.float32), y=rng.integers(0, 8, 11))
    kind = METRICS[metric].truth
    got = evaluate(other, data, metric, reference=None if kind == "labels" else model, batch=batch)
    want = evaluate(other, data, metric, reference=None if kind == "labels" else model, batch=11)
    assert got.value == pytest.approx(want.value, rel=1e-9)
    if metric not in ("mse", "mae", "agree"):
        assert got.error == pytest.approx(want.error, rel=1e-4)


def test_distances_to_the_reference_are_what_their_formulas_say(tmp_path: Path):
    model, other = from_text(IDENTITY), from_text(SHIFTED)
    x = np.random.default_rng(2).random((6, 5)).astype(np.float32)
    data = samples(model, tmp_path, x=x)
    y = x + np.float32(0.5)

    def figure(metric: str) -> float:
        return evaluate(other, data, metric, reference=model).value

    assert figure("mse") == pytest.approx(0.25, rel=1e-5)
    assert figure("mae") == pytest.approx(0.5, rel=1e-5)
    assert figure("psnr") == pytest.approx(10 * np.log10(1 / 0.25), rel=1e-5)
    assert figure("sqnr") == pytest.approx(10 * np.log10((x.astype(float) ** 2).sum() / (30 * 0.25)), rel=1e-5)
    assert figure("sqnr") == pytest.approx(sqnr(y, x), rel=1e-5)
    assert figure("cosine") == pytest.approx(np.mean([cosine(a, b) for a, b in zip(x, y, strict=True)]), rel=1e-6)
    assert figure("agree") == 100


def test_psnr_takes_integer_images_as_labels(tmp_path: Path):
    model = from_text(IDENTITY)
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    data = samples(model, tmp_path, x=labels.astype(np.float32) / 255 + np.float32(0.1), y=labels)
    assert evaluate(model, data, "psnr").value == pytest.approx(20, rel=1e-4)


def test_psnr_refuses_a_reference_beyond_one(tmp_path: Path):
    model = from_text(IDENTITY)
    data = samples(model, tmp_path, x=np.full((2, 3), 200, np.float32))
    with pytest.raises(ZcError, match=r"psnr is for images in 0\.\.1"):
        evaluate(model, data, "psnr", reference=model)


def test_two_models_are_compared_row_by_row(tmp_path: Path):
    model, other = from_text(IDENTITY), from_text(SHIFTED)
    rng = np.random.default_rng(3)
    data = samples(model, tmp_path, x=rng.normal(size=(50, 4)).astype(np.float32), y=rng.integers(0, 4, 50))
    same = compare(model, other, data, "top1")
    assert same.a.value == same.b.value
    assert same.a.error is not None
    assert same.a.error > 1
    assert (same.difference.value, same.difference.error) == (0, pytest.approx(0, abs=1e-6))
    worse = compare(model, from_text(NEGATED), data, "agree")
    assert worse.a.value == 100
    assert worse.drop == pytest.approx(100 - worse.b.value)


def test_the_paired_error_is_that_of_the_differences_of_rows(tmp_path: Path):
    model, other = from_text(IDENTITY), from_text(NEGATED)
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(40, 3)).astype(np.float32), rng.integers(0, 3, 40)
    result = compare(model, other, samples(model, tmp_path, x=x, y=y), "top1", batch=7)
    hits = [100.0 * (s.argmax(1) == y) for s in (x, -x)]
    assert result.difference.value == pytest.approx((hits[1] - hits[0]).mean())
    assert result.difference.error == pytest.approx((hits[1] - hits[0]).std(ddof=1) / np.sqrt(40), rel=1e-5)


def test_three_models_are_each_compared_with_the_first(tmp_path: Path):
    models = [from_text(text) for text in (IDENTITY, SHIFTED, NEGATED)]
    data = samples(models[0], tmp_path, x=np.random.default_rng(5).normal(size=(9, 4)).astype(np.float32))
    scores, differences = evaluate_all(models, data, "mae")
    assert [s.value for s in scores[:2]] == [0, pytest.approx(0.5, rel=1e-5)]
    assert [d.value for d in differences] == [s.value for s in scores[1:]]
    assert not scores[0].higher_is_better


def test_a_label_offset_is_told_and_not_applied(tmp_path: Path):
    model = from_text(IDENTITY)
    data = samples(model, tmp_path, x=one_hot([1, 2, 3, 4, 5], 6), y=np.array([0, 1, 2, 3, 4]))
    score = evaluate(model, data, "top1")
    assert score.value == 0
    assert "100 % with label offset 1" in score.notes[0]
    right = evaluate(model, data, "top1", label_offset=1)
    assert (right.value, right.notes) == (100, ())


def test_labels_of_one_class_are_told(tmp_path: Path):
    model = from_text(IDENTITY)
    data = samples(model, tmp_path, x=one_hot([0] * 25, 3), y=np.zeros(25, np.int64))
    assert "same label" in evaluate(model, data, "top1").notes[0]


@pytest.mark.parametrize(
    ("labels", "metric", "words"),
    [
        (None, "top1", "agree"),
        (None, "agree", "--reference"),
        (None, "mse", "neither is given"),
        (None, "topp1", "did you mean 'top1'"),
        (np.array([0, 1, 7]), "top1", "label 7 with offset 0 is outside of the 4 classes"),
        (np.array([0.5, 1, 2]), "top1", "one class number a row"),
        (np.eye(4)[:3], "top1", "one class number a row"),
        (np.array([0, 1, 2]), "top5", "top5 says nothing of 4 classes"),
        (np.array([0, 1, 2]), "mse", "for class numbers use top1"),
    ],
)
def test_what_a_metric_lacks_is_said_with_what_to_do(labels: Any, metric: str, words: str, tmp_path: Path):
    model = from_text(IDENTITY)
    arrays = {"x": one_hot([0, 1, 2], 4)} | ({} if labels is None else {"y": labels})
    with pytest.raises(ZcError, match=words):
        evaluate(model, samples(model, tmp_path, **arrays), metric)


def test_outputs_of_other_shapes_are_refused(tmp_path: Path):
    model = from_text(IDENTITY)
    short = from_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,C] x) => (float[N,1] y) { y = ReduceMax <axes=[1]> (x) }""")
    with pytest.raises(ZcError, match=r"is \[3, 1\] and the reference's output \[3, 4\]"):
        evaluate(short, samples(model, tmp_path, x=one_hot([0, 1, 2], 4)), "sqnr", reference=model)


def test_nan_in_the_outputs_is_no_figure(tmp_path: Path):
    broken = from_text("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,C] x) => (float[N,C] y) { l = Neg (x)
            y = Sqrt (l) }""")
    data = samples(broken, tmp_path, x=np.ones((3, 4), np.float32), y=np.array([0, 1, 2]))
    with pytest.raises(ZcError, match="NaN"):
        evaluate(broken, data, "top1")


TWO = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,C] x) => (float[N,C] p, float[N,C] q) { p = Identity (x)
        q = Neg (x) }"""


def test_of_several_outputs_one_is_named_or_distances_take_all(tmp_path: Path):
    model = from_text(TWO)
    data = samples(model, tmp_path, x=one_hot([0, 1, 2], 4), y=np.array([0, 1, 2]))
    with pytest.raises(ZcError, match="it has p, q; name one"):
        evaluate(model, data, "top1")
    assert evaluate(model, data, "top1", output="p").value == 100
    with pytest.raises(ZcError, match="did you mean 'p'"):
        evaluate(model, data, "top1", output="pp")
    assert evaluate(model, data, "mse", reference=model).value == 0


def test_a_metric_of_ones_own_gets_all_rows_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "own_metric_whole.py").write_text(
        "def f(outputs, labels):\n    return outputs['y'][:, 0].max() + len(labels)\n"
        "def g(outputs, labels):\n    return outputs['y'][:, 0]\n"
        "def h(outputs, labels):\n    raise KeyError('z')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model, other = from_text(IDENTITY), from_text(SHIFTED)
    x = np.arange(20, dtype=np.float32).reshape(5, 4)
    data = samples(model, tmp_path, x=x, y=np.zeros(5))
    whole = compare(model, other, data, "own_metric_whole:f", batch=2)
    assert (whole.a.value, whole.a.error, whole.difference.value) == (16 + 5, None, 0.5)
    rows = compare(model, other, data, "own_metric_whole:g", batch=2)
    assert rows.a.value == x[:, 0].mean()
    assert rows.a.error == pytest.approx(x[:, 0].std(ddof=1) / np.sqrt(5))
    assert (rows.difference.value, rows.difference.error) == (0.5, 0)
    with pytest.raises(ZcError, match="KeyError"):
        evaluate(model, data, "own_metric_whole:h")
    with pytest.raises(ZcError, match="has no function 'k'"):
        evaluate(model, data, "own_metric_whole:k")
    with pytest.raises(ZcError, match="no module 'own_metric_nowhere'; install it"):
        evaluate(model, data, "own_metric_nowhere:k")


def test_progress_counts_batches(tmp_path: Path):
    model = from_text(IDENTITY)
    seen: list[Any] = []

    def track(items: Any, label: str, total: int | None) -> Any:
        seen.append(total)
        return iter(items)

    data = samples(model, tmp_path, x=one_hot([0, 1, 2], 4), y=np.array([0, 1, 2]))
    evaluate(model, data, "top1", batch=2, track=track)
    assert seen == [2]


def test_moments_of_parts_are_those_of_the_whole():
    values = np.random.default_rng(6).normal(3, 2, (100, 2))
    moments = Moments(2)
    for part in np.split(values, [1, 40, 41]):
        moments.add(part)
    assert moments.mean == pytest.approx(values.mean(axis=0))
    assert moments.error_of(lambda mean: float(mean[0])) == pytest.approx(values[:, 0].std(ddof=1) / 10, rel=1e-6)


def test_tensor_errors():
    want = np.array([[3.0, 4.0]])
    assert sqnr(want, want) == float("inf")
    assert sqnr(want * 1.1, want) == pytest.approx(20)
    assert sqnr(np.ones(2), np.zeros(2)) == float("-inf")
    assert cosine(np.zeros(2), np.zeros(2)) == 1
    assert cosine(np.zeros(2), np.ones(2)) == 0
    assert max_abs(want + np.array([0.5, -2]), want) == 2
    with pytest.raises(ValueError, match="cannot be compared"):
        max_abs(want, want[0])


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "data", "rows", "prep", "offset", "low", "high"),
    [
        ("resnet20_cifar10", "cifar10_test4k.npz", "0:1000", "imagenet", 0, 90, 94),
        ("squeezenet10_imagenet", "imagenet500", "200:300", "caffe crop=227", 0, 50, 75),
        ("mobilenetv2_10_imagenet_qatsrc", "imagenet500", "200:300", "pm1 crop=224", 1, 78, 95),
    ],
)
def test_real_models_are_as_accurate_as_they_are_known_to_be(
    shared: Path, name: str, data: str, rows: str, prep: str, offset: int, low: float, high: float
):
    model = load(shared / "models" / f"{name}.onnx")
    given = load_samples(str(shared / "data" / data), model.inputs, rows=rows, prep=prep)
    assert low < evaluate(model, given, "top1", label_offset=offset).value < high
