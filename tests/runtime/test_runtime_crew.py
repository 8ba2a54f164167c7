"""Threads that stay between runs."""

import gc
import threading
import time

import numpy as np

from zc.kernels import program
from zc.runtime import crew as crews
from zc.runtime.crew import Crew


def shared(tables: int, crew: Crew, helpers: int) -> np.ndarray:
    """So many times, fill 10,000 bytes in seven parts; the last contents."""
    out = np.zeros(10_000 + 128, np.uint8)
    scratch = [np.zeros(program.SCRATCH_BYTES, np.uint8) for _ in range(helpers + 1)]
    for value in range(1, tables + 1):
        table = np.array([program.row(program.FILL, 7, y=out.ctypes.data, length=10_000, value=value % 256)])
        gates = np.zeros((1, 2), np.int64)
        crew.run(program.interpret, [(table, 0, 1, helpers + 1, s.ctypes.data, gates.ctypes.data) for s in scratch])
        assert gates[0, 1] == 7
        assert (out[:10_000] == value % 256).all()
    return out


def test_helpers_share_work_that_is_done_when_run_returns() -> None:
    assert not shared(300, Crew(2), 2)[10_000:].any()


def test_helpers_that_sleep_are_woken(monkeypatch) -> None:
    monkeypatch.setattr(crews, "PATIENCE", 1)
    crew = Crew(1)
    came = threading.Event()

    def work(helps: bool) -> None:
        if helps:
            came.set()
        else:
            came.wait(60)

    for _ in range(5):
        time.sleep(0.01)
        came.clear()
        crew.run(work, [(False,), (True,)])
        assert came.is_set()


def test_helpers_go_with_their_crew() -> None:
    before = set(threading.enumerate())
    crew = Crew(3)
    ours = set(threading.enumerate()) - before
    assert len(ours) == 3
    del crew
    gc.collect()
    for thread in ours:
        thread.join(60)
        assert not thread.is_alive()
