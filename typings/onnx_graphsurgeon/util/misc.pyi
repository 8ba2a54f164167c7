from collections.abc import Iterable
from typing import Any, TypeVar

T = TypeVar("T")

class SynchronizedList(list[T]):
    parent_obj: Any
    field_name: str
    def __init__(self, parent_obj: Any, field_name: str, initial: Iterable[T]) -> None: ...
    def _add_to_elem(self, elem: T) -> None: ...
    def _remove_from_elem(self, elem: T) -> None: ...
