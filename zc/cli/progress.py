"""Progress with an ETA, on a terminal only; elsewhere iteration is plain."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from zc.track import Label, Track

T = TypeVar("T")


def _text(label: "Label") -> str:
    return label if isinstance(label, str) else label()


@contextmanager
def tracker(quiet: bool = False) -> Iterator["Track"]:
    """A `track(items, label, total)` under which loops show their progress on stderr."""
    if quiet or not sys.stderr.isatty():
        from zc.track import untracked

        yield untracked
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    shown: list[Progress] = []  # none while there is no task: an empty one would print a blank line ten times a second

    def track(items: Iterable[T], label: "Label", total: int | None = None) -> Iterator[T]:
        outermost = not shown
        if outermost:
            shown.append(Progress(*columns, console=Console(stderr=True), transient=True))
            shown[0].start()
        progress = shown[0]
        task = progress.add_task(_text(label), total=total)
        try:
            for item in items:
                yield item
                progress.update(task, advance=1, description=_text(label))
        finally:
            if outermost:
                progress.stop()
                shown.clear()
            else:
                progress.remove_task(task)

    try:
        yield track
    finally:
        for progress in shown:
            progress.stop()
