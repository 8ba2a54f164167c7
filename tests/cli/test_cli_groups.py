"""`zc groups`: which channels may leave together, what one costs, what stays and why."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[2] / "golden_models"
DIGITS = GOLDEN / "digits_cnn.onnx"
BLOCK = GOLDEN / "transformer_block.onnx"


def test_groups_are_listed_with_what_stays(zc: Callable) -> None:
    done = zc("groups", DIGITS)
    assert done.code == 0
    assert "widths that pay" in done.out
    assert "an output of the model" in done.out


def test_costs_of_a_channel_are_what_its_removal_saves(zc: Callable, tmp_path: Path) -> None:
    found = json.loads(zc("groups", DIGITS, "--json").out)
    group = found["groups"][0]
    out = tmp_path / "o.onnx"
    said = ["opt", DIGITS, "-p", f"prune:ratio=0.01:round_to=1:min_channels=1:only={group['name']}", "-o", out]
    assert zc(*said).code == 0
    before, after = (json.loads(zc("stats", path, "--json").out) for path in (DIGITS, out))
    taken = round(before["macs"] / group["macs"]) and (before["macs"] - after["macs"]) / group["macs"]
    assert taken == pytest.approx(round(taken), abs=1e-9)
    assert before["bytes"] - after["bytes"] == pytest.approx(taken * group["bytes"])


def test_members_sum_up_to_the_bytes_of_a_channel(zc: Callable) -> None:
    for group in json.loads(zc("groups", BLOCK, "--json").out)["groups"]:
        assert sum(m["params"] for m in group["members"]) * 4 == pytest.approx(group["bytes"] * group["atom"])
        assert group["ms"] is not None


def test_what_is_skipped_is_no_group(zc: Callable) -> None:
    names = [g["name"] for g in json.loads(zc("groups", DIGITS, "--json").out)["groups"]]
    found = json.loads(zc("groups", DIGITS, "--skip", names[0], "--json").out)
    assert [g["name"] for g in found["groups"]] == names[1:]
    assert any("option skip" in p["reason"] for p in found["pinned"])


def test_a_page_draws_every_group(zc: Callable, tmp_path: Path) -> None:
    page = tmp_path / "groups.html"
    assert zc("groups", DIGITS, "--html", page).code == 0
    text = page.read_text()
    names = [g["name"] for g in json.loads(zc("groups", DIGITS, "--json").out)["groups"]]
    assert all(name in text for name in names)
    assert text.count('<rect class="bytes"') == len(names)
    assert "http" not in text.replace('lang="en"', "")


def test_a_page_in_the_place_of_the_model_is_refused(zc: Callable, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(DIGITS.read_bytes())
    done = zc("groups", model, "--html", model)
    assert (done.code, "is the model" in done.err) == (2, True)
    assert model.read_bytes() == DIGITS.read_bytes()


def test_a_pattern_that_matches_nothing_is_an_error(zc: Callable) -> None:
    done = zc("groups", DIGITS, "--only", "/no/such/*")
    assert (done.code, "/no/such/*" in done.err) == (2, True)
