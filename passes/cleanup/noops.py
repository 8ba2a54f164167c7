"""Rules that drop one node which changes nothing."""

from collections.abc import Callable

import numpy as np

from zc.ir.graph import Array, Node, Tensor
from zc.ir.spec import Dim
from zc.passes.cleanup.operands import given, plain, rank_of, same_shape, shape_of
from zc.passes.cleanup.rules import Match, Rule, Site

_FAR = 10**9
"""An end of a Slice from here on means: to the end (2**31 - 1, 2**63 - 1; tf2onnx writes a milliard)."""


def _same(node: Node, site: Site) -> Tensor | None:
    return node.inputs[0] if len(node.inputs) == 1 and len(node.outputs) == 1 else None


def _inactive_dropout(node: Node, site: Site) -> Tensor | None:
    """Dropout as inference sees it: without a mask that is read, and not told to train."""
    if len(node.outputs) > 1 and (node.outputs[1].outputs or site.editor.is_output(node.outputs[1])):
        return None
    training = given(node, 2)
    if training is not None:
        mode = site.fixed(training, 1)
        if mode is None or mode.any():
            return None
    return node.inputs[0]


def _same_type(node: Node, site: Site) -> Tensor | None:
    source, result = node.inputs[0], node.outputs[0]
    return source if source.dtype is not None and result.dtype is not None and source.dtype == result.dtype else None


def _same_form(node: Node, site: Site) -> Tensor | None:
    """A Reshape or Flatten to the shape that the value has: one dimension may be unknown, the count settles it."""
    before, after = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    if before is None or after is None or len(before) != len(after):
        return None
    differing = [(a, b) for a, b in zip(before, after, strict=True) if a is None or a != b]
    if len(differing) > 1 or any(isinstance(a, int) and isinstance(b, int) for a, b in differing):
        return None
    if differing and any(d == 0 or not isinstance(d, int) for d in _others(before, after)):
        return None
    return node.inputs[0]


def _others(before: list[Dim], after: list[Dim]) -> list[Dim]:
    return [a for a, b in zip(before, after, strict=True) if a is not None and a == b]


def _straight(node: Node, site: Site) -> Tensor | None:
    perm = plain(node, "perm")
    return node.inputs[0] if perm is not None and list(perm) == list(range(len(perm))) else None


def _no_pads(node: Node, site: Site) -> Tensor | None:
    pads = site.ints(node, "pads", 1)
    return node.inputs[0] if pads and not any(pads) else None


def _whole(node: Node, site: Site) -> Tensor | None:
    starts, ends = site.ints(node, "starts", 1), site.ints(node, "ends", 2)
    axes, steps = site.ints(node, "axes", 3), site.ints(node, "steps", 4)
    shape = shape_of(node.inputs[0])
    if starts is None or ends is None or axes is None or steps is None or any(starts) or any(s != 1 for s in steps):
        return None
    for end, axis in zip(ends, axes or range(len(ends)), strict=True):
        size = shape[axis] if shape is not None else None
        if end < (size if isinstance(size, int) else _FAR):
            return None
    return node.inputs[0]


def _no_growth(node: Node, site: Site) -> Tensor | None:
    source = node.inputs[0]
    target = site.ints(node, "shape", 1)
    rank = rank_of(source)
    if target is not None and rank is not None and len(target) <= rank and all(d == 1 for d in target):
        return source
    return source if same_shape(source, node.outputs[0]) else None


def _no_axes(node: Node, site: Site) -> Tensor | None:
    axes = site.ints(node, "axes", 1)
    written = "axes" in node.attrs or given(node, 1) is not None
    return node.inputs[0] if written and axes == () else None


def _no_resize(node: Node, site: Site) -> Tensor | None:
    """A Resize of every axis by one; cubic filters and crops are left alone."""
    if plain(node, "mode", "nearest") not in ("nearest", "linear"):
        return None
    if plain(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return None
    if node.op == "Upsample" or len(node.inputs) == 2:
        scales = np.array(plain(node, "scales")) if "scales" in node.attrs else site.fixed(given(node, 1), 64)
    else:
        scales = site.fixed(given(node, 2), 64)
        if scales is not None and scales.size == 0:
            scales = None
        if scales is None and given(node, 3) is not None:
            shapes = shape_of(node.inputs[0]), shape_of(node.outputs[0])
            known = shapes[0] is not None and all(isinstance(d, int) for d in shapes[0])
            return node.inputs[0] if known and shapes[0] == shapes[1] else None
    return node.inputs[0] if scales is not None and scales.size and (scales == 1).all() else None


def _unbounded(node: Node, site: Site) -> Tensor | None:
    bounds = {"min", "max"} & set(node.attrs) or [i for i in (1, 2) if given(node, i) is not None]
    return None if bounds else node.inputs[0]


def _not_negative_already(node: Node, site: Site) -> Tensor | None:
    before = site.producer(node.inputs[0], "Relu")
    return node.inputs[0] if before is not None else None


def _taken(node: Node, site: Site) -> Tensor | None:
    """The side that a Where always takes."""
    test = site.fixed(node.inputs[0], 1 << 16)
    if test is None or test.size == 0 or (test.any() and not test.all()):
        return None
    side = node.inputs[1] if test.all() else node.inputs[2]
    return side if same_shape(side, node.outputs[0]) else None


def _one_part(node: Node, site: Site) -> Tensor | None:
    return node.inputs[0] if len(node.outputs) == 1 else None


_NOOPS: list[tuple[str, tuple[str, ...], Callable[[Node, Site], Tensor | None]]] = [
    ("identity", ("Identity",), _same),
    ("single input", ("Concat", "Sum", "Max", "Min", "Mean"), _same),
    ("single output", ("Split",), _one_part),
    ("dropout", ("Dropout",), _inactive_dropout),
    ("cast to the same type", ("Cast",), _same_type),
    ("reshape to the same shape", ("Reshape", "Flatten"), _same_form),
    ("transpose in place", ("Transpose",), _straight),
    ("pad by nothing", ("Pad",), _no_pads),
    ("slice of everything", ("Slice",), _whole),
    ("expand by nothing", ("Expand",), _no_growth),
    ("squeeze of nothing", ("Squeeze", "Unsqueeze"), _no_axes),
    ("resize by one", ("Resize", "Upsample"), _no_resize),
    ("clip without bounds", ("Clip",), _unbounded),
    ("relu of relu", ("Relu",), _not_negative_already),
    ("where that is decided", ("Where",), _taken),
]


def _dropping(name: str, ops: tuple[str, ...], test: Callable[[Node, Site], Tensor | None]) -> Rule:
    def find(node: Node, site: Site) -> Match | None:
        return (node,) if test(node, site) is not None else None

    def check(match: Match, site: Site) -> str | None:
        kept = test(match[0], site)
        assert kept is not None
        return site.can_forward(match[0].outputs[0], kept)

    def apply(match: Match, site: Site) -> None:
        kept = test(match[0], site)
        assert kept is not None
        site.forward(match[0], kept)

    return Rule(name, ops, find, check, apply)


_NEUTRAL: dict[str, tuple[float, tuple[int, ...]]] = {
    "Mul": (1, (0, 1)),
    "Div": (1, (1,)),
    "Add": (0, (0, 1)),
    "Sub": (0, (1,)),
    "Pow": (1, (1,)),
    "And": (1, (0, 1)),
    "Or": (0, (0, 1)),
}
"""Operator -> its neutral element, and the operands where that is neutral."""


def _neutral_side(node: Node, site: Site) -> tuple[int, Array] | None:
    element, sides = _NEUTRAL[node.op]
    for side in sides:
        array = site.fixed(node.inputs[side])
        if array is not None and array.size and array.flat[0] == element and (array == element).all():
            return side, array
    return None


def _find_neutral(node: Node, site: Site) -> Match | None:
    return (node,) if len(node.inputs) == 2 and _neutral_side(node, site) is not None else None


def _check_neutral(match: Match, site: Site) -> str | None:
    (node,) = match
    found = _neutral_side(node, site)
    assert found is not None
    side, array = found
    value = node.inputs[1 - side]
    if not _fits_inside(array.shape, shape_of(value)):
        return "the constant may spread the value over a bigger shape"
    if value.dtype is not None and value.dtype != array.dtype:
        return "the constant has another type than the value"  # Pow
    return site.can_forward(node.outputs[0], value)


def _fits_inside(constant: tuple[int, ...], shape: list[Dim] | None) -> bool:
    if shape is None:
        return constant == ()
    if len(constant) > len(shape):
        return False
    return all(c in (1, d) for c, d in zip(reversed(constant), reversed(shape), strict=False))


def _drop_neutral(match: Match, site: Site) -> None:
    found = _neutral_side(match[0], site)
    assert found is not None
    site.forward(match[0], match[0].inputs[1 - found[0]])


RULES: list[Rule] = [_dropping(*one) for one in _NOOPS]
RULES.append(Rule("neutral operand", tuple(_NEUTRAL), _find_neutral, _check_neutral, _drop_neutral))
