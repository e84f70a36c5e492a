"""What happened to a model, told: a line in the home's event log always, a Prefect event where a server is configured.

Prefect's automations turn such events into a retraining or a notification (`tasks.automations`). The event goes by one
HTTP request with an id of its own: that needs no import of prefect (two seconds), is there when the call returns, and
may be repeated soon, since the server drops an id that it has seen in the last half hour, unless it began anew. What a
server that is down did not take waits in `home/logs/unsent/` for the next `tell`, or for `up`, which sends it soon
after its server is back.
"""

import base64
import contextlib
import json
import logging
import os
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stillhouse.events import emit
from stillhouse.files import read_json, write_json

EVENTS = ("new-data", "drift", "surge", "quality", "released", "refused", "rolled-back")
PREFIX = "stillhouse."
SECONDS = 10.0
"""To reach the server; an alert must not hold up what it tells of."""
UNSENT = Path("logs") / "unsent"
REFUSED = UNSENT / "refused"
"""What no later try would get through: unreadable, or refused for what it says."""
NOT_ITS_FAULT = (401, 403, 404, 408, 429)

_log = logging.getLogger(__name__)


def tell(home: Path, event: str, name: str, **payload: Any) -> None:
    """Tell that `event` (one of `EVENTS`) happened to the model `name`; `payload` is anything JSON can say.

    An `alert_id` in it (a UUID) becomes the event's id: whoever is not sure whether it told may tell again.
    Never raises: what cannot be told is a warning, and the work that it tells of goes on.
    """
    try:
        _tell(home, event, name, json.loads(json.dumps(payload, default=str)))
    except Exception as error:
        _log.warning("%s of %s could not be told (%s: %s)", event, name, type(error).__name__, error)


def _tell(home: Path, event: str, name: str, payload: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # a full disk, perhaps: the server may still hear of it
        emit(home, PREFIX + event, **{"name": name, **_without_reserved(payload)})
    api = os.environ.get("PREFECT_API_URL")
    if not api:
        return
    message = {
        "id": payload.get("alert_id") or str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": PREFIX + event,
        "resource": {"prefect.resource.id": f"{PREFIX}model.{name}", "prefect.resource.name": name},
        "related": _related(),
        "payload": {"model": name, **payload},
    }
    try:
        _post(api, [message])
    except Exception as error:
        _keep(home, message)
        _log.warning("the Prefect server did not take %s of %s (%s); it is kept", event, name, error)
    else:
        send_unsent(home, api)


def _without_reserved(payload: dict[str, Any]) -> dict[str, Any]:
    """`payload` for the log, whose own fields are `time`, `pid`, `event` and here `name`."""
    taken = ("time", "pid", "event", "name", "home")
    return {f"payload_{key}" if key in taken else key: value for key, value in payload.items()}


def send_unsent(home: Path, api: str) -> int:
    """Send what a server that was down did not take, the oldest first; returns how many. Never raises."""
    if not (home / UNSENT).is_dir():
        return 0
    sent = 0
    try:
        for path in sorted((home / UNSENT).glob("*.json")):
            try:
                _post(api, [read_json(path)])
            except FileNotFoundError:
                continue  # another process was faster
            except Exception as error:
                if not _is_refusal(error):
                    raise
                _log.warning("%s is set aside (%s)", path, error)
                (home / REFUSED).mkdir(exist_ok=True)
                path.rename(home / REFUSED / path.name)
                continue
            path.unlink(missing_ok=True)
            sent += 1
    except Exception as error:
        _log.warning("events in %s wait for the next try (%s)", home / UNSENT, error)
    return sent


def _is_refusal(error: Exception) -> bool:
    """The message is to blame, not the server or the way to it."""
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        return 400 <= error.response.status_code < 500 and error.response.status_code not in NOT_ITS_FAULT
    return isinstance(error, ValueError)


def _keep(home: Path, message: dict[str, Any]) -> None:
    (home / UNSENT).mkdir(parents=True, exist_ok=True)
    when = message["occurred"].replace(":", "").replace("+", "")
    write_json(home / UNSENT / f"{when}-{message['id'][:8]}.json", message)


def _related() -> list[dict[str, str]]:
    """The flow run that tells, if one does: Prefect then shows the event on its page."""
    if "prefect.context" not in sys.modules:
        return []
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return []
    run = context.flow_run
    return [
        {
            "prefect.resource.id": f"prefect.flow-run.{run.id}",
            "prefect.resource.role": "flow-run",
            "prefect.resource.name": run.name,
        }
    ]


def _post(api: str, messages: list[dict[str, Any]]) -> None:
    import httpx

    httpx.post(f"{api.rstrip('/')}/events", json=messages, headers=credentials(), timeout=SECONDS).raise_for_status()


def credentials() -> dict[str, str]:
    """As Prefect's own client reads them: a key is a bearer's token, `user:password` is basic authentication."""
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if pair := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    return {}
