"""What `zc check` does."""

from collections.abc import Sequence

import click

from zc.backends import find_backend, implied_target
from zc.backends.base import Backend, Prediction
from zc.backends.rules import Violation
from zc.cli import tables
from zc.cli.options import apply_shapes
from zc.errors import CheckFailed, ZcError
from zc.ir.model import Model, load

_NODES = 5


def check(source: str, target: str | None, shapes: tuple[str, ...], as_json: bool) -> None:
    """Hold a model against the rules of a place. CheckFailed when it breaks one that the place enforces."""
    backend = find_backend(implied_target(None, target))
    model = load(source)
    apply_shapes(model, shapes)
    found = backend.check(model)
    errors = sum(one.severity == "error" for one in found)
    predicted, reason = _predict(backend, model, bool(errors))
    if as_json:
        violations = [one.to_json() for one in found]
        tables.json_out(
            {"model": source, "target": backend.name, "violations": violations, "prediction": predicted or reason}
        )
    else:
        _list(found)
        click.echo(
            f"{source}: {backend.name}: {errors} error{'s'[: errors != 1]}, {len(found) - errors} that cost time"
        )
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


def _predict(backend: Backend, model: Model, broken: bool) -> tuple[Prediction | None, str]:
    """What will fuse in the model as the place gets it; or why that is not known."""
    try:
        return backend.predict(model.copy()), ""
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
    for where, into in predicted.fused[:_NODES]:
        click.echo(f"  fuses  {where} into {into}")
    if len(predicted.fused) > _NODES:
        click.echo(f"  fuses  ... and {len(predicted.fused) - _NODES} more; --json has all")
