"""Rules for operators that only move data: two in a row become one."""

import numpy as np

from zc.ir.graph import Node, Tensor
from zc.ir.spec import Dim
from zc.passes.cleanup.operands import given, normal_axes, plain, rank_of, shape_of
from zc.passes.cleanup.rules import Match, Rule, Site, after, always

_FORMS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""Operators that keep the order of the elements."""


# ---- Transpose after Transpose: one with the composed permutation


def _check_perms(match: Match, site: Site) -> str | None:
    if any(plain(n, "perm") is None for n in match) and rank_of(match[1].inputs[0]) is None:
        return "the rank is unknown"
    return None


def _compose(match: Match, site: Site) -> None:
    outer, inner = match
    rank = rank_of(inner.inputs[0]) or len(plain(outer, "perm") or plain(inner, "perm"))
    first, second = (list(plain(n, "perm") or reversed(range(rank))) for n in (inner, outer))
    outer.inputs[0] = inner.inputs[0]
    outer.attrs["perm"] = [first[i] for i in second]


# ---- Reshape after anything that keeps the order of the elements: the Reshape alone


def _check_reshape(match: Match, site: Site) -> str | None:
    outer, inner = match
    target = site.ints(outer, "shape", 1)
    if target is None:
        return "its shape is computed at run time"
    return None if _mended(outer, inner, target) is not None else "a 0 in its shape copies a dimension made in between"


def _mended(outer: Node, inner: Node, target: tuple[int, ...]) -> list[int] | None:
    """The target as it must read when the Reshape takes what the inner node takes."""
    if 0 not in target or plain(outer, "allowzero", 0):
        return list(target)
    source, middle = shape_of(inner.inputs[0]), shape_of(inner.outputs[0])
    if source is not None and middle is not None:
        zeros = [i for i, d in enumerate(target) if d == 0]
        if all(i < len(source) and source[i] is not None and source[i] == middle[i] for i in zeros):
            return list(target)
    return target_of(outer.outputs[0])


def target_of(tensor: Tensor) -> list[int] | None:
    """The target of a Reshape that makes this shape; None when two dimensions are unknown."""
    shape: list[Dim] | None = shape_of(tensor)
    if shape is None or any(isinstance(d, int) and d <= 0 for d in shape):
        return None
    numbers = [d if isinstance(d, int) else -1 for d in shape]
    return numbers if numbers.count(-1) <= 1 else None


def _skip_form(match: Match, site: Site) -> None:
    outer, inner = match
    target = site.ints(outer, "shape", 1)
    assert target is not None
    mended = _mended(outer, inner, target)
    assert mended is not None
    if mended != list(target):
        site.set_ints(outer, "shape", 1, mended, since=5)
    outer.inputs[0] = inner.inputs[0]


# ---- Flatten, Squeeze or Unsqueeze after one of them or a Reshape: one Reshape


def _find_forms(node: Node, site: Site) -> Match | None:
    match = after(*_FORMS)(node, site)
    return match if match is not None and _pair(match, site) is None else None


def _check_form(match: Match, site: Site) -> str | None:
    return None if target_of(match[0].outputs[0]) is not None else "more than one dimension of its output is unknown"


def _to_reshape(match: Match, site: Site) -> None:
    outer, inner = match
    target = target_of(outer.outputs[0])
    assert target is not None
    constant = site.names.constant(f"{outer.outputs[0].name}_shape", np.array(target, np.int64))
    site.replace(outer, "Reshape", [inner.inputs[0], constant], {})


# ---- Squeeze and Unsqueeze pairs, whatever the shape


def _pair(match: Match, site: Site) -> list[int] | None:
    """The axes of the one node that stands for two; [] when they cancel; None when it is no such pair."""
    outer, inner = match
    if outer.op not in ("Squeeze", "Unsqueeze") or inner.op not in ("Squeeze", "Unsqueeze"):
        return None
    ranks = rank_of(outer.outputs[0]), rank_of(inner.outputs[0]), rank_of(inner.inputs[0])
    raw = site.ints(outer, "axes", 1), site.ints(inner, "axes", 1)
    if None in ranks or not raw[0] or not raw[1]:
        return None
    result, middle, source = (r or 0 for r in ranks)
    last = normal_axes(raw[0], result if outer.op == "Unsqueeze" else middle)
    first = normal_axes(raw[1], middle if inner.op == "Unsqueeze" else source)
    if outer.op != inner.op:
        return [] if sorted(last) == sorted(first) else None
    if outer.op == "Unsqueeze":
        # places of the result that the outer one leaves, in order, are the places of the middle
        left = [i for i in range(result) if i not in last]
        return sorted([*last, *(left[i] for i in first)])
    left = [i for i in range(source) if i not in first]
    return sorted([*first, *(left[i] for i in last)])


def _find_pair(node: Node, site: Site) -> Match | None:
    match = after("Squeeze", "Unsqueeze", alone=False)(node, site)
    return match if match is not None and _pair(match, site) is not None else None


def _check_pair(match: Match, site: Site) -> str | None:
    outer, inner = match
    return site.can_forward(outer.outputs[0], inner.inputs[0]) if _pair(match, site) == [] else None


def _merge_pair(match: Match, site: Site) -> None:
    outer, inner = match
    axes = _pair(match, site)
    if not axes:
        site.forward(outer, inner.inputs[0])
        return
    site.set_ints(outer, "axes", 1, axes, since=13)
    outer.inputs[0] = inner.inputs[0]


# ---- Slice after Slice of other axes: one Slice


def _bounds(node: Node, site: Site) -> tuple[list[int], list[int], list[int], list[int]] | None:
    """Starts, ends, axes and steps, one each for every axis cut; None unless all are fixed."""
    starts, ends = site.ints(node, "starts", 1), site.ints(node, "ends", 2)
    axes, steps = site.ints(node, "axes", 3), site.ints(node, "steps", 4)
    if not starts or not ends or axes is None or steps is None:
        return None
    axes = axes or tuple(range(len(starts)))
    rank = rank_of(node.inputs[0])
    if any(a < 0 for a in axes):
        if rank is None:
            return None
        axes = normal_axes(axes, rank)
    return list(starts), list(ends), list(axes), list(steps or [1] * len(starts))


def _check_slices(match: Match, site: Site) -> str | None:
    outer, inner = _bounds(match[0], site), _bounds(match[1], site)
    if outer is None or inner is None:
        return "its bounds are computed at run time"
    return "both cut the same axis" if set(outer[2]) & set(inner[2]) else None


def _merge_slices(match: Match, site: Site) -> None:
    outer, inner = match
    last, first = _bounds(outer, site), _bounds(inner, site)
    assert last is not None
    assert first is not None
    outer.inputs[0] = inner.inputs[0]
    stepped = any(s != 1 for s in (*first[3], *last[3]))
    names = ("starts", "ends", "axes", "steps") if stepped or site.opset >= 10 else ("starts", "ends", "axes")
    for i, name in enumerate(names):
        site.set_ints(outer, name, i + 1, [*first[i], *last[i]], since=10)


# ---- Slice that takes whole parts of a Concat: the parts


def _parts(match: Match, site: Site) -> list[Tensor] | None:
    """The inputs of the Concat that the Slice takes, all of them whole."""
    cut, concat = match
    bounds, rank = _bounds(cut, site), rank_of(concat.outputs[0])
    axis = plain(concat, "axis")
    if bounds is None or rank is None or axis is None or len(bounds[0]) != 1:
        return None
    (start,), (end,), (cut_axis,), (step,) = bounds
    axis = axis + rank if axis < 0 else axis
    shapes = [shape_of(t) for t in concat.inputs]
    sizes = [None if s is None or not isinstance(s[axis], int) else int(str(s[axis])) for s in shapes]
    if cut_axis != axis or step != 1 or None in sizes:
        return None
    edges = np.cumsum([0, *(s or 0 for s in sizes)]).tolist()
    total = edges[-1]
    start, end = (max(0, min(total, b + total if b < 0 else b)) for b in (start, end))
    if start not in edges or end not in edges or start >= end:
        return None
    return list(concat.inputs[edges.index(start) : edges.index(end)])


def _find_parts(node: Node, site: Site) -> Match | None:
    match = after("Concat", alone=False)(node, site)
    parts = _parts(match, site) if match is not None else None
    return match if match is not None and parts is not None and len(parts) == 1 else None


def _check_parts(match: Match, site: Site) -> str | None:
    parts = _parts(match, site)
    assert parts is not None
    return site.can_forward(match[0].outputs[0], parts[0])


def _take_parts(match: Match, site: Site) -> None:
    parts = _parts(match, site)
    assert parts is not None
    site.forward(match[0], parts[0])


# ---- Concat of a Concat along the same axis: one Concat


def _find_nested(node: Node, site: Site) -> Match | None:
    inner = [site.producer(t, "Concat") for t in node.inputs]
    found = {id(p): p for p, t in zip(inner, node.inputs, strict=True) if p is not None and site.alone(t, node)}
    axis, rank = plain(node, "axis"), rank_of(node.outputs[0])
    nested = [p for p in found.values() if _same_axis(plain(p, "axis"), axis, rank)]
    return (node, *nested) if nested else None


def _same_axis(a: int | None, b: int | None, rank: int | None) -> bool:
    if a is None or b is None:
        return False
    return a == b or (rank is not None and a % rank == b % rank)


def _flatten_concat(match: Match, site: Site) -> None:
    outer, nested = match[0], {id(n) for n in match[1:]}
    flat: list[Tensor] = []
    for tensor in list(outer.inputs):
        producer = tensor.inputs[0] if tensor.inputs else None
        flat.extend(list(producer.inputs) if producer is not None and id(producer) in nested else [tensor])
    outer.inputs[:] = flat


# ---- Unsqueeze of a Gather of one element: Gather with a list of one


def _find_picked(node: Node, site: Site) -> Match | None:
    match = after("Gather")(node, site)
    if match is None:
        return None
    index = site.fixed(match[1].inputs[1], 1)
    axes, rank = site.ints(node, "axes", 1), rank_of(node.outputs[0])
    if index is None or index.ndim != 0 or not axes or len(axes) != 1 or rank is None:
        return None
    return match if normal_axes(axes, rank)[0] == plain(match[1], "axis", 0) % rank else None


def _pick_list(match: Match, site: Site) -> None:
    outer, gather = match
    index = site.fixed(gather.inputs[1])
    assert index is not None
    gather.inputs[1] = site.names.constant(f"{gather.outputs[0].name}_index", index.reshape(1))
    site.take_over(gather, outer)


# ---- Pad after Pad with the same constant: one Pad


def _check_pads(match: Match, site: Site) -> str | None:
    for node in match:
        if (
            plain(node, "mode", "constant") != "constant"
            or site.ints(node, "pads", 1) is None
            or given(node, 3) is not None
        ):
            return "its pads are not constant, or not in numbers for every axis"
        if any(p < 0 for p in site.ints(node, "pads", 1) or ()):
            return "it crops"
    return None if _fill(match[0], site) == _fill(match[1], site) else "the two pad with different values"


def _fill(node: Node, site: Site) -> float | None:
    if "value" in node.attrs or given(node, 2) is None:
        return float(plain(node, "value", 0.0))
    value = site.fixed(node.inputs[2], 1)
    return None if value is None or value.dtype.kind not in "fiu" else float(value.reshape(-1)[0])


def _merge_pads(match: Match, site: Site) -> None:
    outer, inner = match
    both = np.add(site.ints(outer, "pads", 1) or (), site.ints(inner, "pads", 1) or ())
    site.set_ints(outer, "pads", 1, both.tolist(), since=11)
    outer.inputs[0] = inner.inputs[0]


RULES: list[Rule] = [
    Rule("transpose of transpose", ("Transpose",), after("Transpose", alone=False), _check_perms, _compose),
    Rule("reshape of reshape", ("Reshape",), after(*_FORMS, alone=False), _check_reshape, _skip_form),
    Rule("squeeze and unsqueeze", ("Squeeze", "Unsqueeze"), _find_pair, _check_pair, _merge_pair),
    Rule("flatten of reshape", ("Flatten", "Squeeze", "Unsqueeze"), _find_forms, _check_form, _to_reshape),
    Rule("slice of slice", ("Slice",), after("Slice"), _check_slices, _merge_slices),
    Rule("slice of concat", ("Slice",), _find_parts, _check_parts, _take_parts),
    Rule("concat of concat", ("Concat",), _find_nested, always, _flatten_concat),
    Rule("unsqueeze of gather", ("Unsqueeze",), _find_picked, always, _pick_list),
    Rule("pad of pad", ("Pad",), after("Pad"), _check_pads, _merge_pads),
]
