"""From raw rows to what one model input takes: layout, preprocessing, element type, checks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from zc.data.batching import Batching, batching, fits
from zc.data.cast import cast, check_finite, kind_of
from zc.data.layout import channel_axis, model_layout, source_layout
from zc.data.pixels import TO_NCHW, TO_NHWC, normalize, reshape_images
from zc.data.prep import Prep
from zc.data.source import Array
from zc.errors import ZcError
from zc.ir.spec import Dim, TensorSpec


@dataclass(frozen=True)
class InputPlan:
    """What to do with raw rows for one input; made once for a source, applied to each batch."""

    spec: TensorSpec
    axis: int | None
    """Where the model has the batch; raw rows always have it first. None: the array goes in as it lies."""
    prep: Prep | None
    source: str | None
    """Layout of raw rows."""
    takes: str | None
    """Layout of the model."""

    def ready(self, raw: Array, where: str, first_row: int | None = None) -> Array:
        """`raw` (rows first) as the model takes it; errors name `where` and rows counted from `first_row`.

        Raises:
            ZcError: an element type or shape that the model does not take, NaN or infinite values.
        """
        where = f"{where}: input '{self.spec.name}'"
        out = self._pixels(raw, where) if raw.ndim == 4 else self._numbers(raw, where)
        assert self.spec.dtype is not None  # refused when the source was opened
        out = cast(out, self.spec.dtype, where)
        if self.axis:
            out = np.moveaxis(out, 0, self.axis)
        check_shape(out.shape, self.spec, self.axis, where)
        check_finite(out, where, first_row, self.axis)
        return np.ascontiguousarray(out) if out.ndim else out

    def of_any_size(self) -> "InputPlan":
        """The same for images of another height and width than the model takes."""
        assert self.spec.shape is not None
        sides = (2, 3) if self.takes == "nchw" else (1, 2)
        shape = tuple(None if axis in sides else dim for axis, dim in enumerate(self.spec.shape))
        return replace(self, spec=replace(self.spec, shape=shape))

    def _pixels(self, images: Array, where: str) -> Array:
        layout = self.source
        if self.prep is not None and self.prep.geometry:
            if layout is None:
                raise ZcError(f"{where}: cannot tell height from channels; add layout=nchw or layout=nhwc to --prep")
            images = reshape_images(images if layout == "nhwc" else images.transpose(TO_NHWC), self.prep, where)
            layout = "nhwc"
        if layout is not None and self.takes is not None and layout != self.takes:
            images = images.transpose(TO_NCHW if self.takes == "nchw" else TO_NHWC)
            layout = self.takes
        return normalize(images, self.prep, channel_axis(layout, 4), where) if self.prep is not None else images

    def _numbers(self, values: Array, where: str) -> Array:
        if self.prep is None:
            return values
        if self.prep.geometry:
            raise ZcError(f"{where}: resize and crop need images of 4 axes, the data has shape {list(values.shape)}")
        return normalize(values, self.prep, channel_axis(self.prep.layout, values.ndim), where)


def check_shape(shape: tuple[int, ...], spec: TensorSpec, axis: int | None, where: str) -> None:
    """ZcError unless the model takes this shape; the size of the batch is not looked at."""
    if spec.shape is None:
        return
    wanted: list[Dim] = list(spec.shape)
    if axis is not None:
        wanted[axis] = None
    if fits(shape, wanted):
        return
    expected = "[" + ",".join("?" if dim is None else str(dim) for dim in spec.shape) + "]"
    raise ZcError(f"{where}: got shape {list(shape)}, the model takes {expected}{_remedy(shape, spec.shape, axis)}")


def _remedy(shape: tuple[int, ...], wanted: tuple[Dim, ...], axis: int | None) -> str:
    if len(shape) == len(wanted) - 1 and axis is not None:
        return "; the first axis must count the rows"
    if len(shape) == len(wanted) == 4 and fits(shape[1:], [wanted[1], None, None]) and isinstance(wanted[2], int):
        return f"; add crop={wanted[2]}x{wanted[3]} or resize={wanted[2]}x{wanted[3]} to --prep"
    return ""


_LOOKED_AT = 32  # rows


def make_plans(
    inputs: Sequence[TensorSpec], prep: Prep | None, raws: Mapping[str, Array], where: str, *, whole: bool = False
) -> dict[str, InputPlan]:
    """A plan for each input, given an array of raw rows for each (any number of rows; only type and shape are read).

    whole: the arrays are feeds in the model's own layout, and the size of their batch must be the model's.
    """
    batch: Batching = batching(inputs)
    images = image_inputs(inputs, prep) if prep is not None else frozenset()
    plans = {}
    for spec in inputs:
        own, raw = prep if spec.name in images else None, raws[spec.name]
        takes = model_layout(spec, own)
        source = takes if whole else source_layout(raw, spec, own, f"{where}: input '{spec.name}'")
        axis = None if whole else batch.axes[spec.name]
        plans[spec.name] = InputPlan(spec, axis, own, source, takes)
    return plans


def image_inputs(inputs: Sequence[TensorSpec], prep: Prep) -> frozenset[str]:
    """The inputs that `prep` is for: float ones of four dimensions; if there are none, of three.

    A prep that changes no values (resize, crop, layout) is for uint8 images too.

    Raises:
        ZcError: there is none.
    """
    takes = [spec for spec in inputs if spec.dtype and (kind_of(spec.dtype) == "float" or _pixels(spec, prep))]
    for rank in (4, 3):
        if found := [spec.name for spec in takes if spec.shape is not None and len(spec.shape) == rank]:
            return frozenset(found)
    listed = "; ".join(str(spec) for spec in inputs)
    raise ZcError(f"prep '{prep}': the model has no float image input to apply it to; its inputs are {listed}")


def _pixels(spec: TensorSpec, prep: Prep) -> bool:
    return not prep.numeric and spec.dtype is not None and spec.dtype.name in {"uint8", "int8"}


def without_geometry(prep: Prep | None) -> Prep | None:
    """The rest of a prep, for a source that resizes and crops by itself."""
    return replace(prep, resize=None, crop=None) if prep is not None else None


def layout_notes(plans: Mapping[str, InputPlan], where: str) -> list[str]:
    """Which inputs get their images turned from NHWC to NCHW or back."""
    return [
        f"{where}: input '{name}': {plan.source.upper()} data turned to {plan.takes.upper()}"
        for name, plan in plans.items()
        if plan.source and plan.takes and plan.source != plan.takes
    ]


def value_notes(plans: Mapping[str, InputPlan], raws: Mapping[str, Array], where: str) -> list[str]:
    """Where a float input gets pixels that look unscaled, or scaled twice."""
    notes = []
    for name, plan in plans.items():
        if plan.spec.dtype is None or kind_of(plan.spec.dtype) != "float" or raws[name].ndim < 3:
            continue
        raw, prep = raws[name][:_LOOKED_AT], plan.prep
        if raw.dtype == np.uint8 and prep is None:
            notes.append(
                f"{where}: input '{name}': uint8 values 0..255 go in as they are; if the model was trained on scaled "
                f"images, pass --prep imagenet, unit, pm1 or caffe; --prep raw says that this is right"
            )
        elif prep is not None and _scaled(raw, prep):
            notes.append(
                f"{where}: input '{name}': the data lies within -1..1 before prep '{prep}' divides it by "
                f"{prep.scale:g}; if it is scaled already, leave that out"
            )
    return notes


def _scaled(raw: Array, prep: Prep) -> bool:
    """Whether `prep` divides by a pixel's range what lies in -1..1 before."""
    return kind_of(raw.dtype) == "float" and abs(prep.scale) >= 32 and raw.size > 0 and bool(np.abs(raw).max() <= 1)
