"""Sketches in a file: kept for the next run, and added up where several processes shared the rows.

A file holds sections, each of one model on one set of rows, which are told by hashes of their content. A section is
used only where both are the same; a file that is damaged is not used at all, and one that is something else is not
touched. Numbers and one JSON text in an .npz archive, nothing pickled: reading it runs no code.
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zc.data import Samples
from zc.errors import ZcError
from zc.ir.files import write_atomically
from zc.ir.graph import Array
from zc.ir.model import Model
from zc.kernels.grid import HALF, HIGHEST, LOWEST
from zc.passes.quantize.sketch import Sketch

MARK = "zc sketches"
FORMAT = 1
"""Raised whenever the meaning of a sketch changes."""

Key = tuple[int, str]
"""The position of a scope in the model, and the name of a value."""
Sketches = dict[Key, Sketch]
COUNTS = ("count", "zeros", "nan", "inf", "exponent")


class Damaged(ZcError):  # noqa: N818
    """A sketch cache that cannot be used."""


@dataclass(frozen=True)
class Origin:
    """What sketches were made of: those of equal origin are equal."""

    model: str
    """Sha256 of the float model with its weights."""
    rows: int
    content: str
    """The sum of the sha256 of each row, modulo 2**256, in hex: the same for the rows in any order, and in parts."""

    def __add__(self, other: "Origin") -> "Origin":
        """Of both sets of rows together."""
        content = (int(self.content, 16) + int(other.content, 16)) % 2**256
        return Origin(self.model, self.rows + other.rows, f"{content:064x}")


def origin_of(model: Model, samples: Samples) -> Origin:
    """Reads the weights and all rows."""
    total = 0
    for row in range(samples.start, samples.stop):
        state = hashlib.sha256(f"prep {samples.prep}\n".encode())
        for part in samples.reader.fingerprint(row, row + 1):
            state.update(part)
        total += int.from_bytes(state.digest(), "big")
    return Origin(model.weights_digest(), samples.rows, f"{total % 2**256:064x}")


# ---- files


def read_sketches(path: Path) -> dict[Origin, Sketches]:
    """What a file holds; nothing if it is not there.

    Raises:
        Damaged: it is a sketch cache, but cut short, changed, or of another version.
        ZcError: it is something else, or cannot be read.
    """
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            about = _about(file)
            _check_sizes(path, sum(len(one["keys"]) for one in about["sections"]))
            numbers, counts, bins = (np.asarray(file[name]) for name in ("extremes", "counts", "bins"))
        return _sections(about, numbers, counts, bins)
    except ZcError as err:
        raise type(err)(f"{path}: {err}") from None
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError, TypeError, AttributeError) as err:
        if _marked(path):
            raise Damaged(f"{path}: a damaged sketch cache") from err
        raise ZcError(f"{path}: is no sketch cache; name another file, which will be made") from None
    except OSError as err:
        raise ZcError(f"{path}: cannot be read: {err.strerror or err}") from err


def write_sketches(path: Path, sections: Mapping[Origin, Sketches]) -> None:
    """Write a file, at once or not at all; the same bytes for the same sketches. ZcError when it cannot be written."""
    about = {
        "format": FORMAT,
        "sections": [
            {**asdict(o), "keys": [list(key) for key in sorted(sketches)]} for o, sketches in sections.items()
        ],
    }
    every = [sketches[key] for sketches in sections.values() for key in sorted(sketches)]
    arrays: dict[str, Array] = {
        # The mark stands in front, uncompressed, so that a damaged file is still known.
        "about": np.frombuffer(f"{MARK}\n{json.dumps(about)}".encode(), np.uint8),
        "extremes": np.array([(one.low, one.high) for one in every], np.float64).reshape(-1, 2),
        "counts": np.array([[getattr(one, name) for name in COUNTS] for one in every], np.int64).reshape(
            -1, len(COUNTS)
        ),
        "bins": np.array([one.bins for one in every], np.int64).reshape(-1, 2 * HALF),
    }

    def write(file: Any) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                entry = zipfile.ZipInfo(f"{name}.npy")  # of 1980: no time is written
                entry.compress_type = zipfile.ZIP_STORED if name == "about" else zipfile.ZIP_DEFLATED
                with archive.open(entry, "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    write_atomically(path, write)


def merge_sketches(sources: Sequence[Path]) -> dict[Origin, Sketches]:
    """The sketches of several files, made of the same values of one model on different rows, as if of all rows at once.

    Exact: to the bit what one process would have seen. A row that is in two files counts twice. ZcError when the files
    are of different models or values, missing or damaged.
    """
    whole: dict[str, tuple[Origin, Sketches]] = {}
    for path in sources:
        sections = read_sketches(path)
        if not sections:
            raise ZcError(f"{path}: no such file")
        for origin, sketches in sections.items():
            if origin.model not in whole:
                whole[origin.model] = origin, sketches
                continue
            before, merged = whole[origin.model]
            if merged.keys() != sketches.keys():
                raise ZcError(f"{path}: holds other values than {sources[0]}")
            for key, sketch in sketches.items():
                merged[key].merge(sketch)
            whole[origin.model] = before + origin, merged
    if len(whole) != 1:
        raise ZcError(f"{', '.join(map(str, sources))}: sketches of {len(whole)} models cannot be added up")
    return dict(whole.values())


# ---- reading, with everything checked


def _marked(path: Path) -> bool:
    """Does the file begin like one of ours?"""
    with path.open("rb") as file:
        return MARK.encode() in file.read(1024)


def _about(file: Any) -> dict[str, Any]:
    mark, _, text = np.asarray(file["about"]).tobytes().decode().partition("\n")
    if mark != MARK:
        raise ValueError("no mark")
    about: dict[str, Any] = json.loads(text)
    if about["format"] != FORMAT:
        raise Damaged(f"a sketch cache of another version ({about['format']}, not {FORMAT})")
    return about


def _check_sizes(path: Path, count: int) -> None:
    """A member must not unfold to more than what is told of it."""
    most = {"about": 2**28, "extremes": 2 * 8 * count, "counts": len(COUNTS) * 8 * count, "bins": 2 * HALF * 8 * count}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.file_size > most.get(entry.filename.removesuffix(".npy"), 0) + 1024:
                raise ValueError("a member is too large")


def _sections(about: Mapping[str, Any], extremes: Array, counts: Array, bins: Array) -> dict[Origin, Sketches]:
    sections: dict[Origin, Sketches] = {}
    rows = iter(zip(extremes.tolist(), counts.tolist(), bins, strict=True))
    for one in about["sections"]:
        origin = Origin(str(one["model"]), int(one["rows"]), f"{int(one['content'], 16):064x}")
        keys = [(int(scope), str(name)) for scope, name in one["keys"]]
        sections[origin] = {key: _sketch(*next(rows)) for key in keys}
    if next(rows, None) is not None or bins.dtype != np.int64 or counts.dtype != np.int64:
        raise ValueError("more or other numbers than told")
    return sections


def _sketch(extremes: Iterable[float], counts: Iterable[int], bins: Array) -> Sketch:
    (low, high), (count, zeros, nan, inf, exponent) = extremes, counts
    if bins.shape != (2 * HALF,) or (bins < 0).any() or int(bins.sum()) != count:
        raise ValueError("bins that do not add up")
    if not 0 <= zeros <= bins[HALF] or nan < 0 or inf < 0 or not LOWEST <= exponent <= HIGHEST:
        raise ValueError("counts that cannot be")
    if count and not -(2.0**exponent) < low <= high < 2.0**exponent:
        raise ValueError("extremes that cannot be")
    return Sketch(low, high, count, zeros, nan, inf, exponent, bins.copy())


class Cache:
    """The sketches of one model on one set of rows, in a file that may hold those of other models beside them."""

    def __init__(self, path: Path, model: Model, samples: Samples) -> None:
        """Read the file, and the model and the rows, to tell whether they are the same. ZcError as `read_sketches`."""
        self.path, self.origin = path, origin_of(model, samples)
        self.note = ""
        """What the user should hear."""
        try:
            found = read_sketches(path)
        except Damaged as err:
            found, self.note = {}, f"{err}; it is made anew"
        rows = (self.origin.rows, self.origin.content)
        self._others = {o: s for o, s in found.items() if (o.rows, o.content) == rows and o != self.origin}
        self.sketches = found.get(self.origin, {})
        """What the file knows of this model on these rows."""
        if self.sketches:
            self.note = f"{len(self.sketches)} values are known from {path}: the same model on the same rows"
        elif found and not self._others:
            self.note = f"{path} is of another model or of other rows; it is made anew"

    def write(self, sketches: Sketches) -> None:
        """Put these in the file, in the place of what it held of this model."""
        write_sketches(self.path, {**self._others, self.origin: sketches})
