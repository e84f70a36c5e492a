"""The report at the end of a run: written beside the store, logged to MLflow, linked from the run's page."""

from pathlib import Path
from typing import Any

from flows.report import KINDS, default_path, report_of
from flows.request import Result
from pipelines.plan import Plan
from stillhouse.events import emit
from stillhouse.files import read_json, write_json

TITLE = "Report"


def add_report(result: Result, plan: Plan, home: Path, run_id: str | None) -> None:
    """Set `result.report`, and a link where an MLflow server shows it. Never raises: the run is done.

    `run_id` is the MLflow run; None when all came from the store: then the report of before still stands.
    """
    key = next((step.key for kind in KINDS for step in plan.steps if step.kind == kind), None)
    if key is None:
        return
    path = default_path(home, key, Path(plan.recipe.registered_name).name)
    try:
        logged = path.with_suffix(".json")  # in which MLflow run it is
        if run_id is not None or not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            states = {step["key"]: step["state"] for step in result.steps}
            report_of(home, key, path, *_registered(home, result.model), states)
            _log(home, run_id, path, logged)
        address = _address(home, logged)
    except Exception as error:  # nothing that goes wrong here may cost a finished run
        emit(home, "report.failed", key=key, error=f"{type(error).__name__}: {error}")
        return
    result.report = address or str(path)
    if address:
        result.links.append((TITLE, address))


def _registered(home: Path, model: dict[str, Any] | None) -> tuple[dict[str, Any] | None, Path | None]:
    from flows.report import find_subject

    if not model:
        return None, None
    _, found, bundle = find_subject(home, f"{model['name']}/{model['version']}")
    return found, bundle


def _log(home: Path, run_id: str | None, path: Path, logged: Path) -> None:
    from tasks.report_log import log_report

    experiment = log_report(home, run_id, path) if run_id else ""
    if experiment:
        write_json(logged, {"experiment": experiment, "run": run_id})


def _address(home: Path, logged: Path) -> str:
    from tasks.report_log import report_address

    if not logged.is_file():
        return ""
    found = read_json(logged)
    return report_address(home, found["experiment"], found["run"])
