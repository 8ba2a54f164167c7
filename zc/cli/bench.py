"""`zc bench`: measure the latency of models side by side."""

from typing import TYPE_CHECKING

import click

from zc.cli.options import data_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zc.data import Samples
    from zc.execute import Feeds
    from zc.ir.model import Model
    from zc.measure.latency import Latency


@click.command(short_help="Measure the latency of models side by side.")
@click.argument("models", metavar="MODEL.onnx [MODEL2.onnx ...]", nargs=-1, required=True)
@data_options("--data", what="Samples to run on; without them, synthetic ones")
@click.option("--batch", default=1, show_default=True, type=click.IntRange(min=1), help="Rows a run.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="Threads of a run.")
@click.option("--budget", default=10.0, show_default=True, type=click.FloatRange(min=0.1), help="Seconds to spend.")
@click.option("--repeats", type=click.IntRange(min=2), help="Turns, instead of as many as the budget allows.")
@click.option(
    "--dim", "dims", multiple=True, metavar="NAME=SIZE", help="Size of an open dimension of synthetic samples."
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(
    models: tuple[str, ...],
    data: str | None,
    rows: str | None,
    prep: str | None,
    batch: int,
    threads: int,
    budget: float,
    repeats: int | None,
    dims: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure how long a run takes, of several models turn by turn so that the ratio can be trusted.

    The time is a median: of processor time with one thread, which other programs do not disturb, of elapsed time with
    several. The ratio is to the first model, from runs that stood side by side; below 1 is faster. It ends when the
    ratio is sure to 1 %, or when the budget is spent. If an int8 model is slower than a float one, the likely cause is
    told.

    \b
    Examples:
      zc bench model.onnx int8.onnx
      zc bench model.onnx int8.onnx --data images/ --prep imagenet --rows 0:16 --batch 8
      zc bench model.onnx --threads 4 --budget 30 --json
    """
    from dataclasses import asdict

    from zc.cli import tables
    from zc.cli.progress import tracker
    from zc.ir.model import load
    from zc.measure.latency import bench

    loaded = [load(path) for path in models]
    samples = _samples(loaded[0], data, rows, prep, batch, dims)
    for text in () if samples.synthetic else samples.notes:
        tables.note(text)
    samples = _whole_batches(samples, batch)
    feeds = list(samples.batches(batch))
    run_rows = samples.batch or (None if samples.reader.whole else batch)
    with tracker() as track:
        results = bench(loaded, feeds, repeats=repeats, threads=threads, budget=budget, batch=run_rows, track=track)
    if as_json:
        tables.json_out({"samples": samples.origin, "latency": [{**asdict(r), "ms": r.ms} for r in results]})
    else:
        _print(results, samples.origin)
    _warn(loaded, results, feeds)


def _samples(
    model: "Model", data: str | None, rows: str | None, prep: str | None, batch: int, dims: tuple[str, ...]
) -> "Samples":
    from zc.cli.options import load_data
    from zc.data import synthesize
    from zc.errors import ZcError

    if data is None:
        if rows or prep:
            raise ZcError("--rows and --prep speak of samples, but --data DATA is not given")
        return synthesize(model.inputs, batch, dims=_sizes(model, dims))
    if dims:
        raise ZcError("--dim is for synthetic samples; those of --data have sizes of their own")
    return load_data(model.inputs, data, rows, prep)


def _whole_batches(samples: "Samples", batch: int) -> "Samples":
    """At most eight batches, all of the full size: enough to vary, few enough to hold."""
    from zc.errors import ZcError

    if samples.reader.whole or samples.batch is not None:
        return samples.take(0, min(samples.rows, 8 * (samples.batch or 1)))
    if samples.rows < batch:
        raise ZcError(f"{samples.origin}: {samples.rows} rows do not fill a batch of {batch}; give more or --batch")
    return samples.take(0, min(samples.rows - samples.rows % batch, 8 * batch))


def _sizes(model: "Model", dims: tuple[str, ...]) -> dict[str, int]:
    """Sizes for synthetic samples; ZcError for a name that is no open dimension besides the batch."""
    from zc.cli.dims import sizes
    from zc.data.batching import batching
    from zc.errors import ZcError

    found = sizes(dims)
    axes = batching(model.inputs).axes
    places = ((dim, axis == axes[spec.name]) for spec in model.inputs for axis, dim in enumerate(spec.shape or ()))
    names = {dim for dim, is_batch in places if isinstance(dim, str) and not is_batch}
    for name, size in found.items():
        if name not in names or size < 1:
            inputs = ", ".join(str(spec) for spec in model.inputs)
            raise ZcError(
                f"--dim {name}={size}: not a size of an open dimension; the inputs are {inputs} (see --batch)"
            )
    return found


def _print(results: "Sequence[Latency]", origin: str) -> None:
    from zc.cli.tables import table

    headers = ["model", "median ms", "quartiles", "ratio", "quartiles"]
    lines = [
        [
            r.name,
            _ms(r.ms),
            f"{_ms(r.spread_ms[0])}..{_ms(r.spread_ms[1])}",
            f"{r.ratio:.3f}",
            f"{r.ratio_spread[0]:.3f}..{r.ratio_spread[1]:.3f}",
        ]
        for r in results
    ]
    columns = len(headers) if len(results) > 1 else 3
    table(headers[:columns], [line[:columns] for line in lines])
    first = results[0]
    batch = "" if first.batch is None else f"batch {first.batch}, "
    threads = "1 thread" if first.threads == 1 else f"{first.threads} threads"
    clock = "processor time" if first.clock == "cpu" else "elapsed time"
    click.echo(f"{batch}{threads}, {clock}, {first.repeats} turns; {origin}")


def _ms(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _warn(models: "Sequence[Model]", results: "Sequence[Latency]", feeds: "Sequence[Feeds]") -> None:
    """Say why a quantised model is slower than a float one before it."""
    from zc.cli.tables import note
    from zc.ir.quantised import is_quantised
    from zc.measure.slowness import slow_causes

    if is_quantised(models[0]):
        return
    for model, result in zip(models[1:], results[1:], strict=True):
        if result.ratio - result.ratio_error > 1 and is_quantised(model):
            causes = "; ".join(slow_causes(model, feeds[:4]))
            note(
                f"{result.name} is quantised and slower than {results[0].name} ({result.ratio:.2f}x): {causes}",
                "warning",
            )
