"""What Prefect and MLflow must find in the environment before they are imported."""

import os
from pathlib import Path

from stillhouse.errors import UserError
from tasks.running_up import running

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # Spans for Prefect Cloud; each run would also read and write its labels in one SQLite transaction, which fails at
    # once when another run wrote in between (19 times for ten runs at once).
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_SERVER_UI_V2_ENABLED": "false",  # its pages call an analytics service, whatever the settings say (3.8.8)
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def prepare(home: Path) -> None:
    """Keep both quiet and inside the home, or at the servers of its `up`; a user's own setting stays."""
    quieten(home)
    up = running(home)
    if up:
        os.environ.setdefault("PREFECT_API_URL", up["api"])
        os.environ.setdefault("MLFLOW_TRACKING_URI", up["mlflow"])


def quieten(home: Path) -> None:
    """The same without looking for servers."""
    os.environ.setdefault("STILLHOUSE_HOME", str(home))
    os.environ.setdefault("PREFECT_HOME", str(home / "prefect"))
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def check_prefect_database() -> None:
    """Said at once and in one line: on a broken database Prefect's own server would fail to start, minutes later."""
    path = Path(os.environ["PREFECT_HOME"]) / "prefect.db"
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except FileNotFoundError:
        return
    except OSError as error:
        start = str(error.strerror).encode()
    if start not in (b"", b"SQLite format 3\0"):
        fix = "Move it away (it holds the history of runs, no results), or use --local"
        raise UserError(f"the Prefect database {path} cannot be read", fix)


def has_server() -> bool:
    """A Prefect server was named: runs are to be recorded there, cached or not."""
    return bool(os.environ.get("PREFECT_API_URL"))
