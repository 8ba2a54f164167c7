"""Threads that stay between runs: waking one takes longer than a small net runs."""

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zc.kernels import meeting

PATIENCE = 100_000
"""Looks at a word before a helper sleeps: some hundred microseconds, longer than callers take between two runs."""


class Crew:
    """Helpers that run the same function as the caller, each with arguments of its own, if they come in time."""

    def __init__(self, count: int) -> None:
        """Start `count` threads; they end with this object."""
        self._words = np.zeros((count, meeting.WORDS // 8), np.int64)
        self._job: list[Any] = [None]
        self._bells = [threading.Semaphore(0) for _ in range(count)]
        self._rows = self._words.ctypes.data
        for i, bell in enumerate(self._bells):
            told = (self._words, i, self._job, bell)
            threading.Thread(target=_help, args=told, name=f"zc-{i + 1}", daemon=True).start()
        weakref.finalize(self, _tell, self._words, self._bells, meeting.STOP)

    def run(self, function: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> None:
        """function(*arguments[0]) here, and function(*arguments[i]) in helper i - 1 if it comes before this is over.

        The function shares out its own work, and must be done with all of it when it returns here.
        """
        self._job[0] = function, arguments
        _tell(self._words, self._bells, 1)
        try:
            function(*arguments[0])
        finally:
            meeting.close(self._rows, len(self._bells))
            self._job[0] = None


def _help(words: np.ndarray, index: int, job: list[Any], bell: threading.Semaphore) -> None:
    row = words.ctypes.data + index * meeting.WORDS
    while True:
        found = meeting.wait_for_work(row, PATIENCE)
        if found == meeting.STOP:
            return
        if found == 0:
            bell.acquire()
            continue
        function, arguments = job[0]
        function(*arguments[index + 1])


def _tell(words: np.ndarray, bells: Sequence[threading.Semaphore], what: int) -> None:
    """Say something to all helpers, and wake those that sleep."""
    meeting.announce(words.ctypes.data, len(bells), what)
    asleep = words[:, meeting.ASLEEP // 8]
    if asleep.any():
        for i, bell in enumerate(bells):
            if asleep[i]:
                asleep[i] = 0
                bell.release()
