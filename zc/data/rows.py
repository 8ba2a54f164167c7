"""Row ranges as a user writes them: `0:200`, `200:`, `:100`, `-50:`."""

import re

from zc.errors import ZcError

_RANGE = re.compile(r"\s*(-?\d+)?\s*:\s*(-?\d+)?\s*")


def parse_rows(text: str, count: int, where: str, unit: str = "rows") -> tuple[int, int]:
    """First row and the row after the last, 0 <= start < stop <= count.

    Negative numbers count from the end. A range that reaches past the data is an error, not cut short:
    fewer samples than were asked for would make figures that do not compare.

    Raises:
        ZcError: not a range, empty, or outside `count`.
    """
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ZcError(f"{where}: {unit} '{text}': expected START:STOP, such as 0:200, 200:, :100 or -50:{_hint(text)}")
    start = _absolute(match[1], 0, count)
    stop = _absolute(match[2], count, count)
    if start < 0 or stop < 0 or start > count or stop > count:
        raise ZcError(f"{where}: {unit} '{text}' reach outside the data, which has {count} {unit}")
    if start >= stop:
        raise ZcError(f"{where}: {unit} '{text}' are none of the {count} {unit}; START must be less than STOP")
    return start, stop


def rows_needed(text: str | None) -> int | None:
    """How many rows a range asks to be read from the start, where it says so without their number: 256 for 0:256."""
    match = _RANGE.fullmatch(text) if text is not None else None
    start, stop = match.groups() if match is not None else (None, None)
    return None if stop is None or "-" in stop or (start or "").startswith("-") else int(stop)


def _absolute(number: str | None, default: int, count: int) -> int:
    if number is None:
        return default
    return int(number) + count if number.startswith("-") else int(number)


def _hint(text: str) -> str:
    text = text.strip()
    if text.isascii() and text.isdigit():
        return f"; write :{text} for the first {text}, {text}:{int(text) + 1} for row {text} alone"
    return "; a step is not supported" if text.count(":") == 2 else ""
