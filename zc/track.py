"""How long work shows its progress: loops go through a `Track` that the caller hands in."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


Label = str | Callable[[], str]
"""What is being done; a function is asked again at each step."""


class Track(Protocol):
    """`for x in track(items, "label", total)`: a loop that shows its progress and ETA where progress is shown."""

    def __call__(self, items: Iterable[T], label: Label, total: int | None = None) -> Iterator[T]:
        """The items, one after the other."""
        ...


def untracked(items: Iterable[T], label: Label, total: int | None = None) -> Iterator[T]:
    """Iterate without showing progress."""
    return iter(items)
