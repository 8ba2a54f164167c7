"""Image folders: files decoded batch by batch with pillow, brought to the size that the model takes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from zc.data.imagefiles import find_images
from zc.data.layout import model_layout
from zc.data.pixels import MARGIN, corner, pillow, resized, with_margins
from zc.data.plan import InputPlan, image_inputs, value_notes, without_geometry
from zc.data.prep import Prep, Size
from zc.data.source import Array, Feed, Opened
from zc.errors import ZcError
from zc.ir.spec import TensorSpec

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Geometry:
    """How the pictures come to one size."""

    resize: int | Size | None
    crop: Size | None
    fit: Size | None = None
    """Without a resize: the size that the model takes, reached by the rule of `_fitting`; then the crop, or this."""

    def whole(self, size: Size) -> Size:
        """What a picture of this size is resized to, before it is cropped."""
        resize = self.resize if self.fit is None else _fitting(size, self.fit)
        return size if resize is None else resized(size, resize)


@dataclass(frozen=True)
class ImageRows:
    """Images as rows: uint8 RGB (or grey, or RGBA, by the model's channels), preprocessed for one input."""

    paths: tuple[Path, ...]
    mode: str
    geometry: Geometry
    size: Size
    plans: Mapping[str, InputPlan]
    where: str
    whole: bool = False

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.paths)

    def read(self, start: int, stop: int) -> Feed:
        """Decodes these images."""
        images = np.stack([self._row(path) for path in self.paths[start:stop]])
        return {name: plan.ready(images, self.where, start) for name, plan in self.plans.items()}

    def uncropped(self, start: int, stop: int) -> "ImageRows | None":
        """See `zc.data.source.Cropped`."""
        crop = self.geometry.crop or self.geometry.fit
        if crop is None:
            return None
        size = with_margins({self.geometry.whole(_size(path)) for path in self.paths[start:stop]}, crop)
        if size is None:
            return None
        plans = {name: plan.of_any_size() for name, plan in self.plans.items()}
        return replace(self, geometry=replace(self.geometry, crop=size), size=size, plans=plans)

    def fingerprint(self, start: int, stop: int) -> Iterator[bytes]:
        """The content of the files, as they are on disk."""
        yield f"images {self.mode} {self.geometry}\n".encode()
        for path in self.paths[start:stop]:
            content = _bytes(path)
            yield f"{len(content)}\n".encode()
            yield content

    def _row(self, path: Path) -> Array:
        image = decode(path, self.mode, self.geometry)
        if image.shape[:2] != self.size:
            here, first = "x".join(map(str, image.shape[:2])), "x".join(map(str, self.size))
            raise ZcError(f"{path}: is {here} where the first image is {first}; add resize= and crop= to --prep")
        return image


def open_images(folder: Path, inputs: Sequence[TensorSpec], prep: Prep | None) -> Opened:
    """The images of a folder for a model with one image input; labels from labels.csv or class subfolders.

    Raises:
        ZcError: pillow is missing, no images, several inputs, an unknown layout, an unreadable first image.
    """
    spec = _only_image_input(folder, inputs, prep)
    found = find_images(folder)
    takes = model_layout(spec, prep)
    if takes is None:
        raise ZcError(f"{folder}: cannot tell whether input {spec} is NCHW or NHWC; add layout=nchw or nhwc to --prep")
    assert spec.shape is not None  # it is an image input: of rank 4
    dims = spec.shape[1:]
    channels, height, width = dims if takes == "nchw" else (dims[2], *dims[:2])
    mode = _MODES.get(channels) if isinstance(channels, int) else "RGB"
    if mode is None:
        raise ZcError(f"{folder}: images have 1, 3 or 4 channels, the model takes {spec}")
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    geometry = _geometry(prep, size)
    first = decode(found.paths[0], mode, geometry)
    rest = without_geometry(prep)
    plans = {spec.name: InputPlan(spec, 0, rest, "nhwc", takes)}
    raws = {spec.name: first[None]}
    notes = [*found.notes, *_size_notes(folder.name, found.paths[0], geometry), *value_notes(plans, raws, folder.name)]
    rows = ImageRows(found.paths, mode, geometry, (first.shape[0], first.shape[1]), plans, folder.name)
    return Opened(rows, folder.name, found.labels, tuple(notes))


def _only_image_input(folder: Path, inputs: Sequence[TensorSpec], prep: Prep | None) -> TensorSpec:
    if len(inputs) != 1:
        names = ", ".join(spec.name for spec in inputs)
        raise ZcError(f"{folder}: images cannot feed {len(inputs)} inputs; use .npz with arrays named {names}")
    if inputs[0].shape is None or len(inputs[0].shape) != 4:
        raise ZcError(f"{folder}: images need an input of four dimensions, the model takes {inputs[0]}; use .npz")
    if prep is not None:
        image_inputs(inputs, prep)
    return inputs[0]


def _geometry(prep: Prep | None, size: Size | None) -> Geometry:
    """What the prep says; after a resize of the shorter side alone, the model's size is cropped."""
    if prep is None or not prep.geometry:
        return Geometry(None, None, fit=size)
    crop = size if prep.crop is None and isinstance(prep.resize, int) else prep.crop
    return Geometry(prep.resize, crop)


def _fitting(size: Size, fit: Size) -> int | None:
    """Shorter side to resize to before the centre crop of `fit`; None to crop straight away.

    Images up to half as large again are cropped as they are: they were made for it (256 for 224). Smaller ones are
    enlarged until they cover, and photographs are reduced to 8/7 of the size, as is usual for ImageNet, since the
    middle of a photograph is not its subject.
    """
    ratio = min(size[0] / fit[0], size[1] / fit[1])
    if 1 <= ratio < MARGIN:
        return None
    shorter = min(size) / ratio
    return int(np.ceil(shorter if ratio < 1 else shorter * 8 / 7))


def decode(path: Path, mode: str, geometry: Geometry) -> Array:
    """One image as uint8[h, w, c], resized and cropped; ZcError when it is damaged, too large or not of 8 bits."""
    with _opened(path) as file:
        if file.mode.startswith(("I", "F")):
            raise ZcError(f"{path}: has more than 8 bits a channel ({file.mode}); save it with 8")
        picture = file.convert(mode)
    picture = _sized(picture, geometry, path)
    pixels = np.asarray(picture)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _sized(picture: Any, geometry: Geometry, path: Path) -> Any:
    size = picture.size[::-1]
    if (whole := geometry.whole(size)) != size:
        picture = picture.resize(whole[::-1], pillow().Resampling.BILINEAR)
    crop = geometry.crop or geometry.fit
    if crop is None or crop == whole:
        return picture
    top, left = corner(whole, crop, str(path))
    return picture.crop((left, top, left + crop[1], top + crop[0]))


def _size_notes(where: str, first: Path, geometry: Geometry) -> list[str]:
    """What the default rule does to the first image."""
    if geometry.fit is None:
        return []
    height, width = _size(first)
    fit = f"{geometry.fit[0]}x{geometry.fit[1]}"
    if (height, width) == geometry.fit:
        return []
    resize = _fitting((height, width), geometry.fit)
    how = "centre crop" if resize is None else f"shorter side resized to {resize}, then centre crop"
    return [f"{where}: images of {height}x{width} go in as {fit}: {how}; to choose, add resize= and crop= to --prep"]


def _size(path: Path) -> Size:
    """Of a picture, which is not decoded."""
    with _opened(path) as file:
        width, height = file.size
    return height, width


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The picture of a file; ZcError for what goes wrong while it is read."""
    image = pillow()
    try:
        with image.open(path) as file:
            yield file
    except (OSError, SyntaxError, ValueError, EOFError, image.DecompressionBombError) as error:
        raise ZcError(f"{path}: cannot be read as an image ({error}); remove or replace it") from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ZcError(f"{path}: cannot be read ({error.strerror})") from None
