"""Measured times by what was timed: a cache that a file can keep, so that the same choice is made from it again."""

import json
import platform
from collections.abc import Mapping
from pathlib import Path

import onnxruntime as ort

from zc.errors import ZcError
from zc.ir.files import write_atomically

_FORMAT = 1


class Timings:
    """Times by key: microseconds of kernels by operator and shapes, and ratios of whole models by their widths.

    They hold for one processor and one version of onnxruntime; a file of another is refused.
    """

    def __init__(self, times: Mapping[str, float] | None = None) -> None:
        """With these times."""
        self.times = dict(times or {})
        self.fresh = 0
        """How many were added since."""

    def get(self, key: str) -> float | None:
        """The time, or None."""
        return self.times.get(key)

    def put(self, key: str, value: float) -> None:
        """Keep a time; one that is there already stays, so that what was decided by it is decided again."""
        if key not in self.times:
            self.times[key] = float(f"{value:.4g}")
            self.fresh += 1

    @staticmethod
    def load(path: str) -> "Timings":
        """The times of a file; none where there is no file yet.

        Raises:
            ZcError: it is not a file of times, or of another processor or onnxruntime.
        """
        file = Path(path)
        if not file.exists():
            return Timings()
        try:
            held = json.loads(file.read_text())
            place, times = held["measured_on"], {str(k): float(v) for k, v in held["times"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
            raise ZcError(
                f"{path}: not a file of measured times ({type(err).__name__}); name another or remove it"
            ) from None
        if place != _place():
            raise ZcError(f"{path}: measured on {place}, and this is {_place()}; name another file")
        return Timings(times)

    def save(self, path: str) -> None:
        """Write the times, sorted; nothing happens when none were added.

        Raises:
            ZcError: the file cannot be written.
        """
        if self.fresh:
            text = json.dumps(
                {"format": _FORMAT, "measured_on": _place(), "times": dict(sorted(self.times.items()))}, indent=1
            )
            write_atomically(Path(path), lambda file: file.write(text.encode() + b"\n"))
            self.fresh = 0


def _place() -> str:
    """The processor and the runtime."""
    return f"{_processor()}, onnxruntime {ort.__version__}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
