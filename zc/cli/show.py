"""How a pipeline run looks on stderr: the effective pipeline, a line a pass, what was declined, warnings."""

import sys
from collections import defaultdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from zc.pipeline.base import Note
    from zc.pipeline.manager import PassRun, Report

_LISTED = 12


def console(stderr: bool = True) -> Console:
    """A console that does not fold lines when it writes to a file or pipe."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else 160, highlight=False, soft_wrap=not stream.isatty())


def size(count: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.2f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


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
        parts.append(f"weights {size(run.bytes[0])} -> {size(run.bytes[1])}")
    parts += [f"{k.replace('_', ' ')} {_stat(v)}" for k, v in run.stats.items()]
    if run.movement is not None:
        moved = run.movement
        parts.append(
            f"outputs equal (moved {moved.relative:.1g})"
            if run.exact
            else f"outputs moved, SQNR {moved.sqnr_db:.1f} dB"
        )
    if timing:
        parts.append(f"{run.seconds:.2f} s + {run.verify_seconds:.2f} s checking")
    out.print(f"[bold]{escape(run.text)}[/]: {escape('; '.join(parts)) if not state else '; '.join(parts)}")
    notes(out, run.notes)


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
    table = Table(box=None, padding=(0, 2), show_header=True, header_style="dim")
    table.add_column("  left as it was", overflow="fold")
    table.add_column("why", overflow="fold")
    for why, where in list(groups.items())[:_LISTED]:
        shown = ", ".join(where[:3]) + (f" and {len(where) - 3} more" if len(where) > 3 else "")
        table.add_row("  " + escape(shown), escape(why))
    out.print(table)
    if len(groups) > _LISTED:
        out.print(f"  ... and {len(groups) - _LISTED} more reasons; --json has all")


def summary(out: Console, report: "Report") -> None:
    """The notes of the whole run."""
    notes(out, report.notes)


def _stat(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
