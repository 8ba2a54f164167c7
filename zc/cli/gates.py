"""Gates on accuracy: how much worse a model may be."""

from zc.errors import ZcError


def points(text: str | None, option: str = "--max-drop") -> float | None:
    """A drop in the metric's own unit, as `0.5%` (percentage points) or `0.5`. ZcError when it is none."""
    if text is None:
        return None
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise ZcError(f"{option} {text}: expected points of the metric that may be lost, as 0.5% or 0.5")
    return value
