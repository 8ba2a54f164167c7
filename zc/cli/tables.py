"""Results on stdout: a table that fits a terminal, or plain columns that nothing folds or cuts in a file or pipe."""

import json
import math
import sys
from collections.abc import Sequence
from typing import Any

import click


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Print rows under headers; the first `left` columns are text, the others numbers, set to the right."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        grid = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for i, header in enumerate(headers):
            grid.add_column(escape(header), justify="left" if i < left else "right", overflow="fold")
        for row in rows:
            grid.add_row(*(escape(cell) for cell in row))
        Console().print(grid)
        return
    widths = [max(len(row[i]) for row in (headers, *rows)) for i in range(len(headers))]
    for row in (headers, *rows):
        cells = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        click.echo("  ".join(cells).rstrip())


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Print names and values, a line each."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        click.echo(f"{name:<{width}}  {value}")


def json_out(value: Any) -> None:
    """Print a value as JSON; infinite numbers and NaN are null."""
    click.echo(json_text(value))


def json_text(value: Any) -> str:
    """A value as JSON that every reader takes: numbers that JSON has no word for (infinite, NaN) are null."""
    return json.dumps(_finite(value), indent=2, default=str, allow_nan=False)


def si(number: float) -> str:
    """`40.6 M`: three digits and a prefix."""
    for limit, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {prefix}" if number < 999.5 * limit else f"{number / limit:.0f} {prefix}"
    return f"{number:.0f}"


def note(text: str, kind: str = "note") -> None:
    """Print a notice to stderr."""
    click.echo(f"zc: {kind}: {text}", err=True)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
