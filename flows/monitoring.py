"""A monitor run from the words of a command or a form, without Prefect."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.moments import moment
from stillhouse.errors import UserError, nearest
from stillhouse.monitor.settings import MonitorSettings
from tasks.monitoring import monitor_model


def run_monitor(home: Path, name: str, since: str, until: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The line of the history that a run with these settings makes."""
    begin, end = moment(since, "since"), moment(until, "until")
    if begin is not None and end is not None and begin >= end:
        raise UserError(f"since {since} is not before until {until}", "Exchange them: 7d is earlier than 1d")
    return monitor_model(home, name, made(settings), begin, end)


def parse_settings(given: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` as settings, checked; of `surge_labels` the values are separated by commas."""
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if name in MonitorSettings.model_fields and not equals:
            raise UserError(f"--set {text} has no value", f"Write --set {text}=VALUE")
        if name not in MonitorSettings.model_fields:
            raise UserError(
                f'--set {text}: there is no setting "{name}"', nearest(name, set(MonitorSettings.model_fields))
            )
        found[name] = tuple(value.split(",")) if name == "surge_labels" else value
    whole = made(found).model_dump()
    return {name: whole[name] for name in found}


def made(settings: dict[str, Any]) -> MonitorSettings:
    """Raises `UserError` for a value that is none."""
    try:
        return MonitorSettings(**settings)
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(str(part) for part in wrong["loc"])
        raise UserError(f"{place}: {wrong['msg']}", "See stillhouse monitor --help") from None
