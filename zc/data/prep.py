"""Preprocessing as text: `imagenet crop=224`, `scale=255 mean=.5 std=.5 layout=nhwc color=bgr`."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from zc.errors import ZcError, nearest

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class Prep:
    """What happens to the pixels of an image before the model sees it, in this order.

    Resize, crop, swap channels, then `(x / scale - mean) / std` in float32. The text of a Prep parses back to it.
    """

    resize: int | Size | None = None
    """Shorter side in pixels (the ratio is kept), or height and width; bilinear, antialiased."""
    crop: Size | None = None
    """Height and width of the centre crop."""
    layout: str | None = None
    """What the model takes: nchw or nhwc; None: seen from the shape of its input."""
    color: str = "rgb"
    """Channel order that the model takes; sources are rgb."""
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    """One number, or one a channel in the model's channel order; in units of x / scale."""
    std: tuple[float, ...] = (1.0,)

    @property
    def geometry(self) -> bool:
        """Whether it changes height or width."""
        return self.resize is not None or self.crop is not None

    @property
    def numeric(self) -> bool:
        """Whether it changes values, which only a float input can take."""
        return (self.scale, self.mean, self.std) != (1.0, (0.0,), (1.0,))

    @property
    def by_channel(self) -> bool:
        """Whether it needs to know which axis holds the channels."""
        return self.color != "rgb" or len(self.mean) > 1 or len(self.std) > 1

    def __str__(self) -> str:
        """Canonical text: the preset that has these values, if any, then what differs from it."""
        name, base = next(((n, p) for n, p in PRESETS.items() if _values(p) == _values(self)), ("", Prep()))
        parts = [name] if name else []
        for item in fields(self):
            value = getattr(self, item.name)
            if value != getattr(base, item.name):
                parts.append(f"{item.name}={_text(value, 'x' if item.name in {'resize', 'crop'} else ',')}")
        return " ".join(parts)


PRESETS = {
    "imagenet": Prep(scale=255.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "unit": Prep(scale=255.0),
    "pm1": Prep(scale=127.5, mean=(1.0,)),
    "raw": Prep(),
    "caffe": Prep(color="bgr", mean=(104.0, 117.0, 123.0)),
}
"""imagenet: torchvision; unit: 0..1; pm1: -1..1; raw: values as they are; caffe: BGR minus the mean pixel."""


def parse_prep(text: str) -> Prep:
    """A preset, parts `key=value`, or a preset that parts then change; separated by spaces or ':'.

    Raises:
        ZcError: an unknown word, a value out of range, or a part given twice.
    """
    prep: Prep | None = None
    given: set[str] = set()
    for part in re.split(r"[\s:]+", text.strip()):
        key, equals, value = part.partition("=")
        if not equals and part in PRESETS and prep is None:
            prep = PRESETS[part]
            continue
        if not equals:
            raise ZcError(f"prep '{text}': {_misfit(part, prep is not None)}")
        if key not in _PARSERS:
            raise ZcError(
                f"prep '{text}': unknown part '{key}'{nearest(key, list(_PARSERS))}; use {', '.join(_PARSERS)}"
            )
        if key in given:
            raise ZcError(f"prep '{text}': '{key}' is given twice")
        given.add(key)
        try:
            prep = replace(prep or Prep(), **{key: _PARSERS[key](value)})
        except ValueError as error:
            raise ZcError(f"prep '{text}': '{part}': expected {error}") from None
    return prep or Prep()


def _misfit(part: str, started: bool) -> str:
    if part in PRESETS:
        return f"the preset '{part}' must come first, and only one can be given"
    known = [*PRESETS, *_PARSERS]
    presets, parts = ", ".join(PRESETS), ", ".join(_PARSERS)
    found = f"'{part}' is not a preset{nearest(part, known)}" if part else "it is empty"
    return f"{found}; use {'' if started else f'{presets}, or '}key=value of {parts}"


def _numbers(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(item) for item in text.split(","))
    except ValueError:
        values = (math.nan,)
    if not all(math.isfinite(value) for value in values):
        raise ValueError("numbers separated by commas, such as .485,.456,.406")
    return values


def _nonzero(text: str) -> tuple[float, ...]:
    values = _numbers(text)
    if not all(values):
        raise ValueError("numbers that are not zero, since values are divided by them")
    return values


def _scale(text: str) -> float:
    values = _nonzero(text)
    if len(values) != 1:
        raise ValueError("one number")
    return values[0]


def _pixels(text: str) -> tuple[int, ...]:
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(re.fullmatch(r"[0-9]{1,5}", part) and int(part) > 0 for part in parts):
        raise ValueError("pixels, as 224 or HEIGHTxWIDTH")
    return tuple(int(part) for part in parts)


def _resize(text: str) -> int | Size:
    sizes = _pixels(text)
    return sizes[0] if len(sizes) == 1 else (sizes[0], sizes[1])


def _crop(text: str) -> Size:
    sizes = _pixels(text)
    return sizes[0], sizes[-1]


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(" or ".join(choices))
        return text

    return parse


_PARSERS: dict[str, Callable[[str], Any]] = {
    "resize": _resize,
    "crop": _crop,
    "layout": _choice("nchw", "nhwc"),
    "color": _choice("rgb", "bgr"),
    "scale": _scale,
    "mean": _numbers,
    "std": _nonzero,
}


def _values(prep: Prep) -> Prep:
    """The part of a Prep that presets speak of."""
    return replace(prep, resize=None, crop=None, layout=None)


def _text(value: object, separator: str) -> str:
    if isinstance(value, tuple):
        return separator.join(_text(item, separator) for item in value)
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
