"""The two half-precision types: what they hold."""

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto

from zc.ir.graph import Array


@dataclass(frozen=True)
class Kind:
    """A floating-point type of 16 bits."""

    name: str
    dtype: np.dtype[Any]
    element_type: int
    """ONNX's number for it."""
    largest: float
    smallest: float
    """The smallest normal number; below it digits are lost, and zero is not far."""
    digits: int
    """Bits of the fraction."""

    @property
    def least(self) -> float:
        """The smallest number above zero."""
        return self.smallest * 2.0**-self.digits

    @property
    def tensor(self) -> str:
        """How operator schemas call a tensor of it."""
        return f"tensor({self.name})"

    def round(self, values: Array) -> Array:
        """The nearest numbers of this type; beyond the largest, infinity."""
        with np.errstate(over="ignore"):
            return values.astype(self.dtype)

    def loss(self, values: Array) -> float:
        """Root mean square of the rounding error, relative to the values; infinite where one is out of range."""
        finite = values[np.isfinite(values)]
        exact = finite.astype(np.float64)
        size = float(np.sqrt(np.square(exact).sum()))
        error = self.round(finite).astype(np.float64) - exact
        return float(np.sqrt(np.square(error).sum())) / size if size else 0.0


FLOAT16 = Kind("float16", np.dtype(np.float16), TensorProto.FLOAT16, 65504.0, 2.0**-14, 10)
BFLOAT16 = Kind("bfloat16", np.dtype(ml_dtypes.bfloat16), TensorProto.BFLOAT16, 3.3895e38, 2.0**-126, 7)
