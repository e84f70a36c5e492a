"""A flow called in this process, not by a worker: without heartbeats, and without long waits for a busy database."""

import os
import random
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from urllib.parse import urlsplit

import httpx
from prefect.context import SettingsContext, SyncClientContext, get_settings_context

ATTEMPTS = 20
PAUSE_SECONDS = (0.05, 0.25)
BUSY = 503
LOCAL = {"127.0.0.1", "localhost", "::1"}


@contextmanager
def own_process() -> Iterator[None]:
    """Inside it, a flow that is called runs here: asks a server of this machine again soon, and sends no heartbeats."""
    with _without_heartbeats(), _patient_client():
        yield


def _patient_client() -> AbstractContextManager[Any]:
    """Prefect's client for the flow; for a server elsewhere its own, which knows of proxies and certificates."""
    address = urlsplit(os.environ.get("PREFECT_API_URL", ""))
    if address.scheme != "http" or address.hostname not in LOCAL:
        return nullcontext()
    return SyncClientContext(httpx_settings={"transport": SoonAgain(retries=3)})


class SoonAgain(httpx.HTTPTransport):
    """Asks again within a quarter of a second where the server answers that its database was busy.

    Prefect's server creates a flow run in a transaction that reads before it writes; on SQLite that fails at once (503)
    when another request wrote in between, as it does for every second one of ten at once. The client would wait for
    2, 4, 8 s (Prefect 3.8), and still does after the attempts here.
    """

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for _ in range(ATTEMPTS):
            response = super().handle_request(request)
            if response.status_code != BUSY:
                return response
            response.close()
            time.sleep(random.uniform(*PAUSE_SECONDS))
        return super().handle_request(request)


def _without_heartbeats() -> AbstractContextManager[Any]:
    """Every flow would wait up to a second for its heartbeat thread (Prefect 3.8).

    Nobody listens to them here: the next run closes what a dead process left (`close_dead_flow_runs`). Runs that a
    Prefect worker starts keep theirs, and so does whoever sets the variable.
    """
    if "PREFECT_FLOWS_HEARTBEAT_FREQUENCY" in os.environ:
        return nullcontext()
    current = get_settings_context()
    # Not `temporary_settings`: that reads all settings anew, 0.2 s.
    flows = current.settings.flows.model_copy(update={"heartbeat_frequency": None})
    return SettingsContext(profile=current.profile, settings=current.settings.model_copy(update={"flows": flows}))
