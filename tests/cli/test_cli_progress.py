"""Progress: on a terminal while there is some, nothing anywhere else."""

import io
import time
from contextlib import redirect_stderr

import pytest

from zc.cli.progress import tracker


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def test_a_loop_shows_its_label_and_clears_it(terminal: Terminal) -> None:
    with redirect_stderr(terminal), tracker() as track:
        assert list(track(range(3), "calibrate", 3)) == [0, 1, 2]
    assert "calibrate" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K")  # the line is taken away


def test_a_loop_inside_a_loop_has_its_own_line(terminal: Terminal) -> None:
    with redirect_stderr(terminal), tracker() as track:
        for _ in track(range(2), "outer", 2):
            for _ in track(range(2), "inner", 2):
                time.sleep(0.15)
    shown = terminal.getvalue()
    assert shown.index("outer") < shown.index("inner")
    assert shown.count("\x1b[?25h") == 1  # it ended once, and the cursor is back


def test_without_a_loop_nothing_is_printed(terminal: Terminal) -> None:
    with redirect_stderr(terminal), tracker():
        time.sleep(0.25)  # more than two refreshes
    assert terminal.getvalue() == ""


def test_a_pipe_sees_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with tracker() as track:
        assert list(track(range(3), "calibrate", 3)) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_quiet_is_quiet_on_a_terminal_too(terminal: Terminal) -> None:
    with redirect_stderr(terminal), tracker(quiet=True) as track:
        list(track(range(3), "calibrate", 3))
    assert terminal.getvalue() == ""
