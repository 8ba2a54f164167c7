"""Vectors that nodes share by chance: equal biases, scales and zero points that were stored once.

Sharing them must not make unrelated layers lose the same channels. Each node gets a copy for the analysis; copies that
are still equal after the cut become one again. Matrices and kernels stay shared: who shares those does so on purpose.
"""

from zc.ir.edit import Names, replace_uses
from zc.ir.graph import Constant
from zc.ir.model import Model

Copies = list[list[Constant]]
"""Constants that were one; the first is the original."""


def unshare(model: Model) -> Copies:
    """Give every consumer of a shared vector a constant of its own; the arrays stay shared."""
    names: Names | None = None
    inputs = {id(t) for t in model.graph.inputs}
    copies: Copies = []
    for constant in model.constants():
        if len(constant.outputs) < 2 or id(constant) in inputs or not _is_vector(constant):
            continue
        names = names or Names(model.graph)
        family = [constant]
        for node in list({id(n): n for n in constant.outputs}.values())[1:]:
            own = Constant(names.take(constant.name), constant._values)
            for place, tensor in enumerate(node.inputs):
                if tensor is constant:
                    node.inputs[place] = own
            family.append(own)
        copies.append(family)
    return copies


def reshare(copies: Copies) -> None:
    """Make those of each family that are still equal one constant again."""
    for family in copies:
        kept: dict[tuple[tuple[int, ...], bytes], Constant] = {}
        for constant in family:
            holder = kept.setdefault((tuple(constant.shape), constant.values.tobytes()), constant)
            if holder is not constant:
                replace_uses(constant, holder)


def _is_vector(constant: Constant) -> bool:
    """One axis with more than one position; 64-bit integers are sizes and indices, which are stated one by one."""
    wide = [n for n in constant.shape if n > 1]
    return len(wide) == 1 and constant.dtype.kind not in "OUS" and str(constant.dtype) not in ("int64", "uint64")
