"""What an image folder holds: labels.csv, or class subfolders, or just images."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from zc.data.source import Array
from zc.errors import ZcError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


@dataclass(frozen=True)
class ImageFiles:
    """Image files in their order, with a label each where the folder gives labels."""

    paths: tuple[Path, ...]
    labels: Array | None = None
    notes: tuple[str, ...] = ()


def find_images(folder: Path) -> ImageFiles:
    """By `labels.csv` (columns file,label) in its order; else all images by name; else class subfolders by name.

    Classes are numbered 0, 1, ... in the order of the names of their subfolders.

    Raises:
        ZcError: no images; a CSV with missing, doubled or outside files, or labels that are no numbers.
    """
    table = folder / "labels.csv"
    if table.is_file():
        return _by_table(folder, table)
    if paths := _images(folder):
        return ImageFiles(tuple(paths))
    classes = [(sub, _images(sub)) for sub in sorted(folder.iterdir()) if sub.is_dir() and not sub.name.startswith(".")]
    classes = [(sub, found) for sub, found in classes if found]
    if not classes:
        raise ZcError(
            f"{folder}: no samples; expected images ({', '.join(SUFFIXES)}), labels.csv, "
            f"a subfolder of images a class, or an ONNX test set (input_0.pb)"
        )
    labels = np.repeat(np.arange(len(classes)), [len(found) for _, found in classes])
    names = ", ".join(f"{n}={sub.name}" for n, (sub, _) in enumerate(classes[:4])) + (
        ", ..." if len(classes) > 4 else ""
    )
    note = f"{folder.name}: {len(classes)} classes numbered by the names of their subfolders: {names}"
    return ImageFiles(tuple(path for _, found in classes for path in found), labels, (note,))


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def _by_table(folder: Path, table: Path) -> ImageFiles:
    paths: list[Path] = []
    labels: list[str] = []
    first_line: dict[str, int] = {}
    for line, (name, label) in _table_rows(table):
        where = f"{table}: line {line}"
        if name in first_line:
            raise ZcError(f"{where}: '{name}' stands in line {first_line[name]} already; remove one of the two")
        first_line[name] = line
        if _leaves(name):
            raise ZcError(f"{where}: '{name}' is not inside the folder; name files relative to it, without '..'")
        if not (folder / name).is_file():
            raise ZcError(f"{where}: no file '{name}' in {folder}")
        paths.append(folder / name)
        labels.append(label)
    if not paths:
        raise ZcError(f"{table}: lists no files")
    unlisted = len(set(_images(folder)) - set(paths))
    notes = (f"{folder.name}: {unlisted} images that labels.csv does not list are left out",) if unlisted else ()
    return ImageFiles(tuple(paths), _numbers(labels, table), notes)


def _table_rows(table: Path) -> list[tuple[int, tuple[str, str]]]:
    """Line number, file and label of each row."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = header
            if not {"file", "label"} <= set(header):
                raise ZcError(f"{table}: expected the columns file,label, got {','.join(header) or 'nothing'}")
            rows = [(reader.line_num, row["file"], row["label"]) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ZcError(f"{table}: cannot be read as CSV in UTF-8 ({error})") from None
    for line, name, label in rows:
        if not name or not label:
            raise ZcError(f"{table}: line {line}: expected file,label")
    return [(line, (name.strip(), label.strip())) for line, name, label in rows]


def _leaves(name: str) -> bool:
    """Whether a path would leave the folder, read as a path of either system."""
    parts = (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
    return ".." in parts or PurePosixPath(name).is_absolute() or bool(PureWindowsPath(name).anchor)


def _numbers(labels: Sequence[str], table: Path) -> Array:
    """int64 when all are integers, else float64."""
    try:
        return np.array([int(label) for label in labels], dtype=np.int64)
    except (ValueError, OverflowError):
        pass
    try:
        return np.array([float(label) for label in labels])
    except ValueError:
        wrong = next(label for label in labels if not label.isdigit())
        raise ZcError(f"{table}: label '{wrong}' is not a number; number the classes as the model's outputs") from None
