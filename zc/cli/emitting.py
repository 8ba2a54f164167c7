"""What `zc emit` and `zc check` do."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from zc.backends import find_backend, implied_target
from zc.backends.base import Backend, NotHere, Prediction, deliver
from zc.backends.rules import Violation
from zc.cli import show, tables
from zc.cli.options import apply_shapes, load_data
from zc.cli.output import check_output
from zc.cli.progress import tracker
from zc.cli.speed import artifact_speed
from zc.errors import CheckFailed, ZcError
from zc.figures import size_text
from zc.ir.model import load
from zc.measure.weights import disk_bytes
from zc.pipeline.base import Context

_NODES = 5


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


def check(source: str, target: str | None, shapes: tuple[str, ...], as_json: bool) -> None:
    """Hold a model against the rules of a place. CheckFailed when it breaks one that the place enforces."""
    backend = find_backend(implied_target(None, target))
    model = load(source)
    apply_shapes(model, shapes)
    found = backend.check(model)
    errors = sum(one.severity == "error" for one in found)
    predicted, reason = _predict(backend, source, shapes, bool(errors))
    if as_json:
        violations = [one.to_json() for one in found]
        tables.json_out(
            {"model": source, "target": backend.name, "violations": violations, "prediction": predicted or reason}
        )
    else:
        _list(found)
        click.echo(f"{source}: {backend.name}: {errors} errors, {len(found) - errors} that cost time")
        if predicted is not None:
            _show(predicted)
        elif reason:
            click.echo(f"what will fuse is not told: {reason}")
    if errors:
        raise CheckFailed(
            f"{source}: {errors} violation{'s'[: errors > 1]} of {backend.name}'s rules; first {found[0].line}"
        )


def _list(found: Sequence[Violation]) -> None:
    """Rule by rule: what must hold and where that stands, the nodes, and once what mends it."""
    for rule in dict.fromkeys(one.rule for one in found):
        those = [one for one in found if one.rule == rule]
        click.echo(f"{those[0].severity}  {rule}: {len(those)} node{'s'[: len(those) > 1]} [{those[0].source}]")
        for one in those[:_NODES]:
            click.echo(f"    {one.node}: {one.what}")
        if len(those) > _NODES:
            click.echo(f"    ... and {len(those) - _NODES} more; --json has all")
        click.echo(f"    fix: {those[0].fix}")


def _predict(backend: Backend, source: str, shapes: tuple[str, ...], broken: bool) -> tuple[Prediction | None, str]:
    """What will fuse in the model as the place gets it; or why that is not known."""
    try:
        model = load(source)
        apply_shapes(model, shapes)
        return backend.predict(model), ""
    except ZcError as err:
        return None, "" if broken else str(err)


def _show(predicted: Prediction) -> None:
    click.echo(
        f"predicted: {len(predicted.integer)} layers in integers, {len(predicted.floats)} in float, "
        f"{len(predicted.fused)} nodes vanish into others"
    )
    reasons: dict[str, list[str]] = {}
    for where, why in predicted.floats:
        reasons.setdefault(why, []).append(where)
    for why, nodes in reasons.items():
        more = f" and {len(nodes) - _NODES} more" if len(nodes) > _NODES else ""
        click.echo(f"  float  {', '.join(nodes[:_NODES])}{more}: {why}")
