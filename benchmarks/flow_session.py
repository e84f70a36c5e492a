"""A Prefect server on loopback, and recipe runs of this process on it with a worker that is already up."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WORKER_IMPORTS = ["torch", "transformers.modeling_utils", "onnxruntime", "tokenizers", "pandas", "stillhouse.methods"]

Run = Callable[..., Any]
"""`run(recipe, *overrides) -> Result`."""


@contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """The address of its API; the variables that name it are set meanwhile."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        api = f"http://127.0.0.1:{port}/api"
        _wait(f"{api}/health", process)
        yield api
    finally:
        process.terminate()
        process.wait(30)


def _wait(address: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit("the Prefect server did not start") from None
            time.sleep(0.2)


@contextmanager
def flow_session(home: Path) -> Iterator[Run]:
    """Runs in `home` as Prefect flows, recorded on a server of their own, in one process with one warm worker."""
    from flows.environment import prepare

    prepare(home)
    with prefect_server(home / "prefect") as api:
        os.environ["PREFECT_API_URL"] = api
        from flows.request import Request
        from flows.run import run_recipe, without_heartbeats
        from pipelines.listener import Listener
        from stillhouse.home import make_home
        from stillhouse.launcher import Launcher
        from tasks.session import SESSION, Session

        make_home(home)
        session = Session(home, Launcher(home), Listener())
        session.launcher.warm_up(WORKER_IMPORTS)
        token = SESSION.set(session)

        def run(recipe: str, *overrides: str) -> Any:
            request = Request(recipe, list(overrides))
            with without_heartbeats():
                state = run_recipe(request.recipe, request.overrides, return_state=True)
            return state.result(raise_on_failure=True)

        try:
            yield run
        finally:
            session.launcher.close()
            SESSION.reset(token)
            del os.environ["PREFECT_API_URL"]
