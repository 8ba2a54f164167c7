"""A folder that replays a failure: the model before the pass, the rest of the pipeline, a few samples, the versions."""

import importlib.metadata
import json
import platform
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zc import __version__
from zc.ir.model import Model, write_atomically
from zc.pipeline.base import Context, Pass
from zc.pipeline.spec import Pipeline

_ROWS = 32
_PACKAGES = ("onnx", "onnxruntime", "onnx-graphsurgeon", "numpy", "numba")


def write_reproducer(
    root: Path, model: Model, tail: Sequence[Pass], ctx: Context, error: str, plugins: Sequence[Path] = ()
) -> tuple[Path, str]:
    """Write the folder into `root`; its path and the one command that replays the failure."""
    folder = _free(root / f"zc-repro-{tail[0].name}")
    folder.mkdir(parents=True)
    model.save(folder / "model.onnx")
    pipeline = str(Pipeline(tuple(tail)))
    words = [
        "zc",
        "opt",
        "model.onnx",
        "-p",
        pipeline,
        "-o",
        "out.onnx",
        "--seed",
        str(ctx.seed),
        "--target",
        ctx.target.name,
    ]
    if ctx.samples is not None and not ctx.samples.synthetic:
        feeds = next(iter(ctx.samples.take(0, min(_ROWS, ctx.samples.rows)).batches(_ROWS)))
        with (folder / "samples.npz").open("wb") as file:
            np.savez(file, **feeds)  # type: ignore[arg-type]
        words += ["--calib", "samples.npz"]
    for plugin in plugins:
        (folder / plugin.name).write_bytes(plugin.read_bytes())
        words += ["--plugin", plugin.name]
    command = f"cd {shlex.quote(str(folder))} && {shlex.join(words)}"
    about = {
        "error": error,
        "pipeline": pipeline,
        "zc": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }
    write_atomically(folder / "about.json", lambda f: f.write(json.dumps(about, indent=2).encode() + b"\n"))
    write_atomically(folder / "command.txt", lambda f: f.write((shlex.join(words) + "\n").encode()))
    return folder, command


def _free(path: Path) -> Path:
    """The path, or the first of path-2, path-3, ... that does not exist."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
