"""The command line: `stillhouse --help`."""

import errno
import json
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows import (
    cli_catalog,
    cli_data,
    cli_models,
    cli_monitor,
    cli_predict,
    cli_report,
    cli_retrain,
    cli_store,
    cli_up,
)
from flows.environment import prepare
from flows.interrupt import CODE, stop_on_signals
from flows.output import print_json
from flows.request import Request, Result
from stillhouse.errors import StillhouseError
from stillhouse.home import find_home

if TYPE_CHECKING:
    from flows.terminal import Terminal

app = typer.Typer(
    name="stillhouse", no_args_is_help=True, add_completion=False, rich_markup_mode=None,
    pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
    help="From labelled text to a small, fast, registered language model: one cached, resumable pipeline.",
)  # fmt: skip

OPEN: list["Terminal"] = []
"""Bars on the screen, to be taken away when a signal ends the process."""

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe's name, shipped or in HOME/recipes, or a YAML file.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STEP.KEY=VALUE", help="Change one setting; also seed=N. Repeatable."),
]
Until = Annotated[str | None, typer.Option(metavar="STEP", help="Stop after this step.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")]


def _version(asked: bool) -> None:
    if asked:
        print(f"stillhouse {metadata.version('stillhouse')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """State lives in $STILLHOUSE_HOME, else the nearest .stillhouse/ upward, else a new one here."""
    if debug:
        os.environ["STILLHOUSE_DEBUG"] = "1"


@app.command()
def run(
    recipe: RecipeName,
    overrides: Overrides = None,
    until: Until = None,
    rebuild: Annotated[list[str] | None, typer.Option(metavar="STEP", help="Build this step again.")] = None,
    local: Annotated[bool, typer.Option("--local", help="Without Prefect.")] = False,
    promote: Annotated[bool, typer.Option(help="Make what passes the gate the champion.")] = True,
    as_json: Json = False,
) -> None:
    """Run a recipe; what the store already has is not done again.

    Example: stillhouse run opinions --set student.layers=2
    """
    from flows.recipe_run import run_request
    from flows.terminal import Terminal

    home = find_home()
    prepare(home)
    request = Request(recipe, overrides or [], until, rebuild or [], promote, local)
    terminal = Terminal(home)
    OPEN.append(terminal)
    try:
        result = run_request(request, home, terminal)
    finally:
        terminal.close()
    if as_json:
        print_json(result.as_json())
    else:
        _show(result, recipe, home)
    if result.refusal:
        raise typer.Exit(3)


def _show(result: Result, recipe: str, home: Path) -> None:
    from flows.summary import next_commands, rung_rows
    from flows.terminal import show_result

    show_result(result, rung_rows(result, home), next_commands(result, recipe), Console(highlight=False))


@app.command()
def plan(
    recipe: RecipeName,
    overrides: Overrides = None,
    until: Until = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say why each step would run.")] = False,
    as_json: Json = False,
) -> None:
    """Show every step, its key, and whether the store has it. Changes nothing.

    Example: stillhouse plan opinions --set int8.accept_loss=0.005 --explain
    """
    from flows.recipe_run import plan_request
    from pipelines.explain import explain as reasons_of
    from stillhouse.store import Store

    home = find_home()
    prepare(home)
    made = plan_request(Request(recipe, overrides or [], until), home)
    reasons = reasons_of(made, Store(home)) if explain or as_json else {}
    steps = [
        {
            "name": step.name, "uses": step.uses, "key": step.key, "state": "hit" if step.hit else "miss",
            "why": reasons.get(step.name, ""),
        }
        for step in made.steps
    ]  # fmt: skip
    if as_json:
        print_json({"recipe": made.recipe.name, "steps": steps})
        return
    width = max(len(step["uses"]) for step in steps)
    for step in steps:
        what = f"{step['name']:<12} {step['uses']:<{width}} {step['key'][:12]}"
        print(f"{what}  {step['state']:<5} {step['why']}".rstrip())


cli_catalog.add_commands(app)
cli_data.add_commands(app)
cli_predict.add_commands(app)
cli_models.add_commands(app)
cli_monitor.add_commands(app)
cli_retrain.add_commands(app)
cli_report.add_commands(app)
cli_store.add_commands(app)
cli_up.add_commands(app)


def main() -> None:
    """Entry point: exit codes 0, 1, 2, 3 and 130, one clear line for an error."""
    stop_on_signals(_say_interrupted)
    try:
        code = app(standalone_mode=False, prog_name="stillhouse")
    except StillhouseError as error:
        code = _fail(error.code, error.message, error.fix, error)
    except BrokenPipeError:
        code = 0
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except Exception as error:
        code = _unforeseen(error)
    sys.exit(_flushed(code if isinstance(code, int) else 0))


def _flushed(code: int) -> int:
    """`code`, or 1 when the output could not be written; a closed output is nobody's mistake."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
        return code or 1
    return code


def _say_interrupted() -> None:
    for terminal in OPEN:
        terminal.close()
    _fail(CODE, "interrupted; nothing is lost", "Type the same command again to go on where it was")


def _unforeseen(error: Exception) -> int:
    from typer.exceptions import TyperException

    if isinstance(error, TyperException):
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())
            return 2
        command = context.command_path if context else "stillhouse"
        return _fail(2, error.format_message().rstrip("."), f"See {command} --help")
    if isinstance(error, RuntimeError) and str(error).startswith("Failed to reach API"):  # Prefect has no class for it
        address = os.environ.get("PREFECT_API_URL", "")
        return _fail(2, f"the Prefect server {address} does not answer", "Start it, or unset PREFECT_API_URL", error)
    if isinstance(error, PermissionError):
        return _fail(2, f"no permission for {error.filename}", "Make it readable and writable", error)
    if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR):
        return _fail(2, f"{str(error.filename)[:80]}: {error.strerror}", "Name another path", error)
    return _fail(1, f"{type(error).__name__}: {error}", "Run with --debug (before the command) to see where", error)


def _fail(code: int, message: str, fix: str, error: Exception | None = None) -> int:
    if error is not None and os.environ.get("STILLHOUSE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if "--json" in sys.argv:
        print(json.dumps({"error": {"code": code, "message": message, "fix": fix}}))
    print(f"error: {message}" + (f"\n  {fix}" if fix else ""), file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
