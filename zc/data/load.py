"""Find out what a source is, and open it."""

import re
from collections.abc import Sequence
from pathlib import Path

from zc.data.batching import batching, require_tensors
from zc.data.callable import open_callable
from zc.data.imagefiles import SUFFIXES
from zc.data.images import open_images
from zc.data.npz import open_npy, open_npz
from zc.data.prep import Prep, parse_prep
from zc.data.rows import parse_rows, rows_needed
from zc.data.samples import Samples, full_batches
from zc.data.source import Opened
from zc.data.testset import find_sets, open_testset
from zc.errors import ZcError
from zc.ir.spec import TensorSpec

_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_SUPPORTED = ".npz, .npy, a folder of images, an ONNX test_data_set folder, or package.module:function"


def load_samples(
    source: str,
    inputs: Sequence[TensorSpec],
    *,
    rows: str | None = None,
    prep: str | None = None,
    label_key: str | None = None,
) -> Samples:
    """Samples for a model with these inputs; the first batch is read, so that what is wrong is said at once.

    source: a .npz or .npy file, a folder of images or of ONNX test sets, or `package.module:function`, which is
    imported and called. rows: a range such as 0:256 (all, if None). prep: see `parse_prep`; for float image inputs.
    label_key: the array that holds the labels, when it is not y, label or labels.

    Raises:
        ZcError: the source is missing, unreadable, unsupported or empty, or does not fit the inputs.
    """
    if not inputs:
        raise ZcError(f"{source}: the model has no inputs, so it takes no samples")
    require_tensors(inputs)
    parsed = parse_prep(prep) if prep is not None else None
    opened = _open(source, inputs, parsed, label_key, rows_needed(rows))
    reader = opened.reader
    unit = "feeds" if reader.whole else "rows"
    start, stop = parse_rows(rows, reader.count, opened.name, unit) if rows is not None else (0, reader.count)
    samples = Samples(
        inputs=tuple(inputs),
        reader=reader,
        name=opened.name,
        start=start,
        stop=stop,
        labels=None if opened.labels is None else opened.labels[start:stop],
        prep=str(parsed) if parsed is not None else "",
        batch=batching(inputs).size,
        notes=opened.notes,
    )
    samples = full_batches(samples)
    next(samples.batches())
    return samples


def _open(
    source: str, inputs: Sequence[TensorSpec], prep: Prep | None, label_key: str | None, limit: int | None
) -> Opened:
    path = Path(source)
    if path.is_dir():
        sets = find_sets(path)
        opened = open_testset(path, sets, inputs, prep) if sets else open_images(path, inputs, prep)
    elif path.is_file():
        opened = _open_file(path, inputs, prep, label_key)
    elif _FUNCTION.fullmatch(source):
        opened = open_callable(source, inputs, prep, label_key, limit)
    else:
        raise ZcError(f"{source}: no such file or folder; samples are {_SUPPORTED}")
    if label_key is not None and opened.labels is None:
        raise ZcError(f"{source}: this kind of source has no arrays by name, so no '{label_key}' for the labels")
    return opened


def _open_file(path: Path, inputs: Sequence[TensorSpec], prep: Prep | None, label_key: str | None) -> Opened:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return open_npz(path, inputs, prep, label_key)
    if suffix == ".npy":
        return open_npy(path, inputs, prep)
    hint = "; name the folder that holds it" if suffix in {*SUFFIXES, ".pb"} else ""
    raise ZcError(f"{path}: '{suffix}' files are not supported{hint}; samples are {_SUPPORTED}")
