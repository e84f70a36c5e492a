"""Events on a real Prefect server: automations that start a retraining or call a webhook, each exactly once."""

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from flows.prefect_api import ask
from stillhouse.errors import UserError
from tasks.alerts import tell
from tasks.automations import ensure_automations

pytestmark = pytest.mark.slow
QUIET_SECONDS = 3.0
"""After the first call: a second one would have come."""


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.headers["Content-Type"], json.loads(body)))  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def receiver() -> Iterator[http.server.HTTPServer]:
    made = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
    made.got = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture(scope="module")
def api(tmp_path_factory) -> Iterator[str]:
    """A Prefect server that calls a run late after a second."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("prefect")
    environment = {
        **os.environ, "PREFECT_HOME": str(home), "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "1",
        "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "1",
    }  # fmt: skip
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}/api"
    try:
        wait(lambda: healthy(address), 420, lambda: (home / "log").read_text())
        yield address
    finally:
        process.terminate()
        process.wait(30)


def healthy(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def wait(until: Callable[[], Any], seconds: float, why: Callable[[], object] = lambda: "") -> Any:
    deadline = time.monotonic() + seconds
    while True:
        found = until()
        if found:
            return found
        assert time.monotonic() < deadline, why()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def deployments(api) -> dict[str, str]:
    """`retrain/retrain` of ours, and a stranger's deployment; no worker takes their runs."""
    made = {}
    for name, tags in (("retrain", ["stillhouse"]), ("stranger", [])):
        flow = ask(api, "flows/", {"name": name})["id"]
        made[name] = ask(api, "deployments/", {"name": name, "flow_id": flow, "tags": tags})["id"]
    return made


@pytest.fixture
def calls(api, receiver, deployments, monkeypatch) -> Callable[..., list[dict]]:
    """The bodies of an event that the webhook got: waits for so many, and a little for more."""
    monkeypatch.setenv("PREFECT_API_URL", api)
    ensure_automations(api, f"http://127.0.0.1:{receiver.server_port}/alerts", late_seconds=10)
    time.sleep(2)  # until the server's triggers know them
    receiver.got.clear()

    def got(event: str, count: int = 1) -> list[dict]:
        def bodies() -> list[dict]:
            return [body for _, body in receiver.got if body["event"] == event]

        wait(lambda: len(bodies()) >= count, 60, lambda: receiver.got)
        time.sleep(QUIET_SECONDS)
        assert all(kind == "application/json" for kind, _ in receiver.got)
        return bodies()

    return got


def test_a_surge_reaches_the_webhook_once_with_all_that_matters(calls, tmp_path):
    tell(
        tmp_path, "surge", "opinions", topic='bags "lost"', label="negative", share=0.6, expected=0.3,
        reason="negative rose from 30% to 60% in bags",
    )  # fmt: skip
    (body,) = calls("stillhouse.surge")
    assert body["model"] == "opinions" and body["topic"] == 'bags "lost"'
    assert body["reason"] == "negative rose from 30% to 60% in bags"
    assert body["figures"]["share"] == 0.6 and body["link"].startswith("http")
    assert datetime.fromisoformat(body["time"]).tzinfo is not None


def test_drift_starts_one_retraining_of_the_model_and_notifies(api, calls, deployments, tmp_path):
    tell(tmp_path, "drift", "opinions", reason="input drift: auc 0.83", alert_id="5b3f0a52-64d0-4cfd-a1d0-6d33b8d5f001")
    tell(tmp_path, "drift", "opinions", reason="input drift: auc 0.83", alert_id="5b3f0a52-64d0-4cfd-a1d0-6d33b8d5f001")
    (body,) = calls("stillhouse.drift")
    assert body["reason"] == "input drift: auc 0.83"
    (run,) = ask(api, "flow_runs/filter", {"deployments": {"id": {"any_": [deployments["retrain"]]}}})
    assert run["parameters"] == {"name": "opinions", "reason": "drift"}


def test_new_data_starts_a_retraining_and_notifies_nobody(api, calls, deployments, tmp_path):
    question = {"deployments": {"id": {"any_": [deployments["retrain"]]}}}
    before = {run["id"] for run in ask(api, "flow_runs/filter", question)}
    tell(tmp_path, "new-data", "news", version=4, rows=100)
    wait(lambda: len(ask(api, "flow_runs/filter", question)) > len(before), 60)
    (run,) = [run for run in ask(api, "flow_runs/filter", question) if run["id"] not in before]
    assert run["parameters"] == {"name": "news", "reason": "new-data"}
    assert calls("stillhouse.new-data", 0) == []


def test_a_failed_run_of_ours_notifies_and_a_strangers_does_not(api, calls, deployments):
    for name in ("stranger", "retrain"):
        run = ask(api, f"deployments/{deployments[name]}/create_flow_run", {"parameters": {"name": "opinions"}})["id"]
        state = {"type": "FAILED", "name": "Failed", "message": f'{name}: no "file"'}
        ask(api, f"flow_runs/{run}/set_state", {"state": state, "force": True})
    (body,) = calls("prefect.flow-run.Failed")
    assert body["reason"] == 'retrain: no "file"' and body["model"] == "opinions"
    assert body["figures"]["deployment"] == "retrain" and body["link"].startswith("http")


def test_a_run_that_no_worker_takes_notifies(api, calls, deployments):
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": datetime.now(UTC).isoformat()}}
    asked = {"parameters": {"name": "waiting"}, "state": state}
    ask(api, f"deployments/{deployments['retrain']}/create_flow_run", asked)

    def late() -> list[dict]:
        return [body for body in calls("prefect.flow-run.Late", 0) if body["model"] == "waiting"]

    (body,) = wait(late, 90)
    assert "waiting for 10 seconds" in body["reason"] and body["figures"]["state"] == "Late"


def test_a_run_without_heartbeats_has_crashed_and_one_that_waits_for_a_person_has_not(api, deployments, tmp_path):
    ensure_automations(api, "", silent_seconds=10)  # the least that Prefect takes
    time.sleep(2)  # until the server's triggers know it
    runs = {}
    for name in ("silent", "suspended"):
        run = ask(api, f"deployments/{deployments['retrain']}/create_flow_run", {})["id"]
        runs[name] = run
        ask(api, f"flow_runs/{run}/set_state", {"state": {"type": "RUNNING", "name": "Running"}, "force": True})
        related = [{"prefect.resource.id": "prefect.tag.stillhouse", "prefect.resource.role": "tag"}]
        beat = {
            "id": str(uuid.uuid4()), "occurred": datetime.now(UTC).isoformat(), "event": "prefect.flow-run.heartbeat",
            "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"}, "related": related, "payload": {},
        }  # fmt: skip
        ask(api, "events", [beat])
    time.sleep(1)
    state = {"type": "PAUSED", "name": "Suspended"}
    ask(api, f"flow_runs/{runs['suspended']}/set_state", {"state": state, "force": True})

    def state_of(name: str) -> str:
        return ask(api, f"flow_runs/{runs[name]}", method="GET")["state_type"]

    wait(lambda: state_of("silent") == "CRASHED", 90, lambda: state_of("silent"))
    time.sleep(QUIET_SECONDS)
    assert state_of("suspended") == "PAUSED"


def test_ensuring_again_changes_nothing_and_removing_removes(api, deployments, receiver):
    address = f"http://127.0.0.1:{receiver.server_port}/alerts"
    names = ensure_automations(api, address)
    first = {a["name"]: a for a in ask(api, "automations/filter")}
    assert sorted(first) == sorted(names) and len(names) == 5
    assert ensure_automations(api, None) == names, "without an address the notifications stay"
    again = {a["name"]: a for a in ask(api, "automations/filter")}
    assert {n: (a["id"], a["updated"]) for n, a in again.items()} == {
        n: (a["id"], a["updated"]) for n, a in first.items()
    }
    retrain = first["stillhouse: retrain"]["id"]
    httpx.patch(f"{api}/automations/{retrain}", json={"enabled": False}).raise_for_status()
    ensure_automations(api, "")
    left = {a["name"]: a["enabled"] for a in ask(api, "automations/filter")}
    assert left == {"stillhouse: retrain": False, "stillhouse: lost runs": True}, "what a user disabled stays so"
    with pytest.raises(UserError, match="neither https nor on this machine"):
        ensure_automations(api, "http://example.org/hook")
