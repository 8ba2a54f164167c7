"""The verdict of the int8 benchmark: what counts as a rival, and what chance explains."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    import results as module  # type: ignore[import-not-found, unused-ignore]

    for name in ("accuracy", "cases"):  # no other test shall find them by these names
        sys.modules.pop(name)
    return sys.modules.pop(module.__name__)


def verdict(results: ModuleType, *peers: Any, **bars: float) -> Any:
    case = results.Case("net", "", "", bars=type(results.Case.bars)(**bars))
    floating = results.Outcome("float", figure=90.0, latency=1.0)
    own = results.Outcome("zc", figure=89.8, latency=0.5, latency_error=0.01, integers=True)
    return results.judge(case, [floating, own, *peers])


def peer(results: ModuleType, **values: Any) -> Any:
    return results.Outcome("peer", **{"latency": 0.6, "figure_error": 0.1, "integers": True, **values})


def test_a_peer_ahead_by_more_than_chance_misses(results: ModuleType) -> None:
    assert not verdict(results, peer(results, figure=90.1)).met


def test_a_peer_ahead_by_chance_is_level(results: ModuleType) -> None:
    assert verdict(results, peer(results, figure=89.9)).accuracy.startswith("level with peer")


def test_a_faster_peer_that_is_less_accurate_is_no_rival_in_speed(results: ModuleType) -> None:
    assert verdict(results, peer(results, figure=80.0, latency=0.2)).met


def test_a_faster_peer_that_is_as_accurate_misses(results: ModuleType) -> None:
    assert not verdict(results, peer(results, figure=89.8, latency=0.4)).met


def test_a_file_left_in_float_is_no_rival(results: ModuleType) -> None:
    assert verdict(results, peer(results, figure=95.0, integers=False)).met


def test_a_bar_that_is_just_reached_is_met(results: ModuleType) -> None:
    assert verdict(results, drop=0.2, latency=0.5).bars == ["loses 0.20 of 0.2 met", "latency 0.50 of 0.5 met"]


def test_no_file_of_our_own_misses(results: ModuleType) -> None:
    case = results.Case("net", "", "")
    assert not results.judge(case, [results.Outcome("float"), results.Outcome("zc", error="exit 2")]).met
