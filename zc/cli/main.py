"""The `zc` command: finds the subcommand, and turns errors into one line and an exit code."""

import importlib
import os
import sys

import click

COMMANDS = {
    "opt": "Run a pipeline of passes on a model and write the result.",
    "emit": "Write a model as the artifact of a place of deployment.",
    "check": "Hold a model against the rules of a place of deployment.",
    "targets": "List the places of deployment, or explain one.",
    "parity": "Compare one model at several places of deployment.",
    "print": "Print a model as canonical text.",
    "diff": "Show how two models differ.",
    "passes": "List the passes, or explain one.",
    "stats": "Count parameters, MACs, bytes and operators.",
    "eval": "Measure the accuracy of models on data.",
    "compare": "Show where the values inside two models part.",
    "groups": "Show which channels prune may remove together, and what they cost.",
    "sensitivity": "Rank layers by what quantising them costs.",
    "bench": "Measure the latency of models side by side.",
    "run": "Run a model on data and write the outputs.",
    "verify": "Compare a quantised model's codes with onnxruntime's or LiteRT's.",
    "replay": "Make a written model again and compare.",
}


class _Commands(click.Group):
    """Imports a command's module only when it is called or asked for help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"zc.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        command.name = cmd_name
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from zc.errors import nearest

            raise click.UsageError(f"no command '{args[0]}'{nearest(args[0], list(COMMANDS))}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`zc COMMAND --help` explains a command, with examples.",
)
@click.option("--debug", is_flag=True, envvar="ZC_DEBUG", help="Show a traceback on errors.")
@click.version_option(package_name="zc", prog_name="zc", message="%(prog)s %(version)s")
def cli(debug: bool) -> None:
    """A compiler for trained ONNX models: smaller, faster, accuracy kept, every step proven or measured.

    \b
    zc opt model.onnx -p prune,quantize --calib samples.npz -o out.onnx
    zc diff model.onnx out.onnx
    zc bench model.onnx out.onnx
    """
    if debug:
        os.environ["ZC_DEBUG"] = "1"


def entry() -> None:
    """Run the command line. Exit: 0 done, 1 differs or a check failed, 2 wrong input or command, 3 gate missed."""
    try:
        code = cli.main(prog_name="zc", standalone_mode=False)
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.exceptions.NoArgsIsHelpError as err:
        click.echo(err.format_message(), err=True)
        code = 2
    except click.ClickException as err:
        _say(err.format_message())
        if isinstance(err, click.UsageError) and err.ctx is not None:
            click.echo(f"Try '{err.ctx.command_path} --help'.", err=True)
        code = 2
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted; nothing was written")
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as err:
        code = _failed(err)
    sys.exit(code if isinstance(code, int) else 0)


def _failed(err: Exception) -> int:
    from zc.errors import ZcError

    if os.environ.get("ZC_DEBUG"):
        import traceback

        traceback.print_exc()
    if isinstance(err, ZcError):
        _say(str(err))
        return err.exit_code
    _say(f"unexpected {type(err).__name__}: {err}; run with --debug for the traceback")
    return 1


def _say(text: str) -> None:
    click.echo(f"zc: {' '.join(text.split())}", err=True)
