"""What `zc replay` does."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from zc import __version__
from zc.backends import find_target
from zc.cli.options import load_data, load_plugins
from zc.cli.progress import tracker
from zc.data import Samples
from zc.errors import CheckFailed, ZcError
from zc.ir.model import Model, load
from zc.pipeline.base import Context
from zc.pipeline.manager import run_pipeline
from zc.pipeline.provenance import Provenance, file_sha256


def replay(path: str, source: str | None, calib: str | None, output: str | None, plugins: Sequence[str]) -> None:
    """Make the model again; CheckFailed when the result differs, ZcError when the ingredients do."""
    made = load(path)
    how = Provenance.read(made)
    _check_plugins(how, load_plugins(plugins))
    origin = _source(Path(path), how, source)
    _check_output(output, {"the model to compare with": Path(path), "the model it was made from": origin})
    model = load(origin)
    samples = _samples(how, model, calib)
    if how.version != __version__:
        click.echo(f"zc: note: made with zc {how.version}, this is {__version__}", err=True)
    with tracker() as track:
        ctx = Context(find_target(how.target), samples, how.seed, track)
        run_pipeline(model, how.effective or how.pipeline, ctx, verify="structure")
    how.write(model)
    if output is not None:
        model.save(output)
    model.metadata, digest = made.metadata, made.weights_digest()
    if model.weights_digest() != digest:
        raise CheckFailed(f"{path}: {how.pipeline} on {how.source} now gives another model; `zc diff` shows where")
    click.echo(f"{path}: the same again ({how.pipeline} on {how.source})")


def _check_output(output: str | None, taken: dict[str, Path]) -> None:
    for what, path in taken.items():
        if output is not None and Path(output).resolve() == path.resolve():
            raise ZcError(f"{output}: is {what}; write to another file")


def _source(path: Path, how: Provenance, given: str | None) -> Path:
    if not given and (not how.source or Path(how.source).name != how.source):
        raise ZcError(f"{path}: its metadata names no file that it was made from; give that model with --source")
    source = Path(given) if given else path.with_name(how.source)
    if not source.is_file():
        raise ZcError(f"{source}: no such file; give the model that {path.name} was made from with --source")
    if file_sha256(source) != how.source_sha256:
        raise ZcError(f"{source}: is not the file that {path.name} was made from (sha256 {how.source_sha256[:12]}...)")
    return source


def _samples(how: Provenance, model: Model, calib: str | None) -> Samples | None:
    if how.data in ("", "synthetic"):
        if calib is not None:
            raise ZcError(
                f"it was made {'with synthetic samples' if how.data else 'without samples'}; leave --calib out"
            )
        return None
    if calib is None:
        raise ZcError(f"it was made with samples from {how.data}; give them with --calib DATA")
    samples = load_data(model.inputs, calib, how.data_rows or None, how.data_prep or None)
    if samples.digest() != how.data_sha256:
        raise ZcError(f"{calib}: its rows are not those that were used (sha256 {how.data_sha256[:12]}...)")
    return samples


def _check_plugins(how: Provenance, given: Sequence[Path]) -> None:
    hashes = {p.name: file_sha256(p) for p in given}
    for name, sha in json.loads(how.plugins):
        if name not in hashes:
            raise ZcError(f"it was made with the plugin {name}; give it with --plugin")
        if hashes[name] != sha:
            raise ZcError(f"plugin {name} is not the file that was used (sha256 {sha[:12]}...)")
