"""How kernels walk over operands of different layout: axes sorted, merged, cut to the loops that a kernel has."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Walk:
    """Outer sizes, the innermost length, and byte strides of each operand; `starts`: where each begins."""

    sizes: tuple[int, ...]
    length: int
    outer: tuple[tuple[int, ...], ...]
    inner: tuple[int, ...]
    starts: tuple[int, ...]


def walks(
    shape: Sequence[int], strides: Sequence[Sequence[int]], loops: int, contiguous: bool = False
) -> Iterator[Walk]:
    """Walks that together visit every element once, each with exactly `loops` outer loops.

    strides: byte strides of each operand by axis. The last operand's order decides: its smallest stride is innermost.
    contiguous: for kernels whose rows have no steps; what lies apart becomes rows of one.
    """
    axes = [a for a in range(len(shape)) if shape[a] != 1]
    if any(shape[a] == 0 for a in axes):
        return
    axes.sort(key=lambda a: -strides[-1][a])
    merged: list[tuple[int, list[int]]] = []
    for a in axes:
        steps = [s[a] for s in strides]
        if merged and all(outer == step * shape[a] for outer, step in zip(merged[-1][1], steps, strict=True)):
            merged[-1] = (merged[-1][0] * shape[a], steps)
        else:
            merged.append((shape[a], steps))
    if not merged:
        merged = [(1, [1] * len(strides))]
    if contiguous and merged[-1][0] > 1 and any(step != 1 for step in merged[-1][1]):
        merged.append((1, [1] * len(strides)))
    *outside, (length, inner) = merged
    extra, kept = outside[: max(len(outside) - loops, 0)], outside[max(len(outside) - loops, 0) :]
    kept = [(1, [0] * len(strides))] * (loops - len(kept)) + kept
    for indices in itertools.product(*(range(size) for size, _ in extra)):
        starts = [sum(i * steps[k] for i, (_, steps) in zip(indices, extra, strict=True)) for k in range(len(strides))]
        yield Walk(
            tuple(size for size, _ in kept),
            length,
            tuple(tuple(steps[k] for _, steps in kept) for k in range(len(strides))),
            tuple(inner),
            tuple(starts),
        )
