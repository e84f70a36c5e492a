"""The three processes of `up`: how each is started, what it may do, and when it is healthy. All on loopback."""

import http.client
import os
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flows.environment import QUIET
from flows.marked import MARK
from flows.ports import HOST, Ports
from flows.prefect_api import HEALTH_SECONDS, ask, worker_is_online
from stillhouse.home import VARIABLE
from tasks.mlflow_home import ARTIFACTS, DATABASE
from tasks.mlflow_home import QUIET as QUIET_MLFLOW
from tasks.running_up import POOL, WORKER

RUNS_AT_ONCE = 10
"""Flow runs that the worker has going at once; heavy steps wait for the machine's lock all the same."""
BRIDGE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "6", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}
"""A run outlives the restart of the MLflow server: it asks again for about a minute."""


@dataclass(frozen=True)
class Service:
    """One process to keep alive. `healthy` is asked with the time it was started at."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    healthy: Callable[[datetime], bool]


def prefect_address(ports: Ports) -> str:
    return f"http://{HOST}:{ports.prefect}"


def mlflow_address(ports: Ports) -> str:
    return f"http://{HOST}:{ports.mlflow}"


def environment(home: Path, ports: Ports) -> dict[str, str]:
    """What every process below `up` finds: the home, the addresses, quiet settings, the mark to end it by."""
    given = {
        VARIABLE: str(home), MARK: str(home),
        "PREFECT_API_URL": f"{prefect_address(ports)}/api", "MLFLOW_TRACKING_URI": mlflow_address(ports),
        # Log lines of flow runs belong on their pages.
        "PREFECT_LOGGING_LEVEL": "INFO", "PREFECT_SERVER_LOGGING_LEVEL": "WARNING", "PREFECT_LOGGING_COLORS": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false", "PREFECT_WORKER_WEBSERVER_HOST": HOST,
        "PREFECT_WORKER_QUERY_SECONDS": "2", "PYTHONUNBUFFERED": "1", **BRIDGE,
    }  # fmt: skip
    return {**QUIET, **QUIET_MLFLOW, "PREFECT_HOME": str(home / "prefect"), **os.environ, **given}


def services(home: Path, ports: Ports) -> list[Service]:
    """Prefect server, MLflow server, worker: in the order of their start."""
    return [_prefect_server(home, ports), _mlflow_server(home, ports), _worker(home, ports)]


def _prefect_server(home: Path, ports: Ports) -> Service:
    origins = f"{prefect_address(ports)},http://localhost:{ports.prefect}"
    own = {
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origins,  # by default any page in the browser may ask this API
        "PREFECT_SERVER_UI_API_URL": f"{prefect_address(ports)}/api",
        # By default the built pages go into the installed package, which others may use at the same time.
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "prefect" / "pages"),
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60", "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
        "PREFECT_SERVER_LOG_RETRYABLE_ERRORS": "true",  # a busy database is told in the log, and to clients as 503
    }  # fmt: skip
    api = f"{prefect_address(ports)}/api"
    command = ["prefect", "server", "start", "--host", HOST, "--port", str(ports.prefect), "--analytics-off"]
    return Service(
        "Prefect server", _module(command), {**environment(home, ports), **own}, home / "logs" / "prefect-server.log",
        lambda since: _answers(lambda: ask(api, "health", method="GET", timeout=HEALTH_SECONDS) is True),
    )  # fmt: skip


def _mlflow_server(home: Path, ports: Ports) -> Service:
    here = f"{HOST}:{ports.mlflow},localhost:{ports.mlflow}"
    command = [
        "mlflow", "server", "--host", HOST, "--port", str(ports.mlflow), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{home / DATABASE}",
        # Files are written by the clients themselves, where a run without a server puts them too.
        "--no-serve-artifacts", "--default-artifact-root", (home / ARTIFACTS).as_uri(),
        "--allowed-hosts", here, "--cors-allowed-origins", f"http://{HOST}:{ports.mlflow},http://localhost:{ports.mlflow}",
    ]  # fmt: skip
    own = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    given = {**environment(home, ports), **own}
    del given["MLFLOW_TRACKING_URI"]  # it is the server
    return Service(
        "MLflow server", _module(command), given, home / "logs" / "mlflow-server.log",
        lambda since: _answers(lambda: _get(f"{mlflow_address(ports)}/health") == b"OK"),
    )  # fmt: skip


def _worker(home: Path, ports: Ports) -> Service:
    command = ["prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", WORKER]
    command += ["--limit", str(RUNS_AT_ONCE), "--install-policy", "never"]
    api = f"{prefect_address(ports)}/api"
    return Service(
        "worker", _module(command), environment(home, ports), home / "logs" / "flow-runs.log",
        lambda since: _answers(lambda: worker_is_online(api, WORKER, since)),
    )  # fmt: skip


def _module(command: list[str]) -> list[str]:
    # -P: a csv.py or random.py in the working directory is not a module of theirs.
    return [sys.executable, "-P", "-m", *command]


def _answers(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except (OSError, ValueError, http.client.HTTPException):
        return False


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=HEALTH_SECONDS) as response:
        return response.read()


def now() -> datetime:
    return datetime.now(UTC)


def shipped(name: str) -> Path:
    """A file of `deployments/`: in an installed package below `flows`, in a checkout beside it."""
    packaged = Path(__file__).parent / "deployments" / name
    return packaged if packaged.exists() else Path(__file__).parents[1] / "deployments" / name
