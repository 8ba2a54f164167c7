"""Optimisation profiles: the least, the usual and the largest size of each dimension that a model leaves open."""

from collections.abc import Sequence
from dataclasses import dataclass

from zc.errors import ZcError, nearest
from zc.ir.model import Model
from zc.ir.spec import TensorSpec

Sizes = tuple[int, int, int]
"""Least, usual, largest."""

BATCH: Sizes = (1, 8, 32)
"""Of an open first dimension that nothing is said of."""


@dataclass(frozen=True)
class Profile:
    """The shapes that an engine is built for, of one input."""

    name: str
    least: tuple[int, ...]
    usual: tuple[int, ...]
    largest: tuple[int, ...]


def read_dims(texts: Sequence[str]) -> dict[str, Sizes]:
    """Sizes by name of a dimension, of texts as `N/1/8/32`. ZcError for a text of another form."""
    found = {}
    for text in texts:
        name, *numbers = text.rsplit("/", 3)
        if len(numbers) != 3 or not name or not all(n.isdecimal() for n in numbers):
            raise ZcError(f"dims={text}: expected NAME/LEAST/USUAL/LARGEST, as N/1/8/32")
        least, usual, largest = (int(n) for n in numbers)
        if not 1 <= least <= usual <= largest:
            raise ZcError(f"dims={text}: the sizes must rise and be 1 or more")
        found[name] = (least, usual, largest)
    return found


def make_profiles(model: Model, dims: dict[str, Sizes]) -> list[Profile]:
    """A profile of each input with open dimensions.

    dims: by name of a dimension, or INPUT.AXIS for one without a name. ZcError for an open dimension that nothing is
    said of (a batch in front has a default), or for a name that no dimension has.
    """
    known, profiles = set(), []
    for spec in model.inputs:
        assert spec.shape is not None  # a rule sees to it
        sizes = []
        for axis, dim in enumerate(spec.shape):
            if isinstance(dim, int):
                sizes.append((dim, dim, dim))
                continue
            name = dim if isinstance(dim, str) else f"{spec.name}.{axis}"
            known.add(name)
            sizes.append(_sizes(model, spec, axis, name, dims))
        if not all(isinstance(d, int) for d in spec.shape):
            least, usual, largest = zip(*sizes, strict=True)
            profiles.append(Profile(spec.name, least, usual, largest))
    for name in dims:
        if name not in known:
            has = f"its open dimensions are {', '.join(sorted(known))}" if known else "it has no open dimensions"
            raise ZcError(f"{model.name}: no dimension '{name}'{nearest(name, sorted(known))}; {has}")
    return profiles


def _sizes(model: Model, spec: TensorSpec, axis: int, name: str, dims: dict[str, Sizes]) -> Sizes:
    if name in dims:
        return dims[name]
    if axis == 0:
        return BATCH
    raise ZcError(
        f"{model.name}: input '{spec.name}' leaves dimension '{name}' open; give its sizes with "
        f"--target tensorrt:dims={name}/LEAST/USUAL/LARGEST, or fix it with --shape"
    )
