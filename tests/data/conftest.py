"""What the tests of samples share: specs, small image folders, and where the real data lies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zc.data import Samples
from zc.ir.spec import Dim, TensorSpec

SHARED = Path(__file__).parents[2].parent / "shared"


@pytest.fixture(scope="session")
def spec() -> Callable[..., TensorSpec]:
    """`spec("x", "float32", "N", 3, 8, 8)`."""

    def make(name: str, dtype: str, *shape: Dim) -> TensorSpec:
        return TensorSpec(name, np.dtype(dtype), shape)

    return make


@pytest.fixture(scope="session")
def joined() -> Callable[..., dict[str, Any]]:
    """All batches of one size as one feed."""

    def join(samples: Samples, size: int) -> dict[str, Any]:
        feeds = list(samples.batches(size))
        return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}

    return join


@pytest.fixture
def write_image(tmp_path: Path) -> Callable[..., Path]:
    """Writes a PNG of one colour, or of the pixels given."""
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")

    def write(name: str, size: tuple[int, int] = (8, 8), color: object = (10, 20, 30), pixels: Any = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = image.new("RGB", size[::-1], color) if pixels is None else image.fromarray(pixels)
        picture.save(path)
        return path

    return write


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("no folder ../shared with real data beside the repository")
    return folder
