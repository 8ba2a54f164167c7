"""Augmentation of batches of images: each row anew, from a generator that is seeded by the step."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np

from zc.data.prep import Size
from zc.errors import ZcError
from zc.ir.graph import Array

Kind = Literal["zoom", "crop", "flip", "cutout", "mixup", "cutmix"]
KINDS: tuple[str, ...] = get_args(Kind)
Random = np.random.Generator
_PAD = 8
"""A crop moves an image by up to this part of its side."""
_LEAST_AREA = 0.25
"""The smallest part of an image that zoom shows."""
_STRETCH = 4 / 3
"""How far zoom stretches one side against the other at most."""
_CUT = 4
"""A hole has this part of the side."""
_BETA = 1.0
"""Of the beta distribution of shares in mixing: all are equally likely, as in both papers below."""
Mixed = tuple[Array, Array, Array]
"""Mixed images, the index of the other of each pair int64 [N], the own share float32 [N]."""


def crop(images: Array, random: Random) -> Array:
    """Moved by up to an eighth of the side; the border is mirrored. images: [N, C, H, W]."""
    _, _, high, wide = images.shape
    y, x = max(high // _PAD, 1), max(wide // _PAD, 1)
    if high <= y or wide <= x:
        return images
    padded = np.pad(images, ((0, 0), (0, 0), (y, y), (x, x)), mode="reflect")
    tops, lefts = random.integers(0, 2 * y + 1, len(images)), random.integers(0, 2 * x + 1, len(images))
    out = np.empty_like(images)
    for one, image, top, left in zip(out, padded, tops, lefts, strict=True):
        one[:] = image[:, top : top + high, left : left + wide]
    return out


def zoom(images: Array, random: Random, size: Size | None = None) -> Array:
    """A part of each, of a quarter of its area to all of it, linear between pixels: [N, C, *size], by default as large.

    Its sides have ratios of 3:4 to 4:3 to the image's. (Szegedy et al., Going Deeper with Convolutions, 2015.)
    """
    count, channels, high, wide = images.shape
    size = size or (high, wide)
    part: Array = np.sqrt(random.uniform(_LEAST_AREA, 1, count))
    stretch: Array = np.sqrt(_STRETCH) ** random.uniform(-1, 1, count)
    (up, down), (left, right) = (
        _between(side, np.minimum(own, 1), np.asarray(random.random(count)), length, images.dtype)
        for side, length, own in ((high, size[0], part * stretch), (wide, size[1], part / stretch))
    )
    out = np.empty((count, channels, *size), images.dtype)
    for one, image, y, dy, x, dx in zip(out, images, up, down, left, right, strict=True):
        rows = _blend(image.take(y, 1), image.take(y + 1, 1), dy[:, None])
        one[:] = _blend(rows.take(x, 2), rows.take(x + 1, 2), dx)
    return out


def _blend(low: Array, high: Array, part: Array) -> Array:
    """Between the two, which it overwrites: low where the part is 0."""
    high -= low
    high *= part
    low += high
    return low


def _between(side: int, part: Array, place: Array, length: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Where the pixels that show parts of an axis lie on it, [N, length]: behind which pixel, and how far."""
    start = place * side * (1 - part)
    each = part * (side / length)
    at = np.clip(start[:, None] + (np.arange(length) + 0.5) * each[:, None] - 0.5, 0, side - 1)
    behind = np.minimum(at.astype(np.int64), side - 2)
    return behind, np.asarray(at - behind, dtype)


def flip(images: Array, random: Random) -> Array:
    """Half of them mirrored, left to right."""
    chosen = random.random(len(images)) < 0.5
    return np.where(chosen[:, None, None, None], images[..., ::-1], images)


def cutout(images: Array, random: Random) -> Array:
    """A square of each replaced by the image's mean (DeVries and Taylor, Cutout, 2017)."""
    n, _, high, wide = images.shape
    y, x = (random.integers(0, side, (n, 1)) for side in (high, wide))
    inside_y = np.abs(np.arange(high)[None] - y) <= high // _CUT // 2
    inside_x = np.abs(np.arange(wide)[None] - x) <= wide // _CUT // 2
    hole = (inside_y[:, :, None] & inside_x[:, None, :])[:, None]
    return np.where(hole, images.mean((2, 3), keepdims=True), images).astype(images.dtype)


def mixup(images: Array, random: Random) -> Mixed:
    """The weighted sum of each and another of the batch (Zhang et al., mixup, 2018)."""
    share = random.beta(_BETA, _BETA, len(images)).astype(np.float32)
    other = random.permutation(len(images))
    mixed = share[:, None, None, None] * images + (1 - share[:, None, None, None]) * images[other]
    return mixed.astype(images.dtype), other, share


def cutmix(images: Array, random: Random) -> Mixed:
    """A rectangle of each replaced by that of another of the batch; the share counts pixels.

    It has the ratio of the image and stops at the border. (Yun et al., CutMix, 2019.)
    """
    count, _, high, wide = images.shape
    part: Array = np.sqrt(1 - random.beta(_BETA, _BETA, count))
    other = random.permutation(count)
    y, x = (_span(side, part, random) for side in (high, wide))
    inside = y[:, :, None] & x[:, None, :]
    mixed = np.where(inside[:, None], images[other], images)
    return mixed, other, (1 - inside.mean((1, 2))).astype(np.float32)


def _span(side: int, part: Array, random: Random) -> Array:
    """Which pixels of an axis lie in a stretch of that part of it, around a random place: bool [N, side]."""
    at = random.integers(0, side, len(part))
    return np.asarray(np.abs(np.arange(side) - at[:, None]) < part[:, None] * side / 2)


def mix(images: Array, kinds: Sequence[str], random: Random) -> Mixed:
    """By the only kind, or each row by one of several, all equally likely. kinds: of `_MIXES`."""
    found = [_MIXES[kind](images, random) for kind in kinds]
    if len(found) == 1:
        return found[0]
    chosen, rows = random.integers(0, len(kinds), len(images)), np.arange(len(images))
    mixed, other, share = (np.stack(parts)[chosen, rows] for parts in zip(*found, strict=True))
    return mixed, other, share


_MOVES: dict[str, Callable[[Array, Random], Array]] = {"crop": crop, "flip": flip, "cutout": cutout}
_MIXES: dict[str, Callable[[Array, Random], Mixed]] = {"mixup": mixup, "cutmix": cutmix}


class Augment:
    """What is done to the image inputs of a batch.

    kinds: in this order; mixing comes last, each row by one of its kinds.
    layouts: by name of an image input, `nchw` or `nhwc`. sizes: of the images that the model takes, which zoom makes of
    larger ones; by default it leaves sizes as they are.
    """

    def __init__(self, kinds: Sequence[str], layouts: dict[str, str], sizes: dict[str, Size] | None = None) -> None:
        self.kinds, self.layouts, self.sizes = tuple(kinds), layouts, sizes or {}
        self.mixes = [kind for kind in kinds if kind in _MIXES]

    def __call__(self, feeds: dict[str, Array], random: Random) -> tuple[dict[str, Array], tuple[Array, Array] | None]:
        """The batch, and where rows are mixed with which other each is and the share of its own."""
        out, mixed = dict(feeds), None
        for name, layout in self.layouts.items():
            images = feeds[name] if layout == "nchw" else np.moveaxis(feeds[name], -1, 1)
            for kind in self.kinds:
                if kind == "zoom":
                    images = zoom(images, random, self.sizes.get(name))
                elif kind in _MOVES:
                    images = _MOVES[kind](images, random)
            if self.mixes:
                images, other, share = mix(images, self.mixes, random)
                mixed = (other, share)
            out[name] = np.ascontiguousarray(images if layout == "nchw" else np.moveaxis(images, 1, -1))
        return out, mixed


def choose_augment(kinds: Sequence[str], feeds: dict[str, Array], mixes: bool = False) -> Augment:
    """The augmentation that options ask for, for a model that takes such feeds.

    kinds: of `KINDS`, or `auto` (crop; flip for images of three channels; nothing where several inputs take images), or
    `none`.
    mixes: does `auto` mix images of three channels too? A teacher can be asked about any image, and mixed ones tell
    most about it (Beyer et al., Knowledge Distillation: A Good Teacher Is Patient and Consistent, 2022).

    Raises:
        ZcError: an unknown kind, or one that needs images where there are none.
    """
    layouts = {name: layout for name, array in feeds.items() if (layout := _layout(array)) is not None}
    if tuple(kinds) == ("none",) or (tuple(kinds) == ("auto",) and len(layouts) != 1):
        return Augment((), {})
    if tuple(kinds) == ("auto",):
        coloured = all(feeds[n].shape[1 if where == "nchw" else 3] == 3 for n, where in layouts.items())
        if not coloured:
            return Augment(("crop",), layouts)
        return Augment(("crop", "flip", "mixup") if mixes else ("crop", "flip"), layouts)
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ZcError(f"augment is {unknown[0]!r}; it must be auto, none, or of {', '.join(KINDS)}, separated by +")
    if not layouts:
        raise ZcError(f"augment={'+'.join(kinds)} is for images, but no input takes batches of them; use augment=none")
    if len(layouts) > 1:
        raise ZcError(f"augment={'+'.join(kinds)}: the inputs {', '.join(layouts)} would move apart; use augment=none")
    sizes = {n: feeds[n].shape[2:] if where == "nchw" else feeds[n].shape[1:3] for n, where in layouts.items()}
    return Augment(kinds, layouts, sizes)


def _layout(array: Array) -> str | None:
    """The layout of an input that takes images: four axes, one or three channels, sides of at least 8. Else None."""
    if array.ndim != 4 or array.dtype.kind != "f":
        return None
    if array.shape[1] in (1, 3) and min(array.shape[2:]) >= 8:
        return "nchw"
    return "nhwc" if array.shape[3] in (1, 3) and min(array.shape[1:3]) >= 8 else None
