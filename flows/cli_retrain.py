"""`retrain NAME`: train a model again on what is new."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.environment import has_server, prepare
from flows.output import print_json, visible
from stillhouse.errors import UserError
from stillhouse.home import find_home, make_home

if TYPE_CHECKING:
    from flows.retraining import Ask
    from flows.triggers import Trigger

NOT_SHOWN = ("recipe", "code", "labels")
"""Of a trigger: long, and in its file."""


def add_commands(app: typer.Typer) -> None:
    app.command()(retrain)


def retrain(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A registered model.")],
    landing: Annotated[str, typer.Option(help="Folder or URL of new files; else landing/NAME of the home.")] = "",
    min_rows: Annotated[int, typer.Option(min=1, help="Do nothing below so many new rows.")] = 1,
    cooldown_hours: Annotated[float, typer.Option(min=0, help="Hours between two retrainings, at least.")] = 0.0,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Every stage, not from the champion.")] = False,
    new_labels: Annotated[str, typer.Option(help="Unknown labels that arrive: set-aside or grow.")] = "set-aside",
    unlabelled: Annotated[str, typer.Option(help="Texts without a label: ignore or extra.")] = "ignore",
    promote: Annotated[bool, typer.Option(help="Make what passes the gate the champion.")] = True,
    recipe: Annotated[str, typer.Option(metavar="RECIPE", help="Another recipe than the champion's own.")] = "",
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Give up what was begun and is not over; decide anew.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why; it is kept with the trigger.")] = "by hand",
    local: Annotated[bool, typer.Option("--local", help="Without Prefect.")] = False,
    history: Annotated[bool, typer.Option("--list", help="Only list the retrainings so far.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Take in what arrived and train the model again, from the champion; with nothing new, say so.

    After a kill the same command goes on with what was begun. Exit 3 when the gate refuses the new model.

    Example: stillhouse retrain opinions --min-rows 200
    """
    for option, value, allowed in (
        ("--new-labels", new_labels, ("set-aside", "grow")), ("--unlabelled", unlabelled, ("ignore", "extra")),
    ):  # fmt: skip
        if value not in allowed:
            raise UserError(f"{option} is {value!r}", f"allowed: {', '.join(allowed)}")
    home = make_home(find_home())
    prepare(home)
    if history:
        _list(home, name, as_json)
        return
    from flows.retrain_text import describe
    from flows.retraining import Ask

    ask = Ask(
        name, reason, landing, min_rows, cooldown_hours, from_scratch, new_labels, unlabelled, promote,  # type: ignore[arg-type]
        recipe, local, abandon=abandon,
    )  # fmt: skip
    trigger = _do(ask, home)
    if as_json:
        print_json({key: value for key, value in trigger.items() if key not in NOT_SHOWN})
    else:
        print("\n".join(map(visible, describe(trigger))))
    if trigger["state"] == "refused":
        raise typer.Exit(3)


def _do(ask: "Ask", home: Path) -> "Trigger":
    """With a server as a flow run of its own; else only what there is to run, if anything, starts Prefect."""
    from flows.cli import OPEN
    from flows.terminal import Terminal

    terminal = Terminal(home)
    OPEN.append(terminal)
    try:
        if has_server() and not ask.local:
            from flows.retrain import retrain_with_prefect

            return retrain_with_prefect(ask, home, terminal)
        from flows.recipe_run import run_request
        from flows.retraining import retrain_model

        return retrain_model(ask, home, terminal, lambda request: run_request(request, home, terminal))
    finally:
        terminal.close()


def _list(home: Path, name: str, as_json: bool) -> None:
    from flows.retrain_text import history_line
    from flows.triggers import read_triggers

    triggers = read_triggers(home, name)
    if as_json:
        print_json([{key: value for key, value in one.items() if key not in NOT_SHOWN} for one in triggers])
        return
    for trigger in triggers:
        print(visible(history_line(trigger)))
    if not triggers:
        print(f"{name} was not retrained yet")
