"""`up`: Prefect server, MLflow server and a worker, one command."""

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from flows.environment import quieten
from flows.output import print_json
from stillhouse.home import find_home

if TYPE_CHECKING:
    from tasks.running_up import Addresses

Json = Annotated[bool, typer.Option("--json", help="Print the addresses as one JSON object on stdout.")]


def add_commands(app: typer.Typer) -> None:
    app.command()(up)


def up(
    prefect_port: Annotated[
        int | None, typer.Option(min=1, max=65535, metavar="PORT", help="Of the Prefect server [4200].")
    ] = None,
    mlflow_port: Annotated[
        int | None, typer.Option(min=1, max=65535, metavar="PORT", help="Of the MLflow server [5000].")
    ] = None,
    webhook: Annotated[
        str | None, typer.Option(metavar="URL", help="Where alerts are sent; also $STILLHOUSE_WEBHOOK_URL.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Start Prefect, MLflow and a worker for this home; keep them up until Ctrl-C.

    Example: stillhouse up
    """
    from flows.up import bring_up

    home = find_home()
    quieten(home)

    def say(line: str) -> None:
        with suppress(OSError):  # a terminal that was closed is no reason to end
            print(line, file=sys.stderr, flush=True)

    def ready(addresses: "Addresses", already: bool) -> None:
        if as_json:
            print_json({**addresses, "home": str(home), "already_up": already})
        else:
            print("already up:" if already else "up:")
            print(f"  runs    {addresses['prefect']}")
            print(f"  models  {addresses['mlflow']}")
            print(f"  home    {home}")
            if not already:
                print("Ctrl-C stops everything; what it knows is kept")
        sys.stdout.flush()

    raise typer.Exit(bring_up(home, {"prefect": prefect_port, "mlflow": mlflow_port}, webhook, say, ready))
