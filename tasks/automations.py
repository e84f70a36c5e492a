"""Prefect automations of a server: events of a model start a retraining, alerts and lost runs call a webhook.

Plain HTTP, so that `up` need not import prefect. Everything is found again by its name and brought to what is written
here; an automation that a user disabled stays disabled.
"""

import ipaddress
import json
import os
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import httpx

from stillhouse.errors import UserError
from tasks.alerts import PREFIX, SECONDS, credentials

RETRAIN = "retrain/retrain"
BLOCK = "stillhouse-alerts"
TAG = "stillhouse"
"""What our deployments are tagged with; their flow runs inherit it."""
WEBHOOK = "STILLHOUSE_WEBHOOK_URL"
ALERTS = ("drift", "surge", "quality", "refused")
LATE_SECONDS = 600
"""Prefect calls a run late after 15 seconds, which any run is that waits for another one."""
SILENT_SECONDS = 600
"""Three heartbeats without one: its machine is gone."""
BUSY_SECONDS = (0.5, 1, 2, 4, 8)
STARTED = ("Pending", "Running", "Completed", "Failed", "Crashed", "Cancelled", "Cancelling", "Scheduled", "Paused")
"""What becomes of a run that was late."""
PREFIX_OF_NAMES = "stillhouse: "
NOTICES = ("notify of alerts", "notify of failed runs", "notify of late runs")
MODEL_BODY = """{
 "event": {{ event.event | tojson }},
 "model": {{ event.resource["prefect.resource.name"] | tojson }},
 "topic": {{ event.payload.topic | default(none) | tojson }},
 "reason": {{ event.payload.reason | default(event.event) | tojson }},
 "figures": {{ event.payload | tojson }},
 "time": {{ event.occurred | string | tojson }},
 "link": "UI/events/event/{{ (event.occurred | string)[:10] }}/{{ event.id }}"
}"""
RUN_BODY = """{
 "event": {{ event.event | tojson }},
 "model": {{ flow_run.parameters.name | default(none) | tojson }},
 "topic": null,
 "reason": {{ WHY }},
 "figures": {"flow": {{ flow.name | tojson }}, "deployment": {{ deployment.name | tojson }},
  "run": {{ flow_run.name | tojson }}, "state": {{ flow_run.state.name | tojson }}},
 "time": {{ event.occurred | string | tojson }},
 "link": "UI/runs/flow-run/{{ flow_run.id }}"
}"""


def ensure_automations(
    api: str, webhook: str | None = None, late_seconds: int = LATE_SECONDS, silent_seconds: int = SILENT_SECONDS
) -> list[str]:
    """Make or update the automations on the Prefect server at `api`; returns the names of those that are there now.

    `webhook` (by default `$STILLHOUSE_WEBHOOK_URL`) gets a POST for each alert; None leaves the notifications that
    there are, "" removes them. A retraining needs the deployment `retrain/retrain` to be there. Raises `UserError` for
    an address that is neither https nor on this machine, `httpx.HTTPError` when the server does not answer.
    """
    webhook = os.environ.get(WEBHOOK) or None if webhook is None else webhook
    if webhook:
        check_webhook(webhook)
    with httpx.Client(
        base_url=api.rstrip("/"), timeout=SECONDS, headers=credentials(), follow_redirects=True
    ) as client:
        server = _Server(client)
        wanted = [_silent(silent_seconds)]
        retrain = server.find(f"/deployments/name/{RETRAIN}")
        wanted += [_retraining(retrain)] if retrain else []
        block = server.webhook(webhook)
        pages = os.environ.get("PREFECT_UI_URL") or api.rstrip("/").removesuffix("/api")
        wanted += _notices(block, late_seconds, pages.rstrip("/")) if block else []
        for automation in wanted:
            server.ensure(automation)
        if not block:
            server.remove(NOTICES)
    return [automation["name"] for automation in wanted]


def check_webhook(url: str) -> None:
    """Raises `UserError` unless `url` is https, or http to this machine."""
    parts = urlsplit(url)
    if (parts.scheme == "https" and parts.hostname) or (parts.scheme == "http" and _loopback(parts.hostname or "")):
        return
    if not parts.scheme or not parts.hostname:
        raise UserError("the webhook is no address", "Write https://HOST/PATH, or http://127.0.0.1:PORT/PATH")
    raise UserError(f"the webhook {parts.scheme}://{parts.hostname} is neither https nor on this machine", "Use https")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _trigger(events: list[str], match: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "type": "event", "posture": "Reactive", "expect": events, "match": match, "match_related": {},
        "for_each": ["prefect.resource.id"], "threshold": 1, "within": 0, **more,
    }  # fmt: skip


def _models(*events: str) -> dict[str, Any]:
    return _trigger([PREFIX + event for event in events], {"prefect.resource.id": f"{PREFIX}model.*"})


def _runs(*states: str, **more: Any) -> dict[str, Any]:
    """Of flow runs of our deployments."""
    ours = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}
    events = [f"prefect.flow-run.{state}" for state in states]
    return _trigger(events, {"prefect.resource.id": "prefect.flow-run.*"}, match_related=ours, **more)


def _automation(name: str, description: str, trigger: dict[str, Any], action: dict[str, Any]) -> dict[str, Any]:
    return {"name": PREFIX_OF_NAMES + name, "description": description, "trigger": trigger, "actions": [action]}


def _retraining(deployment: str) -> dict[str, Any]:
    parameters = {"name": "{{ event.payload.model }}", "reason": '{{ event.event | replace("stillhouse.", "") }}'}
    return _automation(
        "retrain", "Drift or new data starts the deployment retrain", _models("drift", "new-data"),
        {"type": "run-deployment", "source": "selected", "deployment_id": deployment, "parameters": parameters},
    )  # fmt: skip


def _silent(seconds: int) -> dict[str, Any]:
    # Any event of the run is a sign that somebody looks after it; a run that waits for approval is `Suspended`.
    trigger = _runs("*", posture="Proactive", after=["prefect.flow-run.heartbeat"], within=seconds)
    message = f"no heartbeat for {seconds} seconds: its process or its machine is gone"
    return _automation(
        "lost runs", "A run without heartbeats has crashed", trigger,
        {"type": "change-flow-run-state", "state": "CRASHED", "message": message},
    )  # fmt: skip


def _notices(block: str, late_seconds: int, pages: str) -> list[dict[str, Any]]:
    def call(body: str) -> dict[str, Any]:
        return {"type": "call-webhook", "block_document_id": block, "payload": body.replace("UI/", f"{pages}/")}

    failed = "(flow_run.state.message or flow_run.state.name) | tojson"
    late = json.dumps(f"it has been waiting for {late_seconds} seconds; is a worker running?")
    waits = _runs(
        *STARTED, posture="Proactive", after=["prefect.flow-run.Late"], within=late_seconds
    )  # fmt: skip
    return [
        _automation("notify of alerts", "Alerts call the webhook", _models(*ALERTS), call(MODEL_BODY)),
        _automation(
            NOTICES[1], "Failed and crashed runs call the webhook", _runs("Failed", "Crashed"),
            call(RUN_BODY.replace("WHY", failed)),
        ),
        _automation(
            NOTICES[2], "A run that does not start calls the webhook", waits,
            call(RUN_BODY.replace("{{ WHY }}", late)),
        ),
    ]  # fmt: skip


class _Server:
    """The questions asked here, over REST."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.client.request(method, path, json=body)
        for seconds in BUSY_SECONDS:
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(seconds)  # its database is busy: Prefect asks to try again
            answer = self.client.request(method, path, json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def find(self, path: str) -> str | None:
        """The id of what is at `path`; None where nothing is."""
        try:
            return self.ask("GET", path)["id"]
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.NOT_FOUND:
                return None
            raise

    def webhook(self, url: str | None) -> str | None:
        """The id of the block that holds the webhook's address; None where there is, or now shall be, none."""
        block = self.find(f"/block_types/slug/webhook/block_documents/name/{BLOCK}")
        if url == "" and block:
            self.ask("DELETE", f"/block_documents/{block}")
            return None
        if not url:
            return block
        data = {"url": url, "method": "POST", "headers": {"Content-Type": "application/json"}}
        if block:
            self.ask("PATCH", f"/block_documents/{block}", {"data": data, "merge_existing_data": False})
            return block
        kind = self.ask("GET", "/block_types/slug/webhook")["id"]
        question = {"block_schemas": {"block_type_id": {"any_": [kind]}}, "limit": 1}
        schema = self.ask("POST", "/block_schemas/filter", question)[0]["id"]
        document = {"name": BLOCK, "data": data, "block_type_id": kind, "block_schema_id": schema}
        return self.ask("POST", "/block_documents/", document)["id"]

    def _named(self, name: str) -> list[dict[str, Any]]:
        return self.ask("POST", "/automations/filter", {"automations": {"name": {"any_": [name]}}})

    def ensure(self, automation: dict[str, Any]) -> None:
        there = self._named(automation["name"])
        if not there:
            self.ask("POST", "/automations/", automation)
            return
        first, *others = there  # two processes at once may have made two
        for other in others:
            self.ask("DELETE", f"/automations/{other['id']}")
        kept = {name: first[name] for name in ("enabled", "tags")}
        if any(_differs(value, first.get(name)) for name, value in automation.items()):
            self.ask("PUT", f"/automations/{first['id']}", {**automation, **kept})

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            for automation in self._named(PREFIX_OF_NAMES + name):
                self.ask("DELETE", f"/automations/{automation['id']}")


def _differs(wanted: Any, there: Any) -> bool:
    """Whether a value says something else than what is there; what only the server says does not count."""
    if isinstance(wanted, dict) and isinstance(there, dict):
        return any(_differs(value, there.get(name)) for name, value in wanted.items())
    if isinstance(wanted, list) and isinstance(there, list) and len(wanted) == len(there):
        if all(isinstance(item, str) for item in wanted):  # sets come back in any order
            return sorted(wanted) != sorted(map(str, there))
        return any(_differs(a, b) for a, b in zip(wanted, there, strict=True))
    return wanted != there
