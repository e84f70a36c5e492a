"""The report of a run, kept with the run in MLflow, and where a browser finds it there."""

from pathlib import Path

from stillhouse.events import emit
from tasks.links import web_address
from tasks.mlflow_home import open_client

NAME = "report.html"


def log_report(home: Path, run_id: str, path: Path) -> str:
    """Keep the file as `report.html` of the run; the id of the run's experiment, "" if MLflow cannot be written.

    Never raises: a report is worth no failed training.
    """
    try:
        client = open_client(home)
        client.log_text(run_id, path.read_text(encoding="utf-8"), NAME)
        return client.get_run(run_id).info.experiment_id
    except Exception as error:  # whatever MLflow, its database or its server may raise
        first_line = (str(error).splitlines() or [""])[0]
        emit(home, "tracking.failed", where="log_report", error=f"{type(error).__name__}: {first_line}")
        return ""


def report_address(home: Path, experiment: str, run_id: str) -> str:
    """The page of an MLflow server that shows a run's report; "" where MLflow is a database without a server."""
    base = web_address(home)
    if base is None:
        return ""
    return f"{base}/#/experiments/{experiment}/runs/{run_id}/artifacts/{NAME}"
