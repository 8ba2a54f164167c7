"""Python's cycle collector, held back where it can only cost time."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_gc() -> Iterator[None]:
    """Hold the cycle collector back while many objects are made.

    A graph is one big cycle that stays alive: each collection walks all of it and frees nothing, so that what should be
    linear in the number of nodes is not.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
