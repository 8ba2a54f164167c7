"""How far one array is from another: the sums that signal to noise and cosine are made of, in one pass over both.

`error_sums_numpy` is the specification. Importing this module imports Numba; compiled code is cached beside it.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float32]

LANES = 32
"""Independent running sums: enough to fill the vector registers without reordering a sum."""


@njit(cache=True, nogil=True)
def error_sums(got, want):  # type: ignore[no-untyped-def]
    """Sums of want^2, got^2, got * want and (got - want)^2 over the elements that are finite in both, in float64.

    got, want: float32[n], contiguous. The same for the same arrays on every processor: the order of the sums is fixed.
    """
    sums = np.zeros((4, LANES))
    blocks = want.size // LANES
    for block in range(blocks):
        base = block * LANES
        for lane in range(LANES):
            w = np.float64(want[base + lane])
            g = np.float64(got[base + lane])
            d = g - w
            fine = d - d == 0.0  # neither NaN nor infinite, and so are both
            sums[0, lane] += w * w if fine else 0.0
            sums[1, lane] += g * g if fine else 0.0
            sums[2, lane] += g * w if fine else 0.0
            sums[3, lane] += d * d if fine else 0.0
    for i in range(blocks * LANES, want.size):
        w, g = np.float64(want[i]), np.float64(got[i])
        d = g - w
        if d - d == 0.0:
            sums[0, 0] += w * w
            sums[1, 0] += g * g
            sums[2, 0] += g * w
            sums[3, 0] += d * d
    return sums[0].sum(), sums[1].sum(), sums[2].sum(), sums[3].sum()


def error_sums_numpy(got: Floats, want: Floats) -> tuple[float, float, float, float]:
    """The specification of `error_sums`."""
    fine = np.isfinite(got) & np.isfinite(want)
    g, w = got[fine].astype(np.float64), want[fine].astype(np.float64)
    return float((w * w).sum()), float((g * g).sum()), float((g * w).sum()), float(((g - w) ** 2).sum())
