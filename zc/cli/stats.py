"""`zc stats`: count parameters, MACs, bytes and operators."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from zc.measure.cost import Cost, LayerCost


@click.command(short_help="Count parameters, MACs, bytes and operators.")
@click.argument("model", metavar="MODEL.onnx")
@click.option("--per-layer", is_flag=True, help="Also a line for each node with weights or MACs.")
@click.option(
    "--dim", "dims", multiple=True, metavar="NAME=SIZE", help="Size of an open dimension (the batch is 1); repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(model: str, per_layer: bool, dims: tuple[str, ...], as_json: bool) -> None:
    """Count what a model costs: parameters, multiply-accumulates (MACs), bytes of weights, operators.

    Parameters are the elements of float and quantised weights, each counted once. MACs are those of convolutions,
    matrix products, recurrent layers and attention, for a batch of 1. What cannot be counted is listed with the
    reason. A dimension without a name is written as INPUT:AXIS.

    \b
    Examples:
      zc stats model.onnx
      zc stats model.onnx --per-layer
      zc stats encoder.onnx --dim S=128
      zc stats detector.onnx --dim images:2=640 --dim images:3=640 --json
    """
    from dataclasses import asdict

    from zc.cli import tables
    from zc.cli.dims import sizes
    from zc.ir.model import load
    from zc.measure.cost import count
    from zc.measure.weights import disk_bytes

    loaded = load(model)
    file_bytes = disk_bytes(loaded)
    cost = count(loaded, sizes(dims))
    if as_json:
        tables.json_out({"model": loaded.name, "file_bytes": file_bytes, **asdict(cost)})
        return
    tables.facts(_facts(loaded.name, file_bytes, cost))
    if per_layer:
        click.echo()
        headers = ("layer", "op", "output", "params", "bytes", "MACs", "share")
        tables.table(headers, [_row(layer, cost.known_macs) for layer in cost.layers], left=3)
    if cost.unknown:
        _unknown(cost)


def _facts(name: str, file_bytes: int, cost: "Cost") -> list[tuple[str, str]]:
    if cost.macs is None:
        least = f"at least {cost.known_macs:,}" if cost.known_macs else "not known"
        number = len(cost.unknown)
        macs = f"{least}; {number} layer{'s' if number > 1 else ''} cannot be counted"
    else:
        macs = f"{_with_si(cost.macs)}, batch 1"
    return [
        ("model", name),
        ("parameters", _with_si(cost.params)),
        ("MACs", macs),
        ("weights", f"{cost.bytes:,} bytes"),
        ("file", f"{file_bytes:,} bytes"),
        ("nodes", f"{cost.nodes:,}"),
        ("operators", ", ".join(f"{op} {number}" for op, number in cost.ops.items()) or "none"),
    ]


def _with_si(number: int) -> str:
    from zc.cli.tables import si

    return f"{number:,} ({si(number)})" if number >= 1000 else str(number)


def _row(layer: "LayerCost", total: int) -> tuple[str, ...]:
    shape = "?" if layer.output_shape is None else "x".join("?" if d is None else str(d) for d in layer.output_shape)
    macs = "?" if layer.macs is None else f"{layer.macs:,}"
    share = f"{100 * layer.macs / total:.1f} %" if layer.macs and total else ""
    return layer.name, layer.op, shape, f"{layer.params:,}", f"{layer.bytes:,}", macs, share


def _unknown(cost: "Cost") -> None:
    from zc.cli.tables import note

    for line in cost.unknown[:5]:
        note(f"not counted: {line}")
    if len(cost.unknown) > 5:
        note(f"not counted: {len(cost.unknown) - 5} more; --json lists all")
    if cost.open_dims:
        note(f"give sizes: {' '.join(f'--dim {dim}=...' for dim in cost.open_dims)}")
