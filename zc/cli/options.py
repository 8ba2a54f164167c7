"""Options that several commands share."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from zc.data import Samples
    from zc.ir.model import Model
    from zc.ir.spec import TensorSpec

F = TypeVar("F", bound=Callable[..., Any])

SOURCES = "a .npz or .npy file, an image folder, a folder of test_data_set_*, or package.module:function"


def data_options(name: str = "--data", *, what: str = "Samples", required: bool = False) -> Callable[[F], F]:
    """Adds `name`, `name-rows` (--rows for --data) and --prep; the values arrive as data, rows and prep."""

    def decorate(command: F) -> F:
        for option in (
            click.option(
                "--prep",
                metavar="TEXT",
                help="Preprocessing: imagenet|unit|pm1|raw|caffe, or parts as "
                "'resize=256 crop=224 scale=255 mean=0.5 std=0.5 layout=nchw color=bgr'.",
            ),
            click.option(
                "--rows" if name == "--data" else f"{name}-rows",
                "rows",
                metavar="A:B",
                help="Only these rows, as 0:256 or 200: or :100.",
            ),
            click.option(name, "data", metavar="DATA", required=required, help=f"{what}: {SOURCES}."),
        ):
            command = option(command)
        return command

    return decorate


def mode_option(command: F) -> F:
    """Adds --mode, the rule by which results become codes."""
    return click.option(
        "--mode",
        type=click.Choice(["ort", "tflite-single", "tflite-double"]),
        default="ort",
        show_default=True,
        help="How results become codes: as in onnxruntime, or in TFLite's fixed point, rounded once or twice.",
    )(command)


def label_option(command: F) -> F:
    """Adds --label-key to a command that reads labels."""
    return click.option(
        "--label-key", metavar="NAME", help="Array that holds the labels; by default y, label or labels."
    )(command)


def load_data(
    inputs: "Sequence[TensorSpec]", data: str, rows: str | None, prep: str | None, label_key: str | None = None
) -> "Samples":
    """The samples that the options name, for a model with these inputs."""
    from zc.data import load_samples

    return load_samples(data, inputs, rows=rows, prep=prep, label_key=label_key)


def load_plugins(paths: Sequence[str]) -> list[Path]:
    """Make the passes of plugin files known."""
    from zc.pipeline.registry import load_plugin

    for path in paths:
        load_plugin(path)
    return [Path(p) for p in paths]


def plugin_option(command: F) -> F:
    """Adds --plugin FILE, which may be repeated."""
    return click.option(
        "--plugin", "plugins", multiple=True, metavar="FILE.py", help="Python file with passes of your own; repeatable."
    )(command)


def target_option(command: F) -> F:
    """Adds --target and --shape, which arrive as target and shapes."""
    for option in (
        click.option(
            "--shape",
            "shapes",
            multiple=True,
            metavar="INPUT=SIZES",
            help="Fix the shape of an input first, as input=1,3,224,224; repeatable.",
        ),
        click.option(
            "--target",
            metavar="TARGET",
            help="Place of deployment, with its options: ort-cpu, ort-cpu/avx2, NAME:option=value. By default what the "
            "ending of -o says, else ort-cpu. `zc targets` lists them.",
        ),
    ):
        command = option(command)
    return command


def apply_shapes(model: "Model", texts: tuple[str, ...]) -> None:
    """Fix the shapes of inputs that --shape names."""
    from zc.cli.dims import shapes
    from zc.ir.bind import fix_shapes

    if texts:
        fix_shapes(model, shapes(texts))
