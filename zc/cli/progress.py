"""Progress with an ETA, on a terminal only; elsewhere iteration is plain."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from zc.track import Track

T = TypeVar("T")


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
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:

        def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
            task = progress.add_task(label, total=total)
            try:
                for item in items:
                    yield item
                    progress.advance(task)
            finally:
                progress.remove_task(task)

        yield track
