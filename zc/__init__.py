"""zc: a compiler for trained ONNX models."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zc.ir.model import Model as Model
    from zc.ir.model import load as load

__version__ = "0.1.0"

# In a checkout the folders passes/ and backends/ stand beside zc/: `python -m zc` at its root finds them too.
_root = Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and (_root / "passes" / "__init__.py").is_file():
    __path__.append(str(_root))


def __getattr__(name: str) -> Any:
    """`zc.load` and `zc.Model`, imported on first use: a command that needs no model starts fast."""
    if name in {"load", "Model"}:
        from zc.ir import model

        return getattr(model, name)
    raise AttributeError(f"module 'zc' has no attribute {name!r}")
