"""Samples from a Python function that the user named as `package.module:function`."""

import importlib
import inspect
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any

import numpy as np

from zc.data.arrays import as_array, ignored_note, match_keys, open_arrays
from zc.data.feeds import FeedRows
from zc.data.prep import Prep
from zc.data.source import Array, Feed, Opened
from zc.errors import ZcError, nearest
from zc.ir.spec import TensorSpec

_IN_MEMORY = 256 * 2**20  # bytes of spooled feeds before they go to a temporary file


def open_callable(
    name: str, inputs: Sequence[TensorSpec], prep: Prep | None, label_key: str | None, limit: int | None = None
) -> Opened:
    """Imports and calls the function, once; with the inputs (TensorSpec) if it takes a parameter.

    It returns a dict of arrays with rows first, as an .npz would hold, or (dict, labels); or an iterable of feeds:
    dicts with an array an input, each a single sample or a batch as the model takes it, never joined with another.
    A generator is read once, at most `limit` feeds of it, so that every pass sees the same feeds; a large one is kept
    in a temporary file.

    Raises:
        ZcError: it cannot be imported or called, fails, or gives something else or nothing.
    """
    result = _call(named_function(name), tuple(inputs), name)
    labels: object = None
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], Mapping):
        result, labels = result
    if isinstance(result, Mapping):
        return _from_dict(result, labels, inputs, prep, label_key, name)
    if isinstance(result, str | bytes | np.ndarray) or not isinstance(result, Iterable):
        raise ZcError(
            f"{name}: returned {type(result).__name__}; expected a dict of arrays or an iterable of feed dicts"
        )
    spool = FeedSpool(name)
    _fill(spool, result, limit, name)
    return Opened(FeedRows(tuple(inputs), prep, len(spool), name, spool.get), name)


class FeedSpool:
    """Feeds written one after the other, read by number; in memory, or on disk when they are large."""

    def __init__(self, name: str) -> None:
        self._name = name
        # Lives as long as the samples that read from it, so no `with`.
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115
        self._index: list[dict[str, tuple[int, np.dtype[Any], tuple[int, ...]]]] = []

    def __len__(self) -> int:
        """Number of feeds."""
        return len(self._index)

    def put(self, feed: Feed) -> None:
        """Append a feed."""
        entry = {}
        for key, array in feed.items():
            plain = array.astype(np.str_) if array.dtype == object else array
            entry[key] = (self._file.seek(0, os.SEEK_END), plain.dtype, plain.shape)
            self._file.write(plain.tobytes())
        self._index.append(entry)

    def get(self, number: int) -> Feed:
        """The feed of this number, as it was put."""
        feed = {}
        for key, (offset, dtype, shape) in self._index[number].items():
            self._file.seek(offset)
            size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            feed[key] = (
                np.frombuffer(self._file.read(size), dtype=dtype).reshape(shape) if size else np.empty(shape, dtype)
            )
        return feed


def _fill(spool: FeedSpool, feeds: Iterable[object], limit: int | None, name: str) -> None:
    iterator = iter(feeds)
    while limit is None or len(spool) < limit:
        try:
            feed = next(iterator)
        except StopIteration:
            break
        except Exception as error:
            raise _failed(name, f"feed {len(spool)}", error) from error
        where = f"{name}: feed {len(spool)}"
        if not isinstance(feed, Mapping):
            raise ZcError(
                f"{where}: is a {type(feed).__name__}; expected a dict from the names of the inputs to arrays"
            )
        spool.put({str(key): as_array(value, f"{where}: '{key}'") for key, value in feed.items()})
    if not len(spool) and limit != 0:
        raise ZcError(f"{name}: gives no feeds")


def _from_dict(
    result: Mapping[str, object],
    labels: object,
    inputs: Sequence[TensorSpec],
    prep: Prep | None,
    label_key: str | None,
    name: str,
) -> Opened:
    arrays = {str(key): as_array(value, f"{name}: array '{key}'") for key, value in result.items()}
    match = match_keys(list(arrays), inputs, label_key, name)
    own: Array | None = arrays[match.label] if match.label is not None else None
    if labels is not None:
        own = as_array(labels, f"{name}: labels")
    chosen = {spec: arrays[key] for spec, key in match.inputs.items()}
    return open_arrays(chosen, own, inputs, prep, name, ignored_note(match.ignored, name))


def named_function(name: str) -> Callable[..., object]:
    """The function that `package.module:function` names; ZcError when there is none or its module does not import."""
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:  # an installed command does not see the current folder, `python -m` does
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = f"no module '{error.name}'"
        raise ZcError(f"{name}: {missing}; install it, or run in the folder that holds it") from None
    except Exception as error:
        raise _failed(name, "importing it", error) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        close = nearest(attribute, [key for key, value in vars(module).items() if callable(value)])
        raise ZcError(f"{name}: module '{module_name}' has no function '{attribute}'{close}")
    result: Callable[..., object] = function
    return result


def _call(function: Callable[..., object], inputs: tuple[TensorSpec, ...], name: str) -> object:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        parameters = {}.values()
    positional = [p for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]
    if len(needed) > 1 or (needed and not positional):
        raise ZcError(f"{name}: needs the arguments {', '.join(needed)}; it may take one, the inputs of the model")
    wants_inputs = bool(needed) or any(p.name == "inputs" for p in positional)
    try:
        if wants_inputs and not needed:
            return function(inputs=inputs)
        return function(inputs) if wants_inputs else function()
    except ZcError:
        raise
    except Exception as error:
        raise _failed(name, "calling it", error) from error


def _failed(name: str, doing: str, error: Exception) -> ZcError:
    text = str(error).splitlines()[0] if str(error) else "no message"
    return ZcError(f"{name}: {doing} failed: {type(error).__name__}: {text}")
