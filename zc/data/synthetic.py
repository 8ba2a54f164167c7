"""Synthetic samples, for when no data was given: they show that a model runs, not how accurate it is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zc.data.batching import batching, require_tensors
from zc.data.cast import kind_of
from zc.data.samples import Samples
from zc.data.source import Array, Feed
from zc.errors import ZcError
from zc.ir.spec import Dim, TensorSpec

Range = tuple[npt.ArrayLike, npt.ArrayLike]
"""Lowest and highest value; arrays that broadcast to a row, to say it by channel."""

_SEQUENCE = 16
_SIDE = 64


@dataclass(frozen=True)
class SyntheticRows:
    """Rows drawn from a generator of their own each, so that they are the same in any batch."""

    inputs: tuple[TensorSpec, ...]
    shapes: Mapping[str, tuple[int, ...]]
    """Of one row, without the batch axis."""
    axes: Mapping[str, int | None]
    hints: Mapping[str, Range]
    seed: int
    count: int
    whole: bool = False

    def read(self, start: int, stop: int) -> Feed:
        """Draws these rows."""
        feed = {}
        for number, spec in enumerate(self.inputs):
            axis = self.axes[spec.name]
            rows = [self._row(number, spec, row) for row in (range(1) if axis is None else range(start, stop))]
            feed[spec.name] = rows[0] if axis is None else np.stack(rows, axis)
        return feed

    def fingerprint(self, start: int, stop: int) -> Iterator[bytes]:
        """What the rows are drawn from."""
        yield f"synthetic {self.seed} {start}:{stop}\n".encode()
        for spec in self.inputs:
            hint = [np.asarray(bound).tolist() for bound in self.hints.get(spec.name, ())]
            yield f"{spec.name} {spec.dtype} {self.shapes[spec.name]} {self.axes[spec.name]} {hint}\n".encode()

    def _row(self, number: int, spec: TensorSpec, row: int) -> Array:
        return _draw(np.random.default_rng([self.seed, number, row]), spec, self.shapes[spec.name], self.hints)


def synthesize(
    inputs: Sequence[TensorSpec],
    rows: int = 32,
    seed: int = 0,
    *,
    hints: Mapping[str, Range] | None = None,
    dims: Mapping[str, int] | None = None,
) -> Samples:
    """Random rows for each input, the same for the same seed.

    Floats are normal, clipped: within -3..3, or within the hint, centred in it. Integers are uniform, both ends of
    the hint included; without one 0..1, which any table has, or 0..255 for uint8 images (-128..127 for int8). Masks
    are all one. An unknown dimension is 16 along sequences, 64 along image sides, or what `dims` says for its name;
    where the model fixes the batch, `rows` is rounded up to whole batches.

    Raises:
        ZcError: an input that is no tensor, of unknown rank, or of a type that cannot be drawn; a hint for no input.
    """
    require_tensors(inputs)
    hints, dims = dict(hints or {}), dict(dims or {})
    names = [spec.name for spec in inputs]
    if unknown := [name for name in hints if name not in names]:
        raise ZcError(f"synthetic samples: hint for '{unknown[0]}', which is not an input: {', '.join(names)}")
    batch = batching(inputs)
    if rows < 1:
        raise ZcError(f"synthetic samples: {rows} rows; expected at least 1")
    rows = -(-rows // (batch.size or 1)) * (batch.size or 1)
    shapes = {spec.name: _row_shape(spec, batch.axes[spec.name], dims) for spec in inputs}
    reader = SyntheticRows(tuple(inputs), shapes, batch.axes, hints, seed, rows)
    _draw_checked(reader)
    return Samples(
        inputs=tuple(inputs),
        reader=reader,
        name=f"SYNTHETIC random samples (seed {seed}; not real data)",
        start=0,
        stop=rows,
        batch=batch.size,
        synthetic=True,
        notes=("samples are synthetic: ranges and accuracy measured on them say little; give real data",),
    )


def _draw_checked(reader: SyntheticRows) -> None:
    try:
        reader.read(0, 1)
    except ValueError as error:
        raise ZcError(f"synthetic samples: a hint does not fit its input ({error})") from None


def _row_shape(spec: TensorSpec, axis: int | None, dims: Mapping[str, int]) -> tuple[int, ...]:
    if spec.shape is None:
        raise ZcError(f"synthetic samples: input '{spec.name}' has an unknown rank; give real data")
    rank = len(spec.shape)
    sizes = [_size(dim, position, rank, dims) for position, dim in enumerate(spec.shape)]
    return tuple(size for position, size in enumerate(sizes) if position != axis)


def _size(dim: Dim, position: int, rank: int, dims: Mapping[str, int]) -> int:
    if isinstance(dim, int):
        return dim
    name = (dim or "").lower()
    if dim is not None and dim in dims:
        return dims[dim]
    if name in {"h", "w"} or "height" in name or "width" in name:
        return _SIDE
    if name in {"s", "t", "l"} or any(part in name for part in ("seq", "len", "time", "token")):
        return _SEQUENCE
    if name == "c" or "channel" in name or (rank == 4 and position == 1):
        return 3
    return _SIDE if rank == 4 else _SEQUENCE


def _draw(rng: np.random.Generator, spec: TensorSpec, shape: tuple[int, ...], hints: Mapping[str, Range]) -> Array:
    assert spec.dtype is not None  # refused by require_tensors
    kind = kind_of(spec.dtype)
    hint = hints.get(spec.name)
    if hint is None and "mask" in spec.name.lower() and kind in {"float", "int", "bool"}:
        return np.ones(shape, dtype=spec.dtype)  # random masks hide all of a row now and then: NaN in its softmax
    if kind == "float":
        low, high = _bounds(hint or (-3.0, 3.0))
        values = (low + high) / 2 + rng.standard_normal(shape) * ((high - low) / 6)
        return np.asarray(np.clip(values, low, high), dtype=spec.dtype)  # a scalar must stay an array
    if kind == "int":
        low, high = _bounds(hint or _whole_range(spec, len(shape)))
        return np.asarray(rng.integers(low.astype(np.int64), high.astype(np.int64), shape, endpoint=True), spec.dtype)
    if kind == "bool":
        return np.asarray(rng.integers(0, 2, shape), np.bool_)
    raise ZcError(
        f"synthetic samples: input '{spec.name}' has type {spec.dtype}, which cannot be drawn; give real data"
    )


def _bounds(hint: Range) -> tuple[Array, Array]:
    return np.asarray(hint[0], dtype=np.float64), np.asarray(hint[1], dtype=np.float64)


def _whole_range(spec: TensorSpec, row_rank: int) -> Range:
    images = {"uint8": (0, 255), "int8": (-128, 127)}
    return images.get(str(spec.dtype), (0, 1)) if row_rank == 3 else (0, 1)
