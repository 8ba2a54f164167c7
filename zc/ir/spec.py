"""What a model says about one of its inputs or outputs."""

from dataclasses import dataclass

import numpy as np

Dim = int | str | None
"""A dimension: a size, a named symbol, or unknown."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, element type and shape of a graph input or output.

    `dtype` is None for values that are not tensors (sequences, maps, optionals) and where the type is unknown;
    `shape` is None when the rank is unknown.
    """

    name: str
    dtype: np.dtype | None
    shape: tuple[Dim, ...] | None

    def __str__(self) -> str:
        dims = "?" if self.shape is None else ",".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.name}: {self.dtype}[{dims}]"
