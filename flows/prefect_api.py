"""The few questions that `up` asks a Prefect server: over plain HTTP, so that it need not import prefect."""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.alerts import credentials
from tasks.running_up import POOL, WORKER

TIMEOUT_SECONDS = 30.0
HEALTH_SECONDS = 3.0
"""For an answer that only says that a server is well: `up` asks again soon."""
PAUSES = (0.5, 1.0, 2.0, 4.0)
LIMIT = 200
"""Prefect gives at most so many flow runs at once."""


def ask(api: str, path: str, body: Any = None, method: str = "POST", timeout: float = TIMEOUT_SECONDS) -> Any:
    """The JSON answer of `api`/`path`; raises OSError when there is none or it is an error.

    503 is how the server says that its database was busy: asked again, as Prefect's own client does. An answer that
    breaks off is no answer.
    """
    data = None if method == "GET" else json.dumps(body if body is not None else {}).encode()
    headers = {"Content-Type": "application/json", **credentials()}
    request = urllib.request.Request(f"{api}/{path}", data=data, headers=headers, method=method)
    for pause in (*PAUSES, None):
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                content = response.read()
                return json.loads(content) if content else None
        except urllib.error.HTTPError as error:
            if error.code != 503 or pause is None:
                raise
            time.sleep(pause)
        except http.client.HTTPException as error:
            raise OSError(f"{api} broke off: {error!r}") from error


def make_pool(api: str, template: dict[str, Any], home: Path) -> None:
    """The work pool, with the job template of this release, its runs in `home` unless a deployment says otherwise; the
    pool's limit, and whether it is paused, stay as they are."""
    template["variables"]["properties"]["working_dir"]["default"] = str(home)
    try:
        ask(api, "work_pools/", {"name": POOL, "type": "process", "base_job_template": template})
    except urllib.error.HTTPError as error:
        if error.code != 409:  # it is there already
            raise
        ask(api, f"work_pools/{POOL}", {"base_job_template": template}, method="PATCH")


def offer_recipes(api: str, names: list[str]) -> None:
    """Make `names` the choices of recipes in the form of the deployment `train`."""
    found = ask(api, "deployments/name/train/train", method="GET")
    schema = found["parameter_openapi_schema"]
    if schema["properties"]["recipe"].get("enum") != names:
        schema["properties"]["recipe"]["enum"] = names
        ask(api, f"deployments/{found['id']}", {"parameter_openapi_schema": schema}, method="PATCH")


def worker_is_online(api: str, name: str, since: datetime) -> bool:
    """The worker `name` of the pool has said so after `since`."""
    for worker in ask(api, f"work_pools/{POOL}/workers/filter", timeout=HEALTH_SECONDS):
        heartbeat = worker.get("last_heartbeat_time")
        if worker["name"] == name and heartbeat and datetime.fromisoformat(heartbeat) >= since:
            return worker["status"] == "ONLINE"
    return False


def mend_flow_runs(api: str, alive: Callable[[], set[str]], states: tuple[str, ...]) -> list[str]:
    """Say what became of the pool's flow runs in `states` that no process executes; `alive` tells which ones have one.

    One that never began is scheduled again; one that began has crashed, or is cancelled if that was asked for. What
    another worker took is let alone. Call it with PENDING only while no worker runs: a worker's process for such a run
    may be just about to start. A process is there before its run is RUNNING, so the server is asked first; a run that
    ended meanwhile is told by asking again, and by the server, which keeps a final state.
    """
    question = {
        "flow_runs": {"state": {"type": {"any_": list(states)}}},
        "work_pools": {"name": {"any_": [POOL]}}, "limit": LIMIT,
    }  # fmt: skip
    found = {run["id"] for run in ask(api, "flow_runs/filter", question) if _is_ours(run)}
    lost = found - alive() if found else set()
    mended = []
    for run in lost:
        state = ask(api, f"flow_runs/{run}", method="GET")["state_type"]
        if state in states:
            change = {"state": _state_after(state), "force": state == "PENDING"}
            if ask(api, f"flow_runs/{run}/set_state", change)["status"] == "ACCEPT":
                mended.append(run)
    return mended


def _is_ours(run: dict[str, Any]) -> bool:
    """No other worker has taken it: each labels what it takes with its name."""
    return (run.get("labels") or {}).get("prefect.worker.name", WORKER) == WORKER


def _state_after(state: str) -> dict[str, Any]:
    if state == "PENDING":
        now = datetime.now(UTC).isoformat()
        message = "its worker ended before it began"
        return {"type": "SCHEDULED", "name": "Scheduled", "message": message, "state_details": {"scheduled_time": now}}
    if state == "CANCELLING":
        return {"type": "CANCELLED", "name": "Cancelled", "message": "its process has ended"}
    return {"type": "CRASHED", "name": "Crashed", "message": "its process ended without a word"}
