"""What `zc emit` does."""

from contextlib import suppress
from pathlib import Path

import click

from zc.backends import find_backend, implied_target
from zc.backends.base import NotHere, deliver
from zc.cli import show, tables
from zc.cli.options import apply_shapes, load_data
from zc.cli.output import check_output
from zc.cli.progress import tracker
from zc.cli.speed import artifact_speed
from zc.errors import ZcError
from zc.figures import size_text
from zc.ir.model import load
from zc.measure.weights import disk_bytes
from zc.pipeline.base import Context


def emit(
    source: str,
    output: str,
    target: str | None,
    shapes: tuple[str, ...],
    data: tuple[str | None, str | None, str | None],
    seed: int,
    bench: bool,
    as_json: bool,
) -> None:
    """Read, legalise, check, write; nothing is written unless all of it went well."""
    backend = find_backend(implied_target(output, target))
    path = Path(output)
    check_output(path, backend)
    if path.exists() and Path(source).exists() and path.resolve() == Path(source).resolve():
        raise ZcError(f"{path}: is the input itself; write to another file")
    model = load(source)
    size = disk_bytes(model)
    apply_shapes(model, shapes)
    given, rows, prep = data
    if given is None and (rows or prep):
        raise ZcError("--calib-rows and --prep speak of samples, but --calib DATA is not given")
    samples = None if given is None else load_data(model.inputs, given, rows, prep)
    original = model.copy()
    with tracker() as track:
        artifact, noted = deliver(backend, model, path, Context(backend.target, samples, seed, track))
    speed = None
    if bench:
        with suppress(NotHere):
            speed = artifact_speed(original, path.name, backend.engine(artifact.path, 1), samples)
    notes = [*noted, *artifact.notes]
    if as_json:
        about = {"path": str(artifact.path), "target": backend.name, "bytes": artifact.bytes, "facts": artifact.facts}
        about |= {"speed": speed}
        tables.json_out({**about, "notes": notes})
        return
    show.notes(show.console(), notes)
    facts = "".join(f"; {name} {value}" for name, value in artifact.facts.items()) + (f"; {speed}" if speed else "")
    click.echo(
        f"{artifact.path}: {backend.name}, {size_text(size)} -> {size_text(artifact.bytes)}"
        f"{show.share(size, artifact.bytes)}{facts}"
    )
