"""What is said where torch is missing."""

from importlib.util import find_spec

from zc.errors import ZcError


def require_torch(what: str) -> None:
    """ZcError unless torch can be imported. what: who needs it, as the beginning of a sentence."""
    if find_spec("torch") is None:
        raise ZcError(f"{what} needs torch, which is not installed: pip install 'zc[train]'")
