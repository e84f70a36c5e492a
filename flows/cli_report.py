"""`report`: one HTML file about a model or a run."""

from pathlib import Path
from typing import Annotated

import typer

from flows.environment import prepare
from flows.output import print_json
from stillhouse.home import find_home


def add_commands(app: typer.Typer) -> None:
    app.command()(report)


def report(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_MODEL",
            help="A model (name, name@alias, name/version), the newest run of a recipe (name@latest, or its "
            "YAML file), or the beginning of an artifact's key.",
        ),
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="HTML file to write.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Write all about a model or a run into one HTML file. It needs no network and prints well.

    Example: stillhouse report opinions -o opinions.html
    """
    from flows.report import write_report

    home = find_home()
    prepare(home)
    path = write_report(home, spec, output)
    if as_json:
        print_json({"report": str(path), "bytes": path.stat().st_size})
    else:
        print(path)
