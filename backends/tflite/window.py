"""Windows of convolutions and pools: how ONNX's pads become SAME, VALID, or a PAD in front."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zc.backends.tflite.flat import FlatTensor
from zc.backends.tflite.layout import channels_last
from zc.backends.tflite.lowering import Lowering
from zc.ir.graph import Node, Tensor, attribute


@dataclass(frozen=True)
class Window:
    """A window that slides over the axes of space. All tuples have one entry for each of them."""

    sizes: tuple[int, ...]
    """Of the data; -1 where they are only known at run time."""
    outputs: tuple[int, ...]
    """How many places it takes."""
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    """Positions to add in front of the data, so that VALID gives the outputs."""
    ends: tuple[int, ...]
    """Positions to add behind; those that no window reaches are left out."""
    ceiled: bool = False
    """Does the last window reach beyond the pads that the node asks for?"""

    @property
    def reach(self) -> tuple[int, ...]:
        """Positions from the first to the last that a window covers."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def same(self) -> bool:
        """Does TensorFlow's SAME add the same positions?"""
        return all(
            self._same(*one)
            for one in zip(self.sizes, self.outputs, self.reach, self.strides, self.begins, self.ends, strict=True)
        )

    @staticmethod
    def _same(size: int, output: int, reach: int, stride: int, begin: int, end: int) -> bool:
        if size < 0:
            return stride == 1 and (begin, end) == ((reach - 1) // 2, reach - 1 - (reach - 1) // 2)
        total = max((output - 1) * stride + reach - size, 0)
        return output == -(-size // stride) and (begin, end) == (total // 2, total - total // 2)

    @property
    def padded(self) -> bool:
        """Are there positions to add?"""
        return any(self.begins) or any(self.ends)


def window_of(lowering: Lowering, node: Node, kernel: Sequence[int]) -> Window:
    """The window of a Conv or a pool on its first input."""
    space = lowering.shape(node.inputs[0])[2:]
    outputs = lowering.shape(node.outputs[0])[2:]
    count = len(space)
    strides = tuple(attribute(node, "strides", [1] * count))
    dilations = tuple(attribute(node, "dilations", [1] * count))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    mode = attribute(node, "auto_pad", "NOTSET")
    asked = list(attribute(node, "pads", [0] * (2 * count))) if mode in {"NOTSET", ""} else [0] * (2 * count)
    if any(p < 0 for p in asked):
        raise lowering.fail("negative pads", "slice the data in front of it instead")
    begins, ends, ceiled = [], [], False
    for i in range(count):
        size, output = space[i], outputs[i]
        begin, end = asked[i], asked[count + i]
        if size < 0 and attribute(node, "ceil_mode", 0):
            raise lowering.open_size("ceil_mode on data of open size")
        if mode in {"SAME_UPPER", "SAME_LOWER"}:
            if size < 0 and strides[i] != 1:
                raise lowering.open_size(f"auto_pad={mode} on data of open size")
            total = reach[i] - 1 if size < 0 else max((-(-size // strides[i]) - 1) * strides[i] + reach[i] - size, 0)
            begin = total // 2 if mode == "SAME_UPPER" else total - total // 2
            end = total - begin
        if size >= 0:
            needed = (output - 1) * strides[i] + reach[i] - size - begin
            ceiled |= needed > end
            end = max(needed, 0)
        begins.append(begin)
        ends.append(end)
    return Window(space, outputs, tuple(kernel), strides, dilations, tuple(begins), tuple(ends), ceiled)


def image(lowering: Lowering, tensor: Tensor) -> FlatTensor:
    """A value as [N, H, W, C]; one axis of space gets a second of size one."""
    rank = lowering.rank(tensor)
    if rank not in {3, 4}:
        raise lowering.fail(f"data of {rank - 2} axes of space; LiteRT has kernels for one and two")
    data = lowering.read(tensor, channels_last(rank))
    return data if rank == 4 else lowering.reshape(data, (data.shape[0], 1, *data.shape[1:]))


def put_image(lowering: Lowering, tensor: Tensor, made: FlatTensor) -> None:
    """Bind what was computed as [N, H, W, C]."""
    rank = lowering.rank(tensor)
    if rank == 3:
        made = lowering.reshape(made, (made.shape[0], *made.shape[2:]))
    lowering.bind(tensor, made, channels_last(rank))


def two(values: Sequence[int], fill: int = 1) -> tuple[int, int]:
    """Height and width; height is `fill` where there is one axis of space."""
    return (fill, values[0]) if len(values) == 1 else (values[0], values[1])


def padded(lowering: Lowering, data: FlatTensor, window: Window, fill: float = 0.0) -> tuple[FlatTensor, str]:
    """The data with the positions that TensorFlow's paddings cannot express, and the padding to ask for."""
    if not window.padded:
        return data, "VALID"
    if window.same:
        return data, "SAME"
    return pad_space(lowering, data, window.begins, window.ends, fill), "VALID"


def pad_space(
    lowering: Lowering, data: FlatTensor, begins: Sequence[int], ends: Sequence[int], fill: float = 0.0
) -> FlatTensor:
    """Add positions around the axes of space of [N, ..., C]. Codes are padded with what stands for zero.

    fill: zero, or -inf for the lowest number there is.
    """
    pairs = [(0, 0)] * len(data.shape)
    offset = len(data.shape) - 1 - len(begins)
    for i, pair in enumerate(zip(begins, ends, strict=True)):
        pairs[offset + i] = pair
    shape = tuple(d if d < 0 else d + sum(pair) for d, pair in zip(data.shape, pairs, strict=True))
    out = lowering.like(data, shape)
    widths = lowering.array(np.array(pairs, np.int32), "pads")
    if fill == 0:
        lowering.op("PAD", [data, widths], [out])
        return out
    lowest = np.iinfo(data.dtype).min if data.dtype.kind == "i" else np.finfo(np.float32).min
    value = lowering.array(np.array([lowest], data.dtype), "lowest", data.quant)
    lowering.op("PADV2", [data, widths, value], [out])
    return out
