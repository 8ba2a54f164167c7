"""Recipes, rows, augmentation and losses, each by itself."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from zc.data import Samples, load_samples
from zc.errors import ZcError
from zc.ir.model import Model, from_text

torch = pytest.importorskip("torch", reason="torch is not installed (the extra train)")

from zc.training import augment, losses, rows  # noqa: E402
from zc.training.devices import kept_memory  # noqa: E402
from zc.training.heads import find_heads  # noqa: E402
from zc.training.recipe import Recipe  # noqa: E402

IMAGES = np.random.default_rng(0).standard_normal((32, 3, 16, 16)).astype(np.float32)


def generator() -> np.random.Generator:
    return np.random.default_rng(1)


def test_budgets_become_steps() -> None:
    assert Recipe(steps=100, share=0.25).total(7) == 25
    assert Recipe(epochs=2.5).total(10) == 25
    assert Recipe(minutes=1).total(10) is None
    assert [Recipe().total(n) for n in (1, 20, 1000)] == [300, 600, 3000]


def test_the_learning_rate_rises_and_falls() -> None:
    for schedule in ("cosine", "linear", "constant"):
        recipe = Recipe(warmup=0.1, schedule=schedule)
        rates = [recipe.part(step, 200) for step in range(200)]
        assert rates[:20] == sorted(rates[:20])
        assert rates[20:] == sorted(rates[20:], reverse=True)
        assert max(rates) == pytest.approx(1.0)
        assert (rates[-1] < 0.05) == (schedule != "constant")


def test_a_crop_moves_and_mirrors_the_border() -> None:
    out = augment.crop(IMAGES, generator())
    assert out.shape == IMAGES.shape
    padded = np.pad(IMAGES, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    for image, source in zip(out, padded, strict=True):
        assert any(np.array_equal(image, source[:, y : y + 16, x : x + 16]) for y in range(5) for x in range(5))
    assert not np.array_equal(out, IMAGES)


def test_a_flip_mirrors_about_half() -> None:
    out = augment.flip(IMAGES, generator())
    mirrored = [np.array_equal(o, i[..., ::-1]) for o, i in zip(out, IMAGES, strict=True)]
    kept = [np.array_equal(o, i) for o, i in zip(out, IMAGES, strict=True)]
    assert all(m or k for m, k in zip(mirrored, kept, strict=True))
    assert 8 < sum(mirrored) < 24


def test_a_cutout_leaves_all_but_a_square() -> None:
    out = augment.cutout(IMAGES, generator())
    changed = (out != IMAGES).any(1)
    assert (changed.sum((1, 2)) <= 25).all()
    assert changed.any((1, 2)).all()


def test_a_zoom_shows_a_part_at_full_size() -> None:
    slope = np.broadcast_to(np.arange(16, dtype=np.float32), (64, 1, 16, 16))
    out = augment.zoom(slope, generator())[:, 0]
    assert out.shape == (64, 16, 16)
    np.testing.assert_allclose(out, out[:, :1].repeat(16, 1), atol=1e-5)  # rows and columns are stretched apart
    wide = out[:, 0, 8] - out[:, 0, 7]
    assert wide.min() >= 0.5 / np.sqrt(4 / 3) - 1e-5
    assert 0.5 < np.median(wide) < 1
    assert wide.max() <= 1 + 1e-5
    assert out.min() >= 0
    assert out.max() < 15.001


def test_a_zoom_stretches_sides_apart_by_a_third_at_most() -> None:
    both = np.stack(np.meshgrid(*(np.arange(16, dtype=np.float32),) * 2))  # along the width, along the height
    out = augment.zoom(np.broadcast_to(both, (64, 2, 16, 16)), generator())
    wide, high = out[:, 0, 8, 8] - out[:, 0, 8, 7], out[:, 1, 8, 8] - out[:, 1, 7, 8]
    ratio = np.log(wide / high) / np.log(4 / 3)
    assert np.abs(ratio).max() <= 1 + 1e-4
    assert min(ratio.max(), -ratio.min()) > 0.8
    assert (wide * high).min() >= 0.25 - 1e-4


def test_a_zoom_brings_larger_images_to_the_size_of_the_model() -> None:
    chosen = augment.choose_augment(("zoom", "flip"), {"x": IMAGES})
    slope = np.broadcast_to(np.arange(20, dtype=np.float32), (64, 3, 20, 20))
    out = chosen({"x": slope}, generator())[0]["x"]
    assert out.shape == (64, 3, 16, 16)
    steps = np.abs(out[:, 0, 0, 8] - out[:, 0, 0, 7])
    assert 1 < steps.max() <= 20 / 16 + 1e-5
    assert out.max() > 18


def test_mixup_says_what_was_mixed() -> None:
    out, other, share = augment.mixup(IMAGES, generator())
    part = share[:, None, None, None]
    np.testing.assert_allclose(out, part * IMAGES + (1 - part) * IMAGES[other], rtol=1e-5, atol=1e-6)


def test_cutmix_takes_a_rectangle_of_another_and_counts_what_is_left() -> None:
    out, other, share = augment.cutmix(IMAGES, generator())
    own = (out == IMAGES).all(1)
    assert ((out == IMAGES[other]).all(1) | own).all()
    for inside in ~own:
        rows, columns = inside.any(1), inside.any(0)
        np.testing.assert_array_equal(inside, rows[:, None] & columns)
    moved = other != np.arange(len(IMAGES))
    np.testing.assert_allclose(share[moved], own.mean((1, 2))[moved], rtol=1e-6)
    assert share.std() > 0.1


def test_each_row_is_mixed_in_one_of_the_ways() -> None:
    mixer = augment.choose_augment(("mixup", "cutmix"), {"x": IMAGES})
    feeds, mixed = mixer({"x": IMAGES}, generator())
    out = feeds["x"]
    assert mixed is not None
    other, share = mixed
    part = share[:, None, None, None]
    summed = np.isclose(out, part * IMAGES + (1 - part) * IMAGES[other], atol=1e-5).all((1, 2, 3))
    cut = ((out == IMAGES) | (out == IMAGES[other])).all((1, 2, 3))
    assert (summed | cut).all()
    assert min((summed & ~cut).sum(), (cut & ~summed).sum()) > 8


def test_images_are_found_in_either_layout() -> None:
    first = augment.choose_augment(("auto",), {"x": IMAGES})
    assert (first.kinds, first.layouts) == (("crop", "flip"), {"x": "nchw"})
    grey = augment.choose_augment(("auto",), {"x": np.moveaxis(IMAGES[:, :1], 1, -1)})
    assert (grey.kinds, grey.layouts) == (("crop",), {"x": "nhwc"})
    assert augment.choose_augment(("auto",), {"x": IMAGES}, mixes=True).kinds == ("crop", "flip", "mixup")
    assert augment.choose_augment(("auto",), {"x": IMAGES, "z": IMAGES}).kinds == ()
    assert augment.choose_augment(("auto",), {"x": IMAGES[:, 0]}).kinds == ()
    last = augment.choose_augment(("crop",), {"x": np.moveaxis(IMAGES, 1, -1)})
    out, mixed = last({"x": np.moveaxis(IMAGES, 1, -1)}, generator())
    assert mixed is None
    np.testing.assert_array_equal(np.moveaxis(out["x"], -1, 1), augment.crop(IMAGES, generator()))
    with pytest.raises(ZcError, match="the inputs a, b would move apart"):
        augment.choose_augment(("flip",), {"a": IMAGES, "b": IMAGES})


@pytest.fixture
def some_rows(tmp_path: Path) -> Callable[..., Samples]:
    def make(count: int, model: Model | None = None) -> Samples:
        model = model or from_text(
            '<ir_version: 8, opset_import: ["" : 17]> g (float[N,2] x) => (float[N,2] y) { y = Neg (x) }'
        )
        x = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
        np.savez(tmp_path / "rows.npz", x=x, y=np.arange(count))
        return load_samples(str(tmp_path / "rows.npz"), model.inputs)

    return make


def test_rows_come_in_any_order_from_memory_or_from_the_source(
    some_rows: Callable[..., Samples], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = some_rows(20)
    held = rows.open_rows(samples)
    monkeypatch.setattr(rows, "IN_MEMORY", 0)
    read = rows.open_rows(samples)
    assert held.arrays is not None
    assert read.arrays is None
    for one in (held, read):
        feeds, labels = one.take([7, 3, 19])
        assert feeds["x"].tolist() == [[14, 15], [6, 7], [38, 39]]
        assert labels is not None
        assert labels.tolist() == [7, 3, 19]


def test_the_last_rows_are_held_back(some_rows: Callable[..., Samples]) -> None:
    parts = rows.split_rows(some_rows(200), 0.1)
    assert parts.held
    assert (parts.train.count, parts.judge.count) == (180, 20)
    assert parts.judge.take([0])[0]["x"][0, 0] == 360


def test_a_few_rows_are_judged_by_what_they_are_trained_on(some_rows: Callable[..., Samples]) -> None:
    few = rows.split_rows(some_rows(150), 0.1)
    assert not few.held
    assert (few.train.count, few.judge.count) == (150, 150)
    assert rows.split_rows(some_rows(600), 0).judge.count == 512


def test_training_may_see_what_a_crop_leaves_out(tmp_path: Path) -> None:
    model = from_text("""
        <ir_version: 8, opset_import: ["" : 17]> g (float[N,1,4,4] x) => (float[N,1,4,4] y) { y = Neg (x) }""")
    np.savez(tmp_path / "x.npz", x=np.zeros((200, 1, 6, 5), np.uint8))
    samples = load_samples(str(tmp_path / "x.npz"), model.inputs, prep="raw crop=4")
    shapes = []
    for wide in (False, True):
        parts = rows.split_rows(samples, 0.1, wide)
        shapes.append((parts.train.take([0])[0]["x"].shape[2:], parts.judge.take([0])[0]["x"].shape[2:]))
    assert shapes == [((4, 4), (4, 4)), ((6, 5), (4, 4))]


def test_soft_labels_are_the_divergence_of_probabilities() -> None:
    scores = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
    other = scores.flip(0)
    assert losses.soft_labels(scores, scores, 1, 4.0) == 0
    want = torch.nn.functional.kl_div(scores.log_softmax(1), other.softmax(1), reduction="batchmean")
    torch.testing.assert_close(losses.soft_labels(scores, other, 1, 1.0), want)


def test_attention_maps_do_not_see_the_number_of_channels() -> None:
    maps = torch.rand(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    twice = torch.cat([maps, maps], 1)
    assert losses.attention_maps([maps], [twice]) < 1e-12
    assert losses.attention_maps([maps], [maps.flip(-1)]) > 1e-3


def test_squared_error_is_in_units_of_the_teachers_spread() -> None:
    teacher = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)) * 100 + 7
    student = teacher.mean(0, keepdim=True).expand_as(teacher)
    torch.testing.assert_close(losses.squared_error(student, teacher), torch.tensor(1.0), rtol=1e-4, atol=0)


def test_heads_stand_before_softmax() -> None:
    model = from_text("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3] x) => (float[N,3] p, int64[N,1] k, float[N,3] r, int64[N] n) {
            z = Neg (x)
            s = Softmax <axis = 1> (z)
            p = Identity (s)
            k = ArgMax <axis = 1> (z)
            r = Relu (z)
            c = Constant <value_int = 1> ()
            n = Cast <to = 7> (c)
        }""")
    found = [(h.output, h.value, h.axis) for h in find_heads(model)]
    assert found == [("p", "z", 1), ("k", "z", 1), ("r", "r", None)]


@pytest.mark.parametrize("system", [sys.platform, "win32"])
def test_memory_is_kept_where_that_can_be_asked_for(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", system)
    with kept_memory():
        assert float(torch.ones(3_000_000).sum()) == 3_000_000
    assert float(torch.ones(3_000_000).sum()) == 3_000_000
