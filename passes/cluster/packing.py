"""Indices in bytes: a byte stands for several weights at once where their codebook is small.

A byte tells k^n rows of n weights apart if k^n <= 256. Its table holds all rows of n entries of the codebook of k, so
that one look-up gives n weights; no operator needs to know of half bytes.
"""

from collections.abc import Iterator

import numpy as np

from zc.ir.edit import Editor, Names
from zc.ir.graph import Array, Node, Tensor
from zc.passes.layers.layers import Layer

BYTE = 256
OVERHEAD = 400
"""Bytes that the nodes of a look-up and their values take in a file, about."""
_INT32 = 6


def together(count: int, entries: int, each: int) -> int:
    """How many weights an index stands for, so that indices and table take the fewest bytes.

    count: of weights. entries: of the codebook. each: bytes of a number.
    """
    return min(_possible(count, entries), key=lambda n: (_bytes(count, entries, each, n), n))


def bytes_stored(count: int, entries: int, each: int) -> int:
    """What so many weights take in a file."""
    return _bytes(count, entries, each, together(count, entries, each)) + OVERHEAD


def _possible(count: int, entries: int) -> Iterator[int]:
    yield 1
    for n in range(2, 9):
        if entries**n <= BYTE and count % n == 0:
            yield n


def _bytes(count: int, entries: int, each: int, n: int) -> int:
    return count // n + int(entries**n) * n * each


def store(layer: Layer, codes: Array, book: Array, editor: Editor, names: Names) -> None:
    """Cast(indices) -> Gather(table, .) in the place of the weight, with a Reshape where an index stands for several.

    codes: uint8, of the weight's shape. book: of the weight's type.
    """
    name, shape = layer.weight.name, list(codes.shape)
    n = together(codes.size, len(book), book.itemsize)
    indices, table = (codes, book) if n == 1 else (packed(codes, len(book), n), rows_of(book, n))
    index = names.variable(f"{name}_index")
    index.dtype, index.shape = np.dtype(np.int32), list(indices.shape)
    stored = names.constant(f"{name}_codes", indices)
    editor.add(Node("Cast", names.take(f"{name}_cast"), {"to": _INT32}, [stored], [index]))
    value = names.variable(f"{name}_value")
    value.dtype, value.shape = book.dtype, [*indices.shape, *table.shape[1:]]
    inputs: list[Tensor] = [names.constant(f"{name}_codebook", table), index]
    editor.add(Node("Gather", names.take(f"{name}_look_up"), {"axis": 0}, inputs, [value]))
    if n > 1:
        flat, value = value, names.variable(f"{name}_values")
        value.dtype, value.shape = book.dtype, shape
        inputs = [flat, names.constant(f"{name}_shape", np.array(shape, np.int64))]
        editor.add(Node("Reshape", names.take(f"{name}_reshape"), {}, inputs, [value]))
    layer.node.inputs[1] = value


def packed(codes: Array, entries: int, n: int) -> Array:
    """One byte for each n codes in a row, uint8 [codes / n]; the first counts most."""
    places = entries ** np.arange(n - 1, -1, -1)
    return np.asarray((codes.reshape(-1, n).astype(np.int64) * places).sum(axis=1).astype(np.uint8))


def rows_of(book: Array, n: int) -> Array:
    """All rows of n entries, [entries^n, n], in the order in which `packed` counts."""
    grid = np.indices([len(book)] * n).reshape(n, -1).T
    return np.ascontiguousarray(book[grid])
