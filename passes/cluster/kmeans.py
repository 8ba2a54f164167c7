"""k-means of numbers on a line: sorted once, so that a round costs the codebook and not the numbers."""

import numpy as np

from zc.ir.graph import Array

ROUNDS = 100


def cluster(values: Array, counts: Array, size: int, *, zero: bool = False) -> Array:
    """A codebook of at most `size` numbers, ascending float64, of little squared error.

    values: float [n]. counts: what an error of each counts, float [n], not negative. zero: must 0 be among them?
    The better of two beginnings: quantiles of the cube root of the density, near which the optimum lies (Panter and
    Dite, 1951), and even steps, which do not forget outliers. Then Lloyd's rounds (1982).
    """
    order = np.argsort(values, kind="stable")
    at, weight = values[order].astype(np.float64), counts[order].astype(np.float64) + 1e-12 * counts.max(initial=1.0)
    distinct = np.unique(at)
    if len(distinct) <= size:
        return np.unique(np.append(distinct, 0.0)) if zero and len(distinct) < size else distinct
    starts = _quantiles(at, weight, size), np.linspace(at[0], at[-1], size)
    books = [_lloyd(at, weight, start, zero) for start in starts]
    return min(books, key=lambda book: float((weight * np.square(at - book[nearest(at, book)])).sum()))


def _lloyd(at: Array, weight: Array, book: Array, zero: bool) -> Array:
    """Move each number to the mean of those that it stands for, until none moves. at: ascending."""
    mass, moment = (np.concatenate([[0.0], np.cumsum(x)]) for x in (weight, weight * at))
    for _ in range(ROUNDS):
        if zero:
            book[np.abs(book).argmin()] = 0.0
        ends = np.searchsorted(at, (book[1:] + book[:-1]) / 2)
        edges = np.concatenate([[0], ends, [len(at)]])
        own = np.diff(mass[edges])
        moved = np.where(own > 0, np.diff(moment[edges]) / np.maximum(own, 1e-300), book)
        if np.array_equal(moved, book):
            break
        book = np.sort(moved)
    if zero:
        book[np.abs(book).argmin()] = 0.0
    return np.unique(book)


def _quantiles(at: Array, weight: Array, size: int) -> Array:
    """Points of equal mass of the cube root of the density, over a histogram."""
    bins = min(max(16 * size, 256), 65536)
    mass, edges = np.histogram(at, bins=bins, weights=weight)
    total = np.concatenate([[0.0], np.cumsum(np.cbrt(mass))])
    wanted = (np.arange(size) + 0.5) / size * total[-1]
    return np.sort(np.interp(wanted, total, edges))


def nearest(values: Array, book: Array) -> Array:
    """The index of the entry nearest to each value, int64; of two as near the lower."""
    return np.searchsorted((book[1:] + book[:-1]) / 2, values, side="left")


def entropy_bits(codes: Array) -> float:
    """Bits that a code takes on average when it is packed as well as can be (Shannon, 1948)."""
    found = np.bincount(codes.ravel()) / max(codes.size, 1)
    found = found[found > 0]
    return float(-(found * np.log2(found)).sum())
