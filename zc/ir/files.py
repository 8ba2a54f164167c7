"""Writing a file at once or not at all."""

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from zc.errors import ZcError


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Let `write` fill a temporary file in the same folder, then put it in the place of `path`.

    A link is followed; an existing file keeps its permissions. A device or pipe is written to as it is.
    ZcError when the place cannot be written; what was there is then untouched.
    """
    with Replacement(real_target(path)) as new:
        new.fill(write)
        new.commit()


def real_target(path: Path) -> Path:
    """The file that a path leads to: a link stays a link when its target is replaced."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as err:
        raise ZcError(f"{path}: cannot be written: {err}") from err


class Replacement:
    """New contents for a file: `fill` writes them beside it, `commit` puts them in its place.

    Left without a commit, nothing remains of them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary: Path | None = None

    def __enter__(self) -> "Replacement":
        return self

    def fill(self, write: Callable[[BinaryIO], Any]) -> None:
        """Write the contents and wait until they are on the disk."""
        try:
            self._fill(write)
        except OSError as err:
            raise ZcError(f"{self.path}: cannot be written: {err.strerror or err}") from err

    def _fill(self, write: Callable[[BinaryIO], Any]) -> None:
        if self.path.is_dir():
            raise ZcError(f"{self.path}: is a folder; name a file to write")
        if not self.path.parent.is_dir():
            raise ZcError(f"{self.path}: cannot be written: there is no folder {self.path.parent}")
        if self.path.exists() and not self.path.is_file():
            with self.path.open("wb") as file:
                write(file)
            return
        temporary = self.path.with_name(f".{self.path.name[:40]}.{secrets.token_hex(6)}.tmp")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        self.temporary = temporary
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if self.path.exists():
            temporary.chmod(self.path.stat().st_mode & 0o777)

    def commit(self) -> None:
        """Put the new contents in the place of the old ones."""
        if self.temporary is None:
            return
        try:
            os.replace(self.temporary, self.path)
        except OSError as err:
            raise ZcError(f"{self.path}: cannot be written: {err.strerror or err}") from err
        self.temporary = None

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, where: TracebackType | None
    ) -> None:
        if self.temporary is not None:
            with suppress(OSError):
                self.temporary.unlink()
