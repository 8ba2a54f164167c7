"""What an operator's function gets beside its inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

Tensor: TypeAlias = torch.Tensor
Op = Callable[..., Any]
"""(call, *inputs) -> the output, or a tuple of outputs. An input that is left out is None."""


class NotTrained(Exception):  # noqa: N818
    """A form of an operator that cannot be run here; the message is the reason, without the node."""


@dataclass
class Mode:
    """How a whole graph runs; shared by its calls, so that it can be switched."""

    batch_statistics: bool = False
    """Do BatchNormalization nodes use the statistics of the batch, and keep running ones?"""
    wide: bool = False
    """Is everything in float64, whatever a Cast says? To see how near to the truth float32 comes."""


@dataclass(frozen=True, eq=False)
class Call:
    """One node."""

    op: str
    attrs: Mapping[str, Any]
    """Plain values: numbers, text, lists, arrays."""
    opset: int
    outputs: int
    """Number of outputs that the node lists."""
    mode: Mode = field(default_factory=Mode)

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attrs.get(name, default)


def wide(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Differences are taken in float32, whatever the precision of the layers."""
    return {k: v.float() if v.dtype in (torch.float16, torch.bfloat16) else v for k, v in values.items()}


def numbers(values: Any) -> list[Any]:
    """The elements of a tensor or list of sizes, as Python numbers."""
    return list(values.reshape(-1).tolist() if torch.is_tensor(values) else values)


def axes_of(call: Call, given: Tensor | None) -> list[int] | None:
    """Axes from the input that later operator sets have, or the attribute of earlier ones; None where not given."""
    if given is not None:
        return [int(v) for v in numbers(given)]
    axes = call.get("axes")
    return None if axes is None else list(axes)


def together(values: Sequence[Any]) -> list[Any]:
    """The tensors on one device. Sizes and indices are computed on the host; where they meet data, they move to it."""
    away = next((v.device for v in values if torch.is_tensor(v) and v.device.type != "cpu"), None)
    if away is None:
        return list(values)
    return [v.to(away) if torch.is_tensor(v) and v.device != away and v.dim() else v for v in values]


def plain(function: Callable[..., Any]) -> Op:
    """An operator that is one function of its inputs and has no attributes."""
    return lambda call, *inputs: function(*together(inputs))
