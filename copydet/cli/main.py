"""The command `copydet`: finds the sub-command, turns errors into one line and an exit code.

    0 done   1 failed   2 wrong use or bad input   3 done, images were skipped and --strict was given
    4 a check found problems   130 interrupted

Sub-commands are imported when they are asked for; none imports a heavy library before it runs, so that help answers at
once.
"""

import importlib
import os
import sys
import traceback

import click

from copydet.errors import CopydetError
from copydet.process import prepare_process

TRACEBACK = "COPYDET_TRACEBACK"

# In the order of use, which is the order of the help text.
COMMANDS = {
    "index": "copydet.cli.index",
    "match": "copydet.cli.match",
    "compare": "copydet.cli.compare",
    "dedup": "copydet.cli.dedup",
    "add": "copydet.cli.add",
    "remove": "copydet.cli.remove",
    "compact": "copydet.cli.compact",
    "tune": "copydet.cli.tune",
    "inspect": "copydet.cli.inspect",
    "doctor": "copydet.cli.doctor",
    "audit": "copydet.cli.audit",
    "evaluate": "copydet.cli.evaluate",
    "train": "copydet.cli.train",
}


class Commands(click.Group):
    """The table above as a click group: each module holds its command as `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name]).command
        return command


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"copydet {version('copydet')}")
        except PackageNotFoundError:
            click.echo("copydet, not installed but run from its source")
        ctx.exit()


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong use or bad input, 3 done but images were skipped (--strict), "
    "4 a check found problems, 130 interrupted.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
def copydet() -> None:
    """Find copies of images in large collections: index once, match any time, see the evidence.

    \b
    Example:
      copydet index photos/ --index photos.index
      copydet match suspects/ --index photos.index --output matches.csv --report matches.html
    """


def run(arguments: list[str] | None = None) -> int:
    """Run one command line (without the program's name; None: this process's) and return its exit code."""
    try:
        result = copydet.main(arguments, prog_name="copydet", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except BaseException as error:
        return _report(error)


def _report(error: BaseException) -> int:
    """Say in one line what went wrong; the exit code that belongs to it."""
    if isinstance(error, BrokenPipeError):
        # The reader (head, less) has gone: nothing to say, and Python's own flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    line, code = _line_and_code(error)
    click.echo(line, err=True)
    return code


def _line_and_code(error: BaseException) -> tuple[str, int]:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.format_message(), 2
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "copydet"
        return f"copydet: {_one_line(error.format_message())} (see {path} --help)", 2
    if isinstance(error, click.ClickException):
        return f"copydet: {_one_line(error.format_message())}", 2
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        return "copydet: interrupted; run the same command again to start over", 130
    if isinstance(error, CopydetError):
        return f"copydet: {_one_line(str(error))}", error.exit_code
    name = type(error).__name__
    return f"copydet: failed with {name}: {_one_line(str(error))} (set {TRACEBACK}=1 for the traceback)", 1


def _one_line(text: str) -> str:
    return " ".join(text.split())


def main() -> None:
    """Entry point of the installed command."""
    prepare_process()
    sys.exit(run())


if __name__ == "__main__":
    main()
