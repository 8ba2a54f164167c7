"""pytest: the option `--update-golden` and the fixture `golden`. Installed with zc; costs nothing until it is used."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from zc.ir.model import Model


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--update-golden`."""
    parser.getgroup("zc").addoption(
        "--update-golden", action="store_true", help="Rewrite the golden files of zc.testing instead of comparing."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Tells `zc.testing`, also in the processes that pytest-xdist starts."""
    if config.getoption("--update-golden", default=False):
        os.environ["ZC_UPDATE_GOLDEN"] = "1"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> "Callable[..., None]":
    """`golden(model, "name.txt")` compares with a file beside the test; more in `zc.testing.assert_golden`."""

    def check(model: "Model", path: str | Path, **options: Any) -> None:
        from zc.testing import assert_golden

        assert_golden(model, request.path.parent / path, **options)

    return check
