"""How a pipeline run looks on stderr: the effective pipeline, a line a pass, what was declined, warnings."""

import math
import sys
from collections import defaultdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from zc.figures import size_text

if TYPE_CHECKING:
    from zc.pipeline.base import Note, Stat
    from zc.pipeline.manager import PassRun, Report
    from zc.pipeline.verify import Movement

_LISTED = 12


def console(stderr: bool = True) -> Console:
    """A console that does not fold lines when it writes to a file or pipe."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else 160, highlight=False, soft_wrap=not stream.isatty())


def share(before: float, after: float) -> str:
    """` (-53 %)`."""
    return f" ({100 * (after / before - 1):+.0f} %)" if before and after != before else ""


def pass_line(out: Console, run: "PassRun", timing: bool) -> None:
    """One pass: what it did, how far the outputs moved, what it left alone."""
    state = "" if run.changed else "[dim]nothing to do[/]"
    parts = [state] if state else []
    if run.nodes[0] != run.nodes[1]:
        parts.append(f"nodes {run.nodes[0]} -> {run.nodes[1]}")
    if run.bytes[0] != run.bytes[1]:
        parts.append(f"weights {size_text(run.bytes[0])} -> {size_text(run.bytes[1])}")
    parts += stat_parts(run.stats)
    if run.movement is not None:
        moved = run.movement
        parts.append(
            f"outputs equal (moved {moved.relative:.1g})" if run.exact else f"outputs moved, {moved_text(moved)}"
        )
    if timing:
        parts.append(f"{run.seconds:.2f} s + {run.verify_seconds:.2f} s checking")
    out.print(f"[bold]{escape(run.text)}[/]: {escape('; '.join(parts)) if not state else '; '.join(parts)}")
    notes(out, run.notes)


def moved_text(moved: "Movement") -> str:
    """How far outputs moved; where no float of the same size did, which output and how."""
    if math.isfinite(moved.sqnr_db) or not moved.relative:
        return f"SQNR {moved.sqnr_db:.1f} dB"
    if math.isfinite(moved.relative):
        return f"'{moved.worst}' differs by {moved.relative:.1g} of its largest value"
    return f"'{moved.worst}' differs in size or in where it is finite"


def notes(out: Console, items: "tuple[Note, ...] | list[Note]") -> None:
    """Warnings first, then what is good to know, then a table of what was declined, alike reasons together."""
    for note in items:
        if note.kind == "warning":
            out.print(f"  [yellow]warning[/] {escape(note.where)}: {escape(note.what)}")
    for note in items:
        if note.kind == "info":
            out.print(f"  {escape(note.where)}: {escape(note.what)}")
    groups: dict[str, list[str]] = defaultdict(list)
    for note in items:
        if note.kind == "declined":
            groups[note.what].append(note.where)
    if not groups:
        return
    rows = []
    for why, where in list(groups.items())[:_LISTED]:
        shown = ", ".join(where[:3]) + (f" and {len(where) - 3} more" if len(where) > 3 else "")
        rows.append((shown, why))
    _columns(out, ("left as it was", "why"), rows)
    if len(groups) > _LISTED:
        out.print(f"  ... and {len(groups) - _LISTED} more reasons; --json has all")


def _columns(out: Console, heads: tuple[str, str], rows: list[tuple[str, str]]) -> None:
    """Two columns: folded to a terminal's width; in a file or pipe a line a row, however long."""
    if out.is_terminal:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for head in heads:
            table.add_column(head, overflow="fold")
        for left, right in rows:
            table.add_row(escape(left), escape(right))
        out.print(Padding(table, (0, 0, 0, 2)))
        return
    width = max(len(left) for left, _ in (heads, *rows))
    for left, right in (heads, *rows):
        out.print(f"  {left:<{width}}  {right}", markup=False)


def stat_parts(stats: "dict[str, Stat]") -> list[str]:
    """Figures as `name value`; two that speak of `X before` and `X after` as `X before -> after`.

    Nodes and bytes before and after are left out: every line shows them for the whole model.
    """
    parts = []
    named = {key.replace("_", " "): value for key, value in stats.items()}
    for name, value in named.items():
        what, _, end = name.rpartition(" ")
        pair = " " not in what and f"{what} before" in named and f"{what} after" in named
        if end not in ("before", "after") or not pair:
            parts.append(f"{name} {_stat(value)}")
        elif end == "before" and what not in ("nodes", "bytes"):
            parts.append(f"{what} {_stat(value)} -> {_stat(named[f'{what} after'])}")
    return parts


def summary(out: Console, report: "Report") -> None:
    """The notes of the whole run."""
    notes(out, report.notes)


def _stat(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
