"""Fixtures that every test may ask for, and the skips that are expected."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from zc.ir.model import Model

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # for golden_models.texts

EXPECTED_SKIPS = ("no folder ../shared",)
"""Beginnings of the reasons for which a test may be skipped under --strict-skips."""


@pytest.fixture(scope="session")
def golden_models() -> Path:
    """The folder of the committed models."""
    return ROOT / "golden_models"


@pytest.fixture(scope="session")
def golden_model(golden_models: Path) -> Callable[[str], Model]:
    """`golden_model("lstm")`: a committed model, or a graph of golden_models/text, by name."""

    def read(name: str) -> Model:
        from golden_models.texts import read_text
        from zc.ir.model import load

        path = golden_models / f"{name}.onnx"
        if path.is_file():
            return load(path)
        return Model.from_proto(read_text(golden_models / "text" / f"{name}.txt"))

    return read


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository, with real models and data; the test is skipped where there is none."""
    folder = ROOT.parent / "shared"
    if not (folder / "models").is_dir():
        pytest.skip("no folder ../shared with real models beside the repository")
    return folder


@pytest.fixture(scope="session")
def run_pass() -> Callable[..., Model]:
    """`run_pass("fuse", model_or_text, option=1)`: the model after a pass, checked (`zc.testing.run_pass`)."""
    from zc.testing import run_pass as run

    return run


@pytest.fixture(scope="session")
def lines_run() -> Callable[[Callable[[], Any]], int]:
    """`lines_run(call)`: how many lines of Python a call runs, a turn of a loop one at least.

    What grows with a model is counted and not timed: seconds depend on what else the machine does.
    """

    def measure(call: Callable[[], Any]) -> int:
        lines = 0

        def trace(frame: FrameType, event: str, arg: object) -> Any:
            nonlocal lines
            lines += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            call()
        finally:
            sys.settrace(before)
        return lines

    return measure


@pytest.fixture(scope="session")
def growth(lines_run: Callable[[Callable[[], Any]], int]) -> Callable[..., float]:
    """`growth(make, run, n)`: how many times more lines `run(make(4 * n))` runs than `run(make(n))`.

    4 is linear, 16 quadratic.
    """

    def measure(make: Callable[[int], Any], run: Callable[[Any], Any], n: int) -> float:
        small, big = (lines_run(partial(run, make(size))) for size in (n, 4 * n))
        return big / small

    return measure


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--strict-skips", action="store_true", help="Let an unexpected skip fail.")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    return _strict((yield), item.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    return _strict((yield), collector.config)


def _strict(report, config: pytest.Config):
    """The report; of a skip that nobody expects, a failure."""
    if report.outcome == "skipped" and not hasattr(report, "wasxfail") and config.getoption("--strict-skips"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not reason.removeprefix("Skipped: ").startswith(EXPECTED_SKIPS):
            report.outcome = "failed"
            report.longrepr = f"skipped for a reason that is not in EXPECTED_SKIPS of tests/conftest.py: {reason}"
    return report
