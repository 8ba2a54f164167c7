"""`zc opt`: run a pipeline on a model and write the result."""

from typing import Any

import click

from zc.cli.options import data_options, label_option, plugin_option, target_option


@click.command(short_help="Run a pipeline of passes on a model and write the result.")
@click.argument("model", metavar="MODEL.onnx")
@click.option("-p", "--passes", "pipeline", required=True, metavar="PIPELINE", help="Passes, as in the examples.")
@click.option(
    "-o",
    "--output",
    metavar="OUT.onnx",
    help="File to write; an ending other than .onnx is that of a target's artifact.",
)
@data_options("--calib", what="Calibration samples")
@target_option
@click.option(
    "--cpu",
    type=click.Choice(["vnni", "avx2", "auto"]),
    help="Kind of x86 processor: with an exact int8 dot product (vnni, the default), or weights that are exact without "
    "one (avx2); auto: as this machine's.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
@click.option(
    "--verify",
    type=click.Choice(["off", "structure", "numeric"]),
    default="numeric",
    show_default=True,
    help="Check after each pass: nothing; the graph; the graph and what it returns.",
)
@click.option("--eval", "eval_data", metavar="DATA", help="Measure accuracy before and after on these samples.")
@click.option("--eval-rows", metavar="A:B", help="Only these rows of --eval.")
@click.option("--metric", default="top1", show_default=True, help="Metric of --eval; see `zc eval --help`.")
@label_option
@click.option("--label-offset", default=0, help="Added to the labels of --eval (models with a background class: 1).")
@click.option(
    "--max-drop", metavar="DROP", help="With --eval: write nothing and exit 3 if the metric drops more (0.5%)."
)
@click.option(
    "--best-effort", is_flag=True, help="Where a goal cannot be reached, go as far as it gets, and write that."
)
@click.option("--external-data", is_flag=True, help="Put the weights into OUT.onnx.data.")
@click.option("--print-after", metavar="PASS|all|change", help="Print the graph after a pass, to stdout.")
@click.option("--dump-ir", metavar="DIR", help="Write the graph after each pass, one file a pass.")
@click.option("--timing", is_flag=True, help="Show how long each pass took.")
@click.option(
    "--bench/--no-bench", default=None, help="Time the result beside the input; by default after lossy passes."
)
@click.option("--json", "json_file", metavar="FILE", help="Write all figures and notes as JSON ('-': stdout).")
@click.option(
    "--repro", "repro", default=".", show_default=True, metavar="DIR", help="Where a failure's reproducer goes."
)
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors.")
@click.option("--dry-run", is_flag=True, help="Show the effective pipeline and stop.")
@plugin_option
def command(**options: Any) -> None:
    """Run a pipeline of passes on a model and write the result.

    The passes that others need are put before them; the effective pipeline is shown first. After each pass the graph is
    checked, and what it returns is compared with before: exact passes must not move it. `zc passes` lists the passes,
    `zc passes NAME` explains one.

    \b
    Examples:
      zc opt model.onnx -p clean -o small.onnx
      zc opt model.onnx -p quantize --calib samples.npz --calib-rows 0:256 -o int8.onnx
      zc opt model.onnx -p prune:ratio=0.3,quantize --calib images/ --prep imagenet -o out.onnx
      zc opt model.onnx -p 'quantize:skip=/head/*+/stem/conv' --calib samples.npz -o out.onnx
      zc opt model.onnx -p quantize --calib c.npz --eval test.npz --max-drop 0.5% -o out.onnx
      zc opt model.onnx -p quantize --calib c.npz -o out.ort   (what the target writes: see `zc targets`)
      zc opt model.onnx -p @release -o out.onnx          (from [pipelines] in zc.toml)
    """
    from zc.cli.optimize import Options, optimize

    optimize(Options(**options))
