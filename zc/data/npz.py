"""NumPy files: .npz and .npy. Pickled content is refused, since reading it runs code."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zc.data.arrays import as_array, ignored_note, match_keys, open_arrays
from zc.data.prep import Prep
from zc.data.source import Array, Opened
from zc.errors import ZcError
from zc.ir.spec import TensorSpec

_UNREADABLE = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, KeyError, NotImplementedError)


def open_npz(path: Path, inputs: Sequence[TensorSpec], prep: Prep | None, label_key: str | None) -> Opened:
    """Arrays by the names of the inputs; labels under `label_key`, else y, label or labels. Reads only what is used.

    Raises:
        ZcError: not a readable .npz, pickled arrays, names, shapes or types that do not fit.
    """
    where = path.name
    try:
        file = np.load(path, allow_pickle=False)
    except _UNREADABLE as error:
        raise ZcError(f"{path}: cannot be read as .npz ({_reason(error)}); {_REMEDY}") from None
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise ZcError(f"{path}: is not an .npz archive but a single array; rename it to .npy")
    with file:
        match = match_keys(file.files, inputs, label_key, where)
        arrays = {name: _member(file, key, path) for name, key in match.inputs.items()}
        labels = _member(file, match.label, path) if match.label is not None else None
    return open_arrays(arrays, labels, inputs, prep, where, ignored_note(match.ignored, where))


def open_npy(path: Path, inputs: Sequence[TensorSpec], prep: Prep | None) -> Opened:
    """One array, mapped and not read into memory, for a model with one input.

    Raises:
        ZcError: several inputs, not a readable .npy, a shape or type that does not fit.
    """
    if len(inputs) != 1:
        names = ", ".join(spec.name for spec in inputs)
        raise ZcError(f"{path}: one array cannot feed {len(inputs)} inputs; use .npz with arrays named {names}")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _UNREADABLE as error:
        raise ZcError(f"{path}: cannot be read as .npy ({_reason(error)}); {_REMEDY}") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise ZcError(f"{path}: is an .npz archive, not a single array; rename it to .npz")
    return open_arrays({inputs[0].name: array}, None, inputs, prep, path.name)


_REMEDY = "it must be written by numpy.savez or numpy.save, without Python objects"


def _member(file: "np.lib.npyio.NpzFile", key: str, path: Path) -> Array:
    try:
        return as_array(file[key], f"{path}: array '{key}'")
    except _UNREADABLE as error:
        raise ZcError(f"{path}: array '{key}' cannot be read ({_reason(error)}); {_REMEDY}") from None


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "pickled Python objects are refused" if "pickle" in text else text
