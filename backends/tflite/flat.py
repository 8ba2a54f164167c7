"""The graph of a .tflite file as plain values: tensors, operators, subgraphs. What the emitter writes, one to one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zc.ir.graph import Array

Shape = tuple[int, ...]
"""Sizes of dimensions; -1 is one that is only known at run time."""

Option = int | float | bool | str | Sequence[int]


@dataclass(frozen=True, eq=False)
class Quant:
    """How the codes of a tensor stand for numbers: number = scale * (code - zero)."""

    scale: Array
    """float32[1], or float32[channels]."""
    zero: Array
    """int64, of the shape of `scale`."""
    axis: int = 0
    """The dimension of the tensor that is the channel, where there is more than one scale."""

    @staticmethod
    def of(scale: float | np.floating[Any], zero: int) -> "Quant":
        """One scale for the whole tensor."""
        return Quant(np.array([scale], np.float32), np.array([zero], np.int64))

    @property
    def per_channel(self) -> bool:
        """Is there a scale for each channel?"""
        return self.scale.size > 1

    def same(self, other: "Quant | None") -> bool:
        """Do equal codes stand for equal numbers?"""
        return (
            other is not None
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero, other.zero)
            and (self.axis == other.axis or not self.per_channel)
        )


@dataclass(eq=False)
class FlatTensor:
    """A tensor of the file. `data`: its numbers, where it is constant."""

    name: str
    shape: Shape
    dtype: np.dtype[Any]
    quant: Quant | None = None
    data: Array | None = None

    @property
    def constant(self) -> bool:
        """Is it known when the file is written?"""
        return self.data is not None

    @property
    def static(self) -> bool:
        """Are all of its sizes known?"""
        return -1 not in self.shape

    def __repr__(self) -> str:
        return f"<{self.name} {self.dtype}{list(self.shape)}>"


@dataclass(eq=False)
class FlatOp:
    """An operator of the file. Options are named as in the schema's object API (`strideH`)."""

    code: str
    """As the schema spells it: CONV_2D."""
    inputs: list[FlatTensor | None]
    outputs: list[FlatTensor]
    options: dict[str, Option] = field(default_factory=dict)
    origin: str = ""
    """The node that it was made of, as messages name it."""

    def __repr__(self) -> str:
        return f"<{self.code} {self.inputs} -> {self.outputs}>"


@dataclass(eq=False)
class FlatGraph:
    """A subgraph of the file, with the names of its signature."""

    name: str
    ops: list[FlatOp] = field(default_factory=list)
    inputs: dict[str, FlatTensor] = field(default_factory=dict)
    outputs: dict[str, FlatTensor] = field(default_factory=dict)

    def tensors(self) -> list[FlatTensor]:
        """Every tensor once, in order of first use."""
        found = {id(t): t for t in self._mentions()}
        return list(found.values())

    def _mentions(self) -> Iterator[FlatTensor]:
        yield from self.inputs.values()
        for op in self.ops:
            yield from (t for t in op.inputs if t is not None)
            yield from op.outputs
        yield from self.outputs.values()

    def producers(self) -> dict[int, FlatOp]:
        """By id of a tensor, the operator that computes it."""
        return {id(t): op for op in self.ops for t in op.outputs}

    def readers(self) -> dict[int, list[FlatOp]]:
        """By id of a tensor, the operators that read it, once for each time they do."""
        found: dict[int, list[FlatOp]] = {}
        for op in self.ops:
            for tensor in op.inputs:
                if tensor is not None:
                    found.setdefault(id(tensor), []).append(op)
        return found

    def count(self, code: str) -> int:
        """Number of operators of a kind."""
        return sum(op.code == code for op in self.ops)
