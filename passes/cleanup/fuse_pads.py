"""Rules that fold a constant Pad into the Conv or pool that follows it."""

import math

from zc.ir.graph import Node
from zc.passes.cleanup.operands import given, normal_axes, plain, rank_of, unused
from zc.passes.cleanup.rules import Match, Rule, Site, after


def _pads(pad: Node, site: Site) -> tuple[list[int], list[int]] | str:
    """How much a Pad adds before and after each axis, or why it cannot be told."""
    rank, pads = rank_of(pad.inputs[0]), site.ints(pad, "pads", 1)
    if pads is None or rank is None:
        return "its pads are computed at run time, or the rank is unknown"
    axes: tuple[int, ...] | None = tuple(range(rank))
    if given(pad, 3) is not None:
        axes = site.ints(pad, "axes", 3)
        if axes is None:
            return "its axes are computed at run time"
        axes = normal_axes(axes, rank)
    before, behind = [0] * rank, [0] * rank
    for i, axis in enumerate(axes or ()):
        before[axis], behind[axis] = pads[i], pads[i + len(axes or ())]
    return before, behind


def _fill(pad: Node, site: Site) -> float | None:
    """The value that a Pad writes; None when it is not fixed."""
    if "value" in pad.attrs or given(pad, 2) is None:
        return float(plain(pad, "value", 0.0))
    array = site.fixed(pad.inputs[2], 1)
    return None if array is None else float(array.reshape(-1)[0])


def _check(match: Match, site: Site) -> str | None:
    node, pad = match
    mode = plain(pad, "mode", "constant")
    if mode != "constant":
        return f"the Pad before it pads by '{mode}'"
    sizes, fill = _pads(pad, site), _fill(pad, site)
    if isinstance(sizes, str):
        return f"the Pad before it: {sizes}"
    before, behind = sizes
    if any(p < 0 for p in (*before, *behind)):
        return "the Pad before it crops"
    if any((*before[:2], *behind[:2])):
        return "the Pad before it pads the batch or the channels"
    if plain(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "its own padding is automatic"
    return _CHECKS[node.op](node, pad, fill, [*before[2:], *behind[2:]], site)


def _check_conv(node: Node, pad: Node, fill: float | None, sizes: list[int], site: Site) -> str | None:
    return None if fill == 0 else "the Pad before it writes a value other than zero"


def _check_average(node: Node, pad: Node, fill: float | None, sizes: list[int], site: Site) -> str | None:
    if fill != 0:
        return "the Pad before it writes a value other than zero"
    if plain(node, "ceil_mode", 0):
        return "it rounds its output size up: the last window would count other elements"
    if any(plain(node, "pads", [])) and not plain(node, "count_include_pad", 0):
        return "it leaves out its own padding when it averages, but not that of the Pad"
    return _too_wide(node, sizes)


def _check_max(node: Node, pad: Node, fill: float | None, sizes: list[int], site: Site) -> str | None:
    if len(node.outputs) > 1 and not (unused(node.outputs[1]) and not site.editor.is_output(node.outputs[1])):
        return "its indices are read"
    if plain(node, "ceil_mode", 0):
        return "it rounds its output size up: a window may lie in the padding"
    lowest = fill is not None and fill == -math.inf
    if not lowest and not (fill == 0 and site.producer(pad.inputs[0], "Relu") is not None):
        return "the Pad before it writes a value that could be the greatest of a window"
    return _too_wide(node, sizes)


def _too_wide(node: Node, sizes: list[int]) -> str | None:
    kernel = plain(node, "kernel_shape", [])
    total = [a + b for a, b in zip(sizes, plain(node, "pads", [0] * len(sizes)), strict=True)]
    if any(p >= k for p, k in zip(total, [*kernel, *kernel], strict=True)):
        return "its windows would lie in the padding alone"
    return None


_CHECKS = {"Conv": _check_conv, "AveragePool": _check_average, "MaxPool": _check_max}


def _apply(match: Match, site: Site) -> None:
    node, pad = match
    sizes = _pads(pad, site)
    assert not isinstance(sizes, str)
    added = [*sizes[0][2:], *sizes[1][2:]]
    node.attrs["pads"] = [a + b for a, b in zip(added, plain(node, "pads", [0] * len(added)), strict=True)]
    node.attrs.pop("auto_pad", None)
    if node.op == "AveragePool":
        node.attrs["count_include_pad"] = 1
    node.inputs[0] = pad.inputs[0]


RULES = [Rule("pad into the layer after", tuple(_CHECKS), after("Pad"), _check, _apply)]
