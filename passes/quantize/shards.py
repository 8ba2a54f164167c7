"""Calibration shared by several processes or machines: each looks at a part of the rows, and the parts add up exactly.

sketch_part(model, ctx, 0, 4, Path("part0.npz"))         in each of four processes, with its number
merge_parts([Path(f"part{i}.npz") for i in range(4)], Path("sketches.npz"))
zc opt model.onnx -p quantize:cache=sketches.npz --calib all.npz -o int8.onnx
"""

from collections.abc import Sequence
from pathlib import Path

from zc.errors import ZcError
from zc.ir.model import Model
from zc.passes.quantize.cache import merge_sketches, write_sketches
from zc.passes.quantize.calibrate import Calibration, Key
from zc.passes.quantize.workshop import Workshop
from zc.pipeline.base import Context, PassResult


def sketch_part(model: Model, ctx: Context, part: int, parts: int, path: Path) -> None:
    """Look at the values that `quantize` needs, on one of so many parts of its rows, and write what was seen.

    model: as `quantize` gets it, that is, cleaned for the same target. ctx: with all samples. ZcError when there are
    fewer rows than parts.
    """
    workshop = Workshop(model, ctx)
    workshop.recognise(PassResult(False))
    workshop.raise_opset(ctx.target.min_opset)
    fit = workshop.split.fit
    step = 1 if fit.reader.whole else fit.batch or 1
    start, stop = (fit.rows // step * number // parts * step for number in (part, part + 1))
    if not 0 <= part < parts or start == stop:
        raise ZcError(f"{fit.origin}: part {part} of {parts} has no rows")
    scope = {id(graph): i for i, graph in enumerate(workshop.model.scopes())}
    keys = [Key(scope[id(one.graph)], t.name) for one in workshop.places() for t in one.measured()]
    Calibration(workshop.model, fit.take(start, stop), ctx, path).sketches(keys)


def merge_parts(sources: Sequence[Path], target: Path) -> None:
    """Add up what the parts saw, in one file for `quantize:cache`. ZcError as `merge_sketches`."""
    write_sketches(target, merge_sketches(sources))
