"""Fixtures that every test may ask for."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def golden_models() -> Path:
    """The folder of the committed models."""
    return ROOT / "golden_models"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository, with real models and data; the test is skipped where there is none."""
    folder = ROOT.parent / "shared"
    if not (folder / "models").is_dir():
        pytest.skip("no folder ../shared with real models beside the repository")
    return folder
