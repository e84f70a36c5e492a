"""`monitor`: drift, quality and surges in a model's prediction log."""

from typing import Annotated, Any

import typer

from flows.environment import has_server, prepare
from flows.output import print_json, visible
from stillhouse.home import find_home, make_home


def add_commands(app: typer.Typer) -> None:
    app.command()(monitor)


def monitor(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A registered model.")],
    since: Annotated[
        str, typer.Option(metavar="WHEN", help="7d, 12h, 30m ago or a local time [what came since the last run].")
    ] = "",
    until: Annotated[str, typer.Option(metavar="WHEN", help="The same [the newest row].")] = "",
    topic: Annotated[str | None, typer.Option(metavar="COL", help="Column with the topic [topic].")] = None,
    surge_label: Annotated[
        list[str] | None, typer.Option(metavar="LABEL", help="Its rise is a surge [every label]. Repeatable.")
    ] = None,
    window_minutes: Annotated[
        float | None, typer.Option(metavar="N", help="Minutes in which labels are counted for surges [60].")
    ] = None,
    false_alarm_rate: Annotated[
        float | None, typer.Option(metavar="RATE", help="Share of steady runs that may raise an alarm [0.001].")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Another setting, as the flow has it.")
    ] = None,
    fail_on_alarm: Annotated[bool, typer.Option("--fail-on-alarm", help="Exit with 3 when there is an alarm.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Look for drift, lost quality and surges in what a model was asked since the last time.

    Example: stillhouse monitor opinions --since 7d --surge-label negative
    """
    home = find_home()
    prepare(home)
    make_home(home)
    given = {
        "topic": topic, "surge_labels": tuple(surge_label or ()) or None, "window_minutes": window_minutes,
        "false_alarm_rate": false_alarm_rate,
    }  # fmt: skip
    settings = {**_settings(setting or []), **{key: value for key, value in given.items() if value is not None}}
    line = _run(home, name, since, until, settings)
    if as_json:
        print_json({**line, "alarm": bool(line["alarms"])})
    else:
        from flows.monitor_text import text

        print("\n".join(map(visible, text(line))))
    if fail_on_alarm and line["alarms"]:
        raise typer.Exit(3)


def _run(home: Any, name: str, since: str, until: str, settings: dict[str, Any]) -> dict[str, Any]:
    from flows.monitoring import made, run_monitor

    made(settings)
    if has_server():
        from flows.monitor import monitor_with_prefect

        return monitor_with_prefect(name, since, until, settings)
    return run_monitor(home, name, since, until, settings)


def _settings(given: list[str]) -> dict[str, Any]:
    from flows.monitoring import parse_settings

    return parse_settings(given)
