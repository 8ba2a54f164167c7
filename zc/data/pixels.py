"""Arithmetic of preprocessing on batches of images: layout, resize, crop, channel order, normalisation."""

from collections.abc import Collection
from types import ModuleType

import numpy as np

from zc.data.prep import Prep, Size
from zc.data.source import Array
from zc.errors import ZcError

TO_NCHW = (0, 3, 1, 2)
TO_NHWC = (0, 2, 3, 1)
MARGIN = 1.5
"""How much larger than its crop, at most, a picture is that was made for it (256 for 224)."""


def pillow() -> ModuleType:
    """`PIL.Image`; ZcError that names the extra when it is not installed."""
    try:
        from PIL import Image
    except ImportError:
        raise ZcError(
            "reading or resizing images needs pillow, which is not installed: pip install zc[images]"
        ) from None
    return Image


def resized(size: Size, resize: int | Size) -> Size:
    """Size after `resize`: exactly that, or the shorter side so long and the ratio kept (rounded as torchvision)."""
    if isinstance(resize, tuple):
        return resize
    height, width = size
    short, long = min(size), max(size)
    other = max(1, int(resize * long / short))
    return (resize, other) if height <= width else (other, resize)


def corner(size: Size, crop: Size, where: str) -> Size:
    """Top and left of the centre crop; ZcError when the image is smaller."""
    if crop[0] > size[0] or crop[1] > size[1]:
        raise ZcError(
            f"{where}: the image is {size[0]}x{size[1]}, smaller than the crop of {crop[0]}x{crop[1]}; "
            f"add resize={max(crop)} to --prep"
        )
    return (size[0] - crop[0]) // 2, (size[1] - crop[1]) // 2


def with_margins(sizes: Collection[Size], crop: Size) -> Size | None:
    """The centre that pictures of all these sizes have, at most `MARGIN` of the crop; None if it is no larger."""
    high, wide = (min(*sides, int(MARGIN * cut)) for sides, cut in zip(zip(*sizes, strict=True), crop, strict=True))
    return (high, wide) if high >= crop[0] and wide >= crop[1] and (high, wide) != crop else None


def reshape_images(images: Array, prep: Prep, where: str) -> Array:
    """Resize and crop: [n, h, w, c] of any real type -> [n, h', w', c] of the same type."""
    if prep.resize is not None:
        images = _resize(images, resized((images.shape[1], images.shape[2]), prep.resize))
    if prep.crop is not None:
        top, left = corner((images.shape[1], images.shape[2]), prep.crop, where)
        images = images[:, top : top + prep.crop[0], left : left + prep.crop[1]]
    return images


def _resize(images: Array, size: Size) -> Array:
    if images.shape[1:3] == size:
        return images
    image = pillow()
    # Pillow filters each channel by itself, so one channel at a time gives what it gives for RGB.
    planes = images if images.dtype == np.uint8 else images.astype(np.float32)
    out = np.empty((len(images), *size, images.shape[3]), dtype=planes.dtype)
    for n, c in np.ndindex(len(images), images.shape[3]):
        plane = image.fromarray(np.ascontiguousarray(planes[n, :, :, c]))
        out[n, :, :, c] = np.asarray(plane.resize(size[::-1], image.Resampling.BILINEAR))
    return out


def normalize(images: Array, prep: Prep, axis: int | None, where: str) -> Array:
    """Channel order and `(x / scale - mean) / std`; float32 when a number changes, else the type that came in.

    axis: the channels; None when unknown, which is fine for one mean and std.
    """
    if prep.by_channel:
        if axis is None:
            raise ZcError(
                f"{where}: cannot tell which axis holds the channels; add layout=nchw or layout=nhwc to --prep"
            )
        for name, values in (("mean", prep.mean), ("std", prep.std)):
            if len(values) not in {1, images.shape[axis]}:
                raise ZcError(f"{where}: prep has {len(values)} values of {name} for {images.shape[axis]} channels")
    if prep.color == "bgr":
        if axis is None or images.shape[axis] != 3:
            raise ZcError(f"{where}: color=bgr needs 3 channels, the data has shape {list(images.shape)}")
        images = np.flip(images, axis)
    if not prep.numeric:
        return images
    out = images.astype(np.float32)
    if prep.scale != 1.0:
        out /= np.float32(prep.scale)
    if any(prep.mean):
        out -= _along(prep.mean, axis, out.ndim)
    if set(prep.std) != {1.0}:
        out /= _along(prep.std, axis, out.ndim)
    return out


def _along(values: tuple[float, ...], axis: int | None, ndim: int) -> Array:
    """The values as float32, shaped to broadcast along `axis`."""
    shape = [1] * ndim
    if axis is not None and len(values) > 1:
        shape[axis] = len(values)
    return np.array(values, dtype=np.float32).reshape(shape)
