"""Operands of element-wise operators: one layout for all, and values of fewer axes brought into it."""

from collections.abc import Sequence

from zc.backends.tflite.codes import read_codes
from zc.backends.tflite.flat import FlatTensor
from zc.backends.tflite.layout import Layout, permuted, plain
from zc.backends.tflite.lowering import Lowering
from zc.ir.graph import Tensor


def common_layout(lowering: Lowering, tensors: Sequence[Tensor], rank: int) -> Layout:
    """The layout in which the fewest numbers have to be moved; of equals, that of the first value."""
    votes: dict[Layout, int] = {}
    for tensor in tensors:
        if lowering.known(tensor) or lowering.rank(tensor) != rank:
            continue
        shape = lowering.shape(tensor)
        size = 1
        for d in shape:
            size *= max(d, 1)
        # A value with one axis longer than one lies well in every layout.
        weight = size if sum(d != 1 for d in shape) > 1 else 0
        layout = lowering.layout(tensor)
        votes[layout] = votes.get(layout, 0) + weight
    return max(votes, key=lambda one: votes[one]) if votes else plain(rank)


def operand(lowering: Lowering, tensor: Tensor, layout: Layout) -> FlatTensor:
    """A value of as many axes as the layout or fewer, as a tensor that broadcasts in that layout."""
    rank, own = len(layout), lowering.rank(tensor)
    missing = rank - own
    if missing == 0:
        made = read_codes(lowering, tensor, layout) if lowering.integer else lowering.read(tensor, layout)
        return _short(lowering, made, rank) if lowering.known(tensor) else made
    inner = tuple(axis - missing for axis in layout if axis >= missing)
    made = read_codes(lowering, tensor, inner) if lowering.integer else lowering.read(tensor, inner)
    if layout[:missing] == plain(rank)[:missing]:
        return made
    full = permuted((1,) * missing + lowering.shape(tensor), layout)
    return _short(lowering, lowering.reshape(made, full), rank)


def _short(lowering: Lowering, made: FlatTensor, rank: int) -> FlatTensor:
    """A constant without the axes of one in front, which broadcasting adds anyway: kernels have paths for vectors."""
    if not made.constant or len(made.shape) < rank:
        return made
    shape = list(made.shape)
    while len(shape) > 1 and shape[0] == 1:
        del shape[0]
    return lowering.reshape(made, tuple(shape))


def operands(lowering: Lowering, tensors: Sequence[Tensor], out: Tensor) -> tuple[Layout, list[FlatTensor]]:
    """The layout of the result, and every value in it."""
    layout = common_layout(lowering, tensors, lowering.rank(out))
    return layout, [operand(lowering, t, layout) for t in tensors]
