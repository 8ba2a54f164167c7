"""Element types: what may become what without changing a value, and the check that every number is finite."""

from typing import Any

import numpy as np

from zc.data.source import Array
from zc.errors import ZcError


def kind_of(dtype: np.dtype[Any]) -> str:
    """'float', 'int' (signed or not), 'bool', 'complex', 'string', or 'other'.

    Goes by name: numpy gives the small types of ml_dtypes (bfloat16, float8, int4) no kind of their own.
    """
    if dtype.kind in "OSU":
        return "string"
    for kind, prefixes in _PREFIXES.items():
        if dtype.name.startswith(prefixes):
            return kind
    return "other"


_PREFIXES: dict[str, tuple[str, ...]] = {
    "float": ("float", "bfloat"),
    "int": ("int", "uint"),
    "bool": ("bool",),
    "complex": ("complex",),
}


def cast(array: Array, dtype: np.dtype[Any], where: str) -> Array:
    """`array` as `dtype`, where that keeps the values: floats may be rounded, integers may not change.

    Raises:
        ZcError: a fraction for an integer input, an integer out of range, text for numbers or numbers for text.
    """
    have, want = kind_of(array.dtype), kind_of(dtype)
    if want == have == "string":
        return _strings(array, where)
    if array.dtype == dtype:
        return array
    if (have, want) in _FREE:
        with np.errstate(over="ignore"):  # an overflow becomes infinite and is reported with its row
            return array.astype(dtype)
    if have in {"int", "float"} and want in {"int", "bool"}:
        return _exactly(array, dtype, where)
    raise ZcError(f"{where}: got {array.dtype.name} values, the model takes {dtype.name}")


_FREE = {
    ("bool", "int"),
    ("bool", "float"),
    ("int", "float"),
    ("float", "float"),
    ("complex", "complex"),
}


def _exactly(array: Array, dtype: np.dtype[Any], where: str) -> Array:
    with np.errstate(invalid="ignore"):  # NaN and huge floats: the comparison below finds them
        out = array.astype(dtype)
        same = np.asarray(out.astype(array.dtype) == array)
    if dtype.name != "bool":
        same &= (out < 0) == (array < 0)  # 2**64 - 1 comes back from int64 as itself
    if not same.all():
        value = array[~same].ravel()[0]
        raise ZcError(
            f"{where}: got {array.dtype.name} values that {dtype.name} cannot hold, such as {value}; "
            f"the model takes {dtype.name}: convert the data, or check that it belongs to this input"
        )
    return out


def _strings(array: Array, where: str) -> Array:
    texts = [text.decode() if isinstance(text, bytes) else text for text in array.ravel().tolist()]
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    if wrong is not None:
        raise ZcError(f"{where}: expected text, got {type(wrong).__name__}")
    out = np.empty(len(texts), dtype=object)
    out[:] = texts
    return out.reshape(array.shape)


def check_finite(array: Array, where: str, first_row: int | None, axis: int | None = 0) -> None:
    """Error with the row and the count when a float is NaN or infinite: it would poison every range measured from it.

    array: one batch whose rows, numbered from `first_row`, lie along `axis`; None where rows have no meaning.
    """
    if kind_of(array.dtype) not in {"float", "complex"}:
        return
    finite = np.isfinite(array)
    if finite.all():
        return
    count = int(array.size - finite.sum())
    place = ""
    if first_row is not None:
        index = 0
        if axis is not None and array.ndim:
            index = int(np.argmin(finite.all(axis=tuple(a for a in range(array.ndim) if a != axis))))
            count = int((~finite.take(index, axis=axis)).sum())
        place = f" row {first_row + index}:"
    raise ZcError(
        f"{where}:{place} {count} values are NaN or infinite as {array.dtype}; remove or repair what is there"
    )
