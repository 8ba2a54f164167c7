"""Sizes of all values as groups get narrower, without cutting anything."""

from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod

import numpy as np

from zc.data import Samples
from zc.errors import ZcError
from zc.ir.graph import Constant, Tensor
from zc.ir.model import Model
from zc.ir.shapes import static_shape
from zc.measure.bind import bind, measure_shapes, open_dims, sizes_of
from zc.passes.prune.groups import Groups
from zc.passes.prune.labels import Ints
from zc.passes.prune.layout import Block
from zc.pipeline.synthetic import synthetic_samples

Shape = tuple[int, ...]
_Share = tuple[int, int, int]
"""An axis, a group, and how many positions of the axis are of the group."""


class Sizes(Mapping[str, Shape]):
    """Shape of each value of the main graph, by name, for a batch of one. KeyError where it is not known.

    What groups have lost is set with `at`.
    """

    def __init__(self, groups: Groups, samples: Samples | None) -> None:
        """Note which part of each axis is of which group.

        samples: open dimensions have the sizes of the first row, of a synthetic one without samples.
        """
        model = groups.flow.model
        tensors = _tensors(model)
        self._shapes = _shapes(model, samples)
        self._shares: dict[str, tuple[_Share, ...]] = {}
        for name, tensor in tensors.items():
            found = [s for block in groups.flow.layouts.get(id(tensor), ()) for s in _shares(groups, block)]
            if found and name in self._shapes:
                self._shares[name] = tuple(found)
        self.left = np.ones(len(groups.groups))
        """By group, the share of its atoms that is left."""

    def groups_of(self, name: str) -> set[int]:
        """The groups whose width a value depends on."""
        return {group for _, group, _ in self._shares.get(name, ())}

    def __getitem__(self, name: str) -> Shape:
        shape = self._shapes[name]
        shares = self._shares.get(name)
        if shares is None:
            return shape
        sizes = list(shape)
        for axis, group, count in shares:
            sizes[axis] -= round(count * (1.0 - float(self.left[group])))
        return tuple(sizes)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def _shares(groups: Groups, block: Block) -> Iterator[_Share]:
    """Which positions along which axis of a block leave with which group."""
    roots = groups.classes.roots[block.labels]
    for dim, axis in enumerate(block.axes):
        others = tuple(d for d in range(roots.ndim) if d != dim)
        lines: Ints = roots.min(axis=others) if others else roots
        if others and not (roots == np.expand_dims(lines, others)).all():
            continue
        owners = Counter(groups.group_of[lines].tolist())
        yield from ((axis, group, count) for group, count in sorted(owners.items()) if group >= 0)
        return
    # Rows that keep columns of their own: as many leave of each.
    if roots.ndim == 2:
        owners = Counter(groups.group_of[roots.ravel()].tolist())
        for group, count in sorted(owners.items()):
            if group >= 0:
                yield block.axes[1], group, count // prod(roots.shape[:1])


def _tensors(model: Model) -> dict[str, Tensor]:
    tensors = [*model.graph.inputs, *(t for n in model.graph.nodes for t in (*n.inputs, *n.outputs))]
    return {t.name: t for t in tensors if t.name}


def _shapes(model: Model, samples: Samples | None) -> dict[str, Shape]:
    """Shapes of all values of the main graph as far as they are known, batch 1."""
    bound = bind(model, _row_sizes(model, samples))
    unknown = [t for n in bound.graph.nodes for t in n.outputs if t.name and static_shape(t) is None]
    if unknown:
        measure_shapes(bound, unknown)
    return {
        name: shape
        for name, t in _tensors(bound).items()
        if (shape := tuple(t.shape) if isinstance(t, Constant) else static_shape(t)) is not None
    }


def _row_sizes(model: Model, samples: Samples | None) -> dict[str, int]:
    """Sizes of open dimensions in the first row of the samples, by the names that `bind` takes."""
    if not open_dims(model):
        return {}
    try:
        return sizes_of(model, next((samples or synthetic_samples(model, rows=1)).batches(1)))
    except (ZcError, StopIteration):
        return {}
