"""For tests of models and passes, ours and other people's.

    from zc.testing import assert_golden, ops, run_pass

    def test_my_pass():
        after = run_pass("my-pass", MODEL_TEXT, level=2)    # valid, same signature, and proven if it is exact
        assert ops(after) == ["Conv"]
        assert_golden(after, Path(__file__).parent / "expected" / "my-pass.txt")

`pytest --update-golden` (or ZC_UPDATE_GOLDEN=1) rewrites golden files instead of comparing.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zc.backends import find_target
from zc.data import Samples
from zc.data.arrays import open_arrays
from zc.data.batching import batching
from zc.errors import ZcError
from zc.execute import Runner, relative_error
from zc.ir.diff import diff, render_text
from zc.ir.graph import Array
from zc.ir.model import Model, from_text, load, write_atomically
from zc.ir.text import Weights, parse_text, print_model
from zc.measure.weights import total_bytes, total_params
from zc.pipeline.base import Context, Pass, PassResult
from zc.pipeline.manager import Report, run_pipeline
from zc.pipeline.registry import find
from zc.pipeline.spec import Pipeline
from zc.pipeline.synthetic import synthetic_samples

UPDATE = "ZC_UPDATE_GOLDEN"
"""Environment variable: `1` rewrites golden files. `pytest --update-golden` sets it."""

TARGET = "ort-cpu"
"""The target that `run_pass` runs passes for."""

_LINES = 40


def assert_golden(
    model: Model,
    path: str | Path,
    update: bool | None = None,
    *,
    weights: Weights = "hash",
    source: Model | None = None,
) -> None:
    """Compare the canonical text of a model with a golden file.

    Args:
        model: the model as it came out.
        path: the golden file.
        update: write the file instead of comparing; by default what `pytest --update-golden` says.
        weights: what stands for weights of more than 16 elements; `shape` for weights that are computed in floating
            point, whose last bits differ between processors (see `zc.ir.text.print_model`).
        source: with `shape`, the model as it went in: weights that it holds too keep their hash.

    Raises:
        AssertionError: with the structural diff from the golden file to the model, then the lines that differ.
        ZcError: the golden file cannot be written.
    """
    path = Path(path)
    text = print_model(model, weights=weights, source=source)
    if os.environ.get(UPDATE) == "1" if update is None else update:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_bytes() != text.encode():
            write_atomically(path, lambda file: file.write(text.encode()))
        return
    if not path.is_file():
        raise AssertionError(f"there is no golden file {path}; `pytest --update-golden` makes it from {model.name}")
    expected = path.read_bytes().decode(errors="replace")
    if expected != text:
        raise AssertionError(_page(path, expected, text))


def run_pass(
    which: str | Pass, model: Model | str | Path, samples: Samples | Mapping[str, Array] | None = None, **options: Any
) -> Model:
    """A copy of the model after a pass (and the passes that it requires), which was checked on the way.

    The graph must be valid, inputs and outputs the same; an exact pass must not move the outputs.

    Args:
        which: the name of a pass, with its options in `options`; or the pass itself.
        model: a model, its ONNX text, or the path of a file. It is not changed.
        samples: calibration samples, or arrays by input name; by default synthetic ones where the pass needs any.
        options: of the pass, as Python values.

    Raises:
        zc.errors.CheckFailed: a check failed.
        ZcError: the model, the pass or an option is wrong.
    """
    return run_pass_report(which, model, samples, **options)[0]


def run_pass_report(
    which: str | Pass, model: Model | str | Path, samples: Samples | Mapping[str, Array] | None = None, **options: Any
) -> tuple[Model, Report]:
    """As `run_pass`, and what the passes tell: figures, and notes on what they declined."""
    after = _model(model).copy()
    if isinstance(which, str):
        try:
            which = find(which)(**options)
        except TypeError as err:
            raise ZcError(f"pass '{which}': {err}") from err
    elif options:
        raise ZcError(f"pass '{which.name}' was given ready made; give options to its class")
    given = samples_of(after, samples) if isinstance(samples, Mapping) else samples
    ctx = Context(target=find_target(TARGET), samples=given)
    return after, run_pipeline(after, Pipeline((which,)), ctx)


def assert_same_outputs(
    got: Model, want: Model, feeds: Mapping[str, Array] | None = None, tolerance: float = 1e-5
) -> None:
    """Compare what two models return.

    feeds: an array for each input; by default `random_feeds`. tolerance: largest |difference| relative to the largest
    |value| of an output. AssertionError names the output and how far it is off.
    """
    feeds = random_feeds(want) if feeds is None else feeds
    first, second = Runner(got).run(feeds), Runner(want).run(feeds)
    assert list(first) == list(second), f"outputs {list(first)}, expected {list(second)}"
    for name, value in second.items():
        error = relative_error(first[name], value)
        assert error <= tolerance, f"output '{name}' is off by {error:.3g} relative (allowed {tolerance:g})"


def samples_of(model: Model, arrays: Mapping[str, Array]) -> Samples:
    """Samples for a model from an array for each input, rows first. ZcError when they do not fit."""
    opened = open_arrays(arrays, None, model.inputs, None, "arrays")
    batch = batching(model.inputs).size
    return Samples(model.inputs, opened.reader, opened.name, 0, opened.reader.count, batch=batch, notes=opened.notes)


def random_feeds(model: Model, seed: int = 0, rows: int = 2) -> dict[str, Array]:
    """An array for each input, drawn from the model's own statistics; `rows` where the batch is open."""
    return dict(next(synthetic_samples(model, rows=rows, seed=seed).batches(rows)))


def ops(model: Model) -> list[str]:
    """The operators of the main graph, in order."""
    return [node.op for node in model.graph.nodes]


def sizes(model: Model) -> tuple[int, int]:
    """Parameters and bytes of the weights, as `zc stats` counts them."""
    return total_params(model), total_bytes(model)


def _model(given: Model | str | Path) -> Model:
    if isinstance(given, Model):
        return given
    if isinstance(given, str) and "=>" in given:
        return from_text(given)
    return load(given)


def _page(path: Path, expected: str, text: str) -> str:
    """What an engineer needs to see: the difference by structure, then the first lines that differ."""
    try:
        difference = diff(parse_text(expected, hashed=True), parse_text(text, hashed=True), measure=sizes)
        page = render_text(difference)
        if difference.equal:
            page = "the models are equal; the text differs in order, in types that only one of them tells, or in form\n"
    except ZcError as err:
        page = f"(not compared by structure: {err})\n"
    lines = list(difflib.unified_diff(expected.splitlines(), text.splitlines(), "golden", "now", n=1, lineterm=""))
    shown = "\n".join(lines[:_LINES]) + (f"\n... and {len(lines) - _LINES} more lines" if len(lines) > _LINES else "")
    accept = "`pytest --update-golden` accepts the change"
    return f"{path} is not what the model says ({accept})\n\n{page}\n{shown}"


__all__ = [
    "Context",
    "Pass",
    "PassResult",
    "assert_golden",
    "assert_same_outputs",
    "from_text",
    "load",
    "ops",
    "random_feeds",
    "run_pass",
    "run_pass_report",
    "samples_of",
    "sizes",
]
