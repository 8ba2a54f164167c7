"""An artifact that is a folder: written beside its place, then put there whole."""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from zc import __version__
from zc.errors import ZcError

MANIFEST = "manifest.json"


def write_folder(
    path: Path,
    about: Mapping[str, Any],
    fill: Callable[[Path], None],
    *,
    later: Collection[str] = (),
    keep: Collection[str] = (),
) -> int:
    """Let `fill` write files into a new folder, add a manifest with their hashes, and put the folder at `path`.

    about: what the manifest shall say beside the files and their hashes. A folder that stands there is replaced only
    if zc made all that is in it. later: names of files that its own scripts add; keep: those of them that the new
    folder takes over. Returns the bytes of all files. ZcError when the place cannot be written, or holds anything else;
    what was there is then untouched.
    """
    path = path.resolve()
    _replaceable(path, later)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        fresh.mkdir()
        fill(fresh)
        files = sorted(f for f in fresh.rglob("*") if f.is_file())
        sizes = {f.relative_to(fresh).as_posix(): f.stat().st_size for f in files}
        listed = {name: {"bytes": size, "sha256": _sha256(fresh / name)} for name, size in sizes.items()}
        text = json.dumps({"zc": __version__, **about, "files": listed}, indent=2) + "\n"
        (fresh / MANIFEST).write_text(text)
        for name in keep:
            if (path / name).is_file():
                shutil.copy2(path / name, fresh / name)
        for file in (*files, fresh / MANIFEST, fresh):
            _sync(file)
        _put(fresh, path)
        return sum(sizes.values()) + len(text)
    except OSError as err:
        raise ZcError(f"{path}: cannot be written: {err.strerror or err}") from err
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def read_manifest(path: Path) -> dict[str, Any]:
    """What a folder says of itself. ZcError when it is none of zc's, or a file in it is not as it was written."""
    try:
        about = json.loads((path / MANIFEST).read_text())
        files = dict(about["files"])
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise ZcError(f"{path}: is no folder that zc wrote: its {MANIFEST} cannot be read") from err
    for name, one in files.items():
        file = path / name
        if not file.is_file() or _sha256(file) != one["sha256"]:
            raise ZcError(f"{file}: is not as it was written (see {MANIFEST}); emit the folder again")
    return about  # type: ignore[no-any-return]


def _replaceable(path: Path, later: Collection[str]) -> None:
    if not path.parent.is_dir():
        raise ZcError(f"{path}: cannot be written: there is no folder {path.parent}")
    if not path.exists():
        return
    if not path.is_dir():
        raise ZcError(f"{path}: is a file; name a folder to write")
    present = {f.relative_to(path).as_posix() for f in path.rglob("*") if not f.is_dir()}
    if not present:
        return
    try:
        known = {MANIFEST, *json.loads((path / MANIFEST).read_text())["files"], *later}
    except (OSError, ValueError, TypeError, KeyError):
        raise ZcError(f"{path}: is a folder that zc did not write; name another, or empty it") from None
    strangers = sorted(present - known)
    if strangers:
        raise ZcError(f"{path}: holds '{strangers[0]}', which zc did not write; move it away, or name another folder")


def _put(fresh: Path, path: Path) -> None:
    """Rename the new folder into its place; the old one comes back if that fails."""
    if not path.exists():
        os.rename(fresh, path)
        return
    old = path.with_name(f".{path.name}.{secrets.token_hex(6)}.old")
    os.rename(path, old)
    try:
        os.rename(fresh, path)
    except OSError:
        os.rename(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems know no fsync of folders
            os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
