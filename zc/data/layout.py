"""Which of NCHW and NHWC a model takes and an array has."""

from collections.abc import Sequence

from zc.data.batching import fits
from zc.data.prep import Prep
from zc.data.source import Array
from zc.errors import ZcError
from zc.ir.spec import Dim, TensorSpec


def layout_of(dims: Sequence[Dim]) -> str | None:
    """'nchw' or 'nhwc' for three dimensions of which exactly one end is 1 or 3, or failing that 4; else None."""
    for channels in ((1, 3), (4,)):
        first, last = dims[0] in channels, dims[2] in channels
        if first != last:
            return "nchw" if first else "nhwc"
        if first:
            return None
    return None


def model_layout(spec: TensorSpec, prep: Prep | None) -> str | None:
    """The layout of an image input: what the prep says, else what its shape says; None when neither does."""
    if prep is not None and prep.layout is not None:
        return prep.layout
    return layout_of(spec.shape[1:]) if spec.shape is not None and len(spec.shape) == 4 else None


def channel_axis(layout: str | None, ndim: int) -> int | None:
    """Axis of the channels in a batch of `ndim` axes; None when the layout is unknown."""
    return None if layout is None else 1 if layout == "nchw" else ndim - 1


def source_layout(array: Array, spec: TensorSpec, prep: Prep | None, where: str) -> str | None:
    """The layout of `array` (rows first, four axes), which may be the other one than the model's.

    None when it does not matter. An array that the model takes as it is, is left so unless only the other reading
    makes sense. With a resize or a crop, height and width say nothing and only the channels decide.

    Raises:
        ZcError: pixels that could be either.
    """
    if spec.shape is None or len(spec.shape) != 4 or array.ndim != 4:
        return None
    takes, have = model_layout(spec, prep), array.shape[1:]
    wanted = list(spec.shape[1:])
    pixels = array.dtype.name == "uint8" or prep is not None
    if takes is None:
        if not pixels or (layout_of(have) == "nchw" and fits(have, wanted)):
            return layout_of(have)
        if not fits(have, wanted):
            return None  # the shape check says it better
        raise ZcError(
            f"{where}: cannot tell whether rows of shape {list(have)} are NCHW or NHWC for input {spec}; "
            f"say what the model takes with layout=nchw or layout=nhwc in --prep"
        )
    return _read_as(have, wanted, takes, prep, pixels, f"{where}: rows of shape {list(have)} for input {spec}")


def _read_as(
    have: tuple[int, ...], wanted: list[Dim], takes: str, prep: Prep | None, pixels: bool, where: str
) -> str | None:
    other = "nhwc" if takes == "nchw" else "nchw"
    turned = (have[2], *have[:2]) if other == "nhwc" else (*have[1:], have[0])
    channel = 0 if takes == "nchw" else 2
    if prep is not None and prep.geometry:
        wanted = [dim if axis == channel else None for axis, dim in enumerate(wanted)]
    straight = fits(have, wanted) and _plausible(have, takes, wanted[channel])
    swapped = fits(turned, wanted) and _plausible(have, other, wanted[channel])
    if straight and swapped and pixels and (prep is None or prep.layout is None):
        raise ZcError(f"{where} could be NCHW or NHWC; add layout={takes} to --prep to take them as they are")
    return other if swapped and not straight else takes


def _plausible(have: tuple[int, ...], layout: str, channels: Dim) -> bool:
    """Whether this layout's channel axis holds channels: as many as the model says, else a usual number."""
    count = have[0] if layout == "nchw" else have[2]
    return count == channels if isinstance(channels, int) else layout_of(have) in {layout, None}
