"""Trained initializers: what the graph reads of them, and what goes back into the file."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch

from zc.ir.graph import Array, Constant
from zc.training.ops.call import Tensor
from zc.training.ops.codes import fitted, reach_of, shift_of, to_codes
from zc.training.ops.elementwise import as_tensor
from zc.training.roles import Matrices, Role

Read = Callable[[], Tensor]


class Weight(ABC):
    """An initializer whose numbers are trained, under its ONNX name."""

    name: str
    decays: bool
    parameter: torch.nn.Parameter
    matrices: Matrices | None = None
    """See `Role.matrices`."""

    @abstractmethod
    def value(self) -> Tensor:
        """What the graph reads, a function of the parameter."""

    @abstractmethod
    def array(self) -> Array:
        """What the file stores."""


class FloatWeight(Weight):
    """A weight in floating point; half-precision ones are trained in float32."""

    def __init__(self, role: Role) -> None:
        self.name, self.decays, self.matrices = role.constant.name, role.decays, role.matrices
        stored = as_tensor(role.constant.values)
        self._type = np.dtype(role.constant.dtype)
        self._narrow = stored.dtype if stored.element_size() < 4 else None
        self.parameter = torch.nn.Parameter(stored.to(torch.float32) if self._narrow is not None else stored)

    def value(self) -> Tensor:
        """See `Weight.value`."""
        return self.parameter if self._narrow is None else self.parameter.to(self._narrow)

    def array(self) -> Array:
        """See `Weight.array`."""
        return np.array(self.parameter.detach().cpu().numpy(), self._type)


class CodedWeight(Weight):
    """Codes behind a DequantizeLinear: a float that is put onto the grid of its scale each time.

    scale, zero: give the tensors of the graph.
    """

    def __init__(self, role: Role, scale: Read, zero: Read | None) -> None:
        self.name, self.decays, self.matrices = role.constant.name, role.decays, role.matrices
        self._type = np.dtype(role.constant.dtype)
        self._axis = int(role.reader.attrs.get("axis", 1))
        self._block = int(role.reader.attrs.get("block_size", 0))
        self._reach = _grid_of(role.constant.values)
        self._scale, self._zero = scale, zero
        codes = as_tensor(role.constant.values).to(scale().dtype)
        step, shift = self._grid(codes)
        latent = (codes if shift is None else codes - shift) * step
        self.parameter = torch.nn.Parameter(latent.detach().to(torch.float32).clone())

    def _grid(self, like: Tensor) -> tuple[Tensor, Tensor | None]:
        scale = fitted(self._scale(), like, self._axis, self._block)
        zero = shift_of(None if self._zero is None else self._zero(), scale, like)
        return scale, None if zero is None else fitted(zero, like, self._axis, self._block)

    def value(self) -> Tensor:
        """See `Weight.value`."""
        scale, zero = self._grid(self.parameter)
        return to_codes(self.parameter, scale, zero, self._reach)

    def array(self) -> Array:
        """See `Weight.array`."""
        with torch.no_grad():
            codes = self.value().to(torch.float64).cpu().numpy()
        return np.asarray(codes.astype(np.int64).astype(self._type))


def _grid_of(codes: Array) -> tuple[int, int]:
    """The least and largest code that a weight may get: of as many bits as its codes use, symmetric if they are.

    A weight of four bits may be stored in eight, and one without -128 was made so on purpose. Biases have all 32 bits.
    """
    low, high = reach_of(codes.dtype.name)
    if low == 0 or codes.dtype.itemsize > 1 or codes.size == 0:
        return low, high
    values = codes.astype(np.int64)
    bits = max(int(values.max()), -int(values.min()) - 1, 1).bit_length()
    least = -(2**bits) if values.min() == -(2**bits) else -(2**bits) + 1
    return max(least, low), min(2**bits - 1, high)


class ScaleWeight(Weight):
    """A scale of Q/DQ that is learned: what it was times e to the sum of parameters.

    So it stays positive, and a step changes it by a share. Scales that move together share their parameters.
    """

    decays = False

    def __init__(self, constant: Constant, parameters: list[torch.nn.Parameter]) -> None:
        self.constant, self.parameters, self.parameter = constant, parameters, parameters[0]
        self.own = len(parameters) == 1
        """Has it a parameter of its own kind, or does it follow from others?"""
        self.name = constant.name
        self._type = np.dtype(constant.dtype)
        self._start = as_tensor(constant.values)

    def value(self) -> Tensor:
        """See `Weight.value`."""
        self._start = self._start.to(self.parameter.device)
        return self._start * torch.exp(sum(self.parameters[1:], self.parameters[0]).reshape(-1)).reshape(
            self._start.shape
        )

    def array(self) -> Array:
        """See `Weight.array`."""
        with torch.no_grad():
            return np.array(self.value().cpu().numpy(), self._type)
