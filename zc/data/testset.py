"""ONNX test sets: folders with input_0.pb, input_1.pb, ..., as the ONNX model zoo ships them."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from zc.data.feeds import FeedRows
from zc.data.prep import Prep
from zc.data.source import Array, Feed, Opened
from zc.errors import ZcError
from zc.ir.spec import TensorSpec

_INPUT = re.compile(r"input_(\d+)\.pb")
_LIMIT = 2**31 - 1  # what one protobuf message can hold


def find_sets(folder: Path) -> list[Path]:
    """The test sets in a folder, by number: itself if it has input_*.pb, else its test_data_set_* subfolders."""
    if _input_files(folder):
        return [folder]
    return sorted((sub for sub in folder.glob("test_data_set_*") if sub.is_dir() and _input_files(sub)), key=_number)


def open_testset(folder: Path, sets: Sequence[Path], inputs: Sequence[TensorSpec], prep: Prep | None) -> Opened:
    """A feed a set. Tensors go to the inputs by name if all are named so, else by their number.

    Raises:
        ZcError: as many files as inputs are not there. A damaged file is found when its set is read.
    """
    for one in sets:
        found = len(_input_files(one))
        if found != len(inputs):
            listed = ", ".join(str(spec) for spec in inputs)
            raise ZcError(f"{one}: has {found} files input_*.pb, the model has {len(inputs)} inputs: {listed}")
    notes = []
    if any(any(one.glob("output_*.pb")) for one in sets):
        notes.append(f"{folder.name}: the expected outputs (output_*.pb) are not used")
    names = tuple(spec.name for spec in inputs)
    rows = FeedRows(tuple(inputs), prep, len(sets), folder.name, partial(_read_set, tuple(sets), names))
    return Opened(rows, folder.name, None, tuple(notes))


def read_tensor(path: Path) -> tuple[str, Array]:
    """Name and value of a serialized TensorProto.

    Raises:
        ZcError: too large, cut short, not a tensor, or its data lies in another file.
    """
    from onnx import TensorProto, numpy_helper  # here, since no other source needs it and it is slow to import

    size = path.stat().st_size
    if size > _LIMIT:
        raise ZcError(f"{path}: has {size} bytes, a .pb file can have at most {_LIMIT}; use .npz")
    try:
        tensor = TensorProto.FromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError, whose module has no types, or OSError
        raise ZcError(f"{path}: cannot be read as a tensor, it may be cut short ({error}); fetch it again") from None
    if tensor.data_location == TensorProto.EXTERNAL:
        raise ZcError(f"{path}: its data lies in another file, which a test set must not refer to; save it inside")
    if tensor.data_type == TensorProto.UNDEFINED:
        raise ZcError(f"{path}: holds no tensor (sequences and optionals are not supported)")
    try:
        return tensor.name, numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise ZcError(
            f"{path}: its data does not fill its shape {list(tensor.dims)} ({error}); fetch it again"
        ) from None


def _read_set(sets: tuple[Path, ...], names: tuple[str, ...], number: int) -> Feed:
    tensors = [read_tensor(path) for path in _input_files(sets[number])]
    if sorted(name for name, _ in tensors) == sorted(names):
        return dict(tensors)
    return {name: array for name, (_, array) in zip(names, tensors, strict=True)}


def _input_files(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("input_*.pb") if _INPUT.fullmatch(path.name)), key=_number)


def _number(path: Path) -> tuple[int, str]:
    digits = re.findall(r"\d+", path.name)
    return (int(digits[-1]) if digits else -1), path.name
