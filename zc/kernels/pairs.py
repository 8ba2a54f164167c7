"""Operators of two arguments by table: every pair of codes has its result."""

from numba import njit

from zc.kernels.elementwise import part, place
from zc.kernels.emit import byte_at, set_byte


@njit(nogil=True)
def look_up_pairs(  # type: ignore[no-untyped-def]
    thread, threads, scratch, x, x0, x1, x2, z, z0, z1, z2, y, y0, y1, y2, n0, n1, n2, length, table
):
    """Y = table[z, x] (`rules.look_up_pairs`). table: address of uint8[classes of z, 256]."""
    first, last, start, stop = part(n0 * n1 * n2, length, thread, threads)
    for row in range(first, last):
        source = x + place(row, n1, n2, x0, x1, x2)
        other = z + place(row, n1, n2, z0, z1, z2)
        target = y + place(row, n1, n2, y0, y1, y2)
        for i in range(start, stop):
            set_byte(target + i, byte_at(table + 256 * byte_at(other + i) + byte_at(source + i)))
