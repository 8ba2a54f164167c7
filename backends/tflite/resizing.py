"""Resize and Upsample: LiteRT's two kernels where they pick the same positions, else GATHERs."""

import numpy as np

from zc.backends.tflite.elementwise import Rule
from zc.backends.tflite.indexing import gathered
from zc.backends.tflite.layout import Layout, channels_last, permuted
from zc.backends.tflite.lowering import Lowering
from zc.ir.graph import Array, Node, attribute


def resize(lowering: Lowering, node: Node) -> None:
    """Resize and Upsample along the axes of space: RESIZE_BILINEAR, RESIZE_NEAREST_NEIGHBOR, or GATHERs."""
    data, out = node.inputs[0], node.outputs[0]
    old, new = lowering.shape(data), lowering.shape(out)
    mode, how = attribute(node, "mode", "nearest"), attribute(node, "coordinate_transformation_mode", "half_pixel")
    if node.op == "Upsample":
        how = "asymmetric"
    layout = lowering.layout(data)
    if mode == "nearest":
        if _nearest(lowering, node, how):
            return
        _nearest_by_index(lowering, node, layout, how)
        return
    if any(b < 0 <= a for a, b in zip(old, new, strict=True)):
        raise lowering.open_size("to sizes that are computed at run time")
    moved = [i for i in range(len(old)) if old[i] != new[i]]
    if any(old[i] >= 0 and abs(_scale(lowering, node, i) * old[i] - new[i]) > 1e-3 for i in moved):
        raise lowering.fail(
            "its scale does not give a whole number of positions", "state the size instead of the scale"
        )
    if mode not in {"linear", "bilinear"} or attribute(node, "antialias", 0) or attribute(node, "exclude_outside", 0):
        raise lowering.fail(f"mode {mode} with what it asks for; RESIZE_BILINEAR is plain linear interpolation")
    if (
        len(old) != 4
        or any(i < 2 for i in moved)
        or how not in {"half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"}
    ):
        raise lowering.fail(f"linear interpolation ({how}) of data that is no image")
    if how == "pytorch_half_pixel" and 1 in new[2:]:
        raise lowering.fail("pytorch_half_pixel to one position")
    source = lowering.read(data, channels_last(4))
    made = lowering.out(out, channels_last(4), source.quant)
    if -1 in new[2:]:
        raise lowering.open_size("to an open size")
    size = lowering.integers(new[2:])
    lowering.op(
        "RESIZE_BILINEAR",
        [source, size],
        [made],
        alignCorners=how == "align_corners",
        halfPixelCenters="half_pixel" in how,
    )


def _nearest(lowering: Lowering, node: Node, how: str) -> bool:
    """Emit RESIZE_NEAREST_NEIGHBOR where it picks the same positions."""
    data, out = node.inputs[0], node.outputs[0]
    old, new = lowering.shape(data), lowering.shape(out)
    if len(old) != 4 or old[:2] != new[:2] or -1 in old[2:] + new[2:]:
        return False
    for half in (False, True):
        spots = [_kernel_spots(o, n, half) for o, n in zip(old[2:], new[2:], strict=True)]
        wanted = [positions(lowering, node, axis, how) for axis in (2, 3)]
        if all(np.array_equal(a, b) for a, b in zip(spots, wanted, strict=True)):
            source = lowering.read(data, channels_last(4))
            made = lowering.out(out, channels_last(4), source.quant)
            size = lowering.integers(new[2:])
            lowering.op("RESIZE_NEAREST_NEIGHBOR", [source, size], [made], halfPixelCenters=half)
            return True
    return False


def _kernel_spots(old: int, new: int, half: bool) -> Array:
    """The positions that RESIZE_NEAREST_NEIGHBOR picks."""
    offset = np.float32(0.5 if half else 0.0)
    scaled = (np.arange(new, dtype=np.float32) + offset) * (np.float32(old) / np.float32(new))
    return np.asarray(np.minimum(np.floor(scaled), old - 1), np.int64)


def positions(lowering: Lowering, node: Node, axis: int, how: str) -> Array:
    """The positions along one axis that ONNX's Resize (nearest) picks."""
    old, new = lowering.shape(node.inputs[0])[axis], lowering.shape(node.outputs[0])[axis]
    scale = _scale(lowering, node, axis)
    at = np.arange(new, dtype=np.float64)
    formulas = {
        "half_pixel": lambda: (at + 0.5) / scale - 0.5,
        "half_pixel_symmetric": lambda: old / 2 * (1 - new / (scale * old)) + (at + 0.5) / scale - 0.5,
        "pytorch_half_pixel": lambda: (at + 0.5) / scale - 0.5 if new > 1 else at * 0,
        "align_corners": lambda: at * (old - 1) / (new - 1) if new > 1 else at * 0,
        "asymmetric": lambda: at / scale,
    }
    if how not in formulas:
        raise lowering.fail(f"coordinate_transformation_mode is {how}")
    spots = np.asarray(formulas[how]())
    rounding = "floor" if node.op == "Upsample" else attribute(node, "nearest_mode", "round_prefer_floor")
    rounded = {
        "round_prefer_floor": lambda: np.ceil(spots - 0.5),
        "round_prefer_ceil": lambda: np.floor(spots + 0.5),
        "floor": lambda: np.floor(spots),
        "ceil": lambda: np.ceil(spots),
    }[rounding]()
    return np.asarray(np.clip(rounded, 0, old - 1), np.int64)


def _scale(lowering: Lowering, node: Node, axis: int) -> float:
    old, new = lowering.shape(node.inputs[0])[axis], lowering.shape(node.outputs[0])[axis]
    if "scales" in node.attrs:
        return float(attribute(node, "scales", [])[axis])
    position = 1 if node.op == "Upsample" or len(node.inputs) == 2 else 2
    if len(node.inputs) > position and node.inputs[position].name:
        scales = lowering.constant(node.inputs[position])
        if scales is None:
            raise lowering.fail("its scales are computed at run time", "make them an initializer")
        axes = attribute(node, "axes", list(range(lowering.rank(node.inputs[0]))))
        if scales is not None and scales.size:
            places = [a % lowering.rank(node.inputs[0]) for a in axes]
            return float(scales[places.index(axis)]) if axis in places else 1.0
    return new / old


def _nearest_by_index(lowering: Lowering, node: Node, layout: Layout, how: str) -> None:
    data, out = node.inputs[0], node.outputs[0]
    source = lowering.read(data, layout)
    old, new = permuted(lowering.shape(data), layout), permuted(lowering.shape(out), layout)
    for place, axis in enumerate(layout):
        if old[place] == new[place]:
            continue
        if -1 in (old[place], new[place]):
            raise lowering.open_size("an open size")
        source = gathered(lowering, source, positions(lowering, node, axis, how), place)
    lowering.bind(out, source, layout)


RULES: dict[str, Rule] = {"Resize": resize, "Upsample": resize}
