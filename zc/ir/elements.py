"""Element types: ONNX's numbers for them, and the numpy and ml_dtypes types that hold them."""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from zc.errors import ZcError

Array = npt.NDArray[Any]

PACKED_BITS: dict[int, int] = {
    getattr(TensorProto, name): bits
    for bits, names in {
        2: ("UINT2", "INT2"),
        4: ("UINT4", "INT4", "FLOAT4E2M1"),
        6: ("FLOAT6E2M3", "FLOAT6E3M2"),
    }.items()
    for name in names
    if hasattr(TensorProto, name)
}
"""Bits of an element in stored data, for the types whose elements do not fill bytes."""


def dtype_of(elem_type: int) -> np.dtype[Any]:
    """The numpy (or ml_dtypes) type of an ONNX element type."""
    try:
        return _dtype_of(elem_type)
    except (KeyError, TypeError) as err:
        raise ZcError(f"element type {elem_type} is not known to the installed onnx {onnx.__version__}") from err


@lru_cache(maxsize=64)
def _dtype_of(elem_type: int) -> np.dtype[Any]:
    return np.dtype(helper.tensor_dtype_to_np_dtype(elem_type))


def elem_type_of(dtype: Any) -> int:
    """The ONNX element type of a numpy (or ml_dtypes) type; strings may be of any numpy string kind."""
    if isinstance(dtype, int):
        return dtype
    dtype = np.dtype(dtype)
    if dtype.kind in "OUS":
        return int(TensorProto.STRING)
    try:
        return int(helper.np_dtype_to_tensor_dtype(dtype if dtype.isnative else dtype.newbyteorder("=")))
    except (KeyError, ValueError) as err:
        raise ZcError(f"numpy type {dtype} has no ONNX element type") from err


def as_dtype(dtype: Any) -> Any:
    """A numpy type, from a numpy type in any form or an ONNX element type. None stays None."""
    if dtype is None or isinstance(dtype, np.dtype):
        return dtype
    return dtype_of(dtype) if isinstance(dtype, int) else np.dtype(dtype)
