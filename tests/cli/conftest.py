import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from zc.cli.main import entry


@dataclass(frozen=True)
class Done:
    """A command as it ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def zc(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """`zc("opt", path, "-p", "clean")` runs the command line in this process."""

    def run(*args: object) -> Done:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["zc", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            entry()
        captured = capsys.readouterr()
        return Done(int(stop.value.code or 0), captured.out, captured.err)

    return run
