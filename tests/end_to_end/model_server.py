"""`mlflow models serve` on a free port of this machine, and a client for it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

START_SECONDS = 120


@contextlib.contextmanager
def serving(python: Path, model_uri: str, environment: dict[str, str], directory: Path) -> Iterator[str]:
    """The address of a server for `model_uri` that `python` runs; killed with all its children at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = directory / "server.log"
    path = f"{python.parent}{os.pathsep}{environment['PATH']}"  # as in an activated environment: it starts `uvicorn`
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(python), "-m", "mlflow", "models", "serve", "-m", model_uri, "--env-manager", "local",
             "-h", "127.0.0.1", "-p", str(port)],
            env={**environment, "PATH": path}, cwd=directory, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers(f"http://127.0.0.1:{port}/ping"):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def asked(server: str, body: bytes, kind: str = "application/json") -> tuple[int, str]:
    """Status and body of the answer to any request."""
    request = urllib.request.Request(f"{server}/invocations", body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def predicted(server: str, texts: list[str]) -> list[dict[str, Any]]:
    """What the server says about `texts`, asked in one request."""
    body = {"dataframe_split": {"columns": ["text"], "data": [[text] for text in texts]}}
    request = urllib.request.Request(
        f"{server}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.load(response)["predictions"]
