"""`stillhouse up` as a child process, and the questions that tests ask its servers."""

import json
import os
import signal
import subprocess
import threading
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any

from flows.prefect_api import ask
from tests.tiny_runs import Cli

START_SECONDS = 400
"""A first start migrates a database and may share its cores with other tests."""
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class Up:
    """A running `up`: `home`, `prefect`, `api`, `mlflow` (addresses), `cli` (a command line in the same home)."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.home = home
        home.parent.mkdir(parents=True, exist_ok=True)
        self.cli = Cli(home, home.parent)
        self.process = self.cli.start("up", "--json", *arguments, start_new_session=True)
        self.said: list[str] = []
        self.readers = [threading.Thread(target=self._listen, daemon=True)]
        self.readers[0].start()
        self.addresses: dict[str, Any] = self._read()
        self.prefect, self.api, self.mlflow = (self.addresses[name] for name in ("prefect", "api", "mlflow"))

    def _listen(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.said.append(line.rstrip())

    def _read(self) -> dict[str, Any]:
        """The one JSON object that says it is up."""
        lines: list[str] = []
        done = threading.Event()

        def read() -> None:
            assert self.process.stdout
            for line in self.process.stdout:
                lines.append(line)
                if line == "}\n":
                    break
            done.set()

        self.readers.append(threading.Thread(target=read, daemon=True))
        self.readers[-1].start()
        if not done.wait(START_SECONDS) or "".join(lines)[-2:] != "}\n":
            self.stop()
            raise AssertionError("\n".join(["never up", *self.said]))
        return json.loads("".join(lines))

    def said_since(self, number: int, word: str, seconds: float = 120) -> str:
        """The first line after the `number` first ones with `word` in it; waits for it."""
        deadline = time.monotonic() + seconds
        while True:
            found = next((line for line in self.said[number:] if word in line), None)
            if found:
                return found
            assert time.monotonic() < deadline and self.process.poll() is None, self.said
            time.sleep(0.1)

    def deploy_run(self, deployment: str, parameters: dict[str, Any] | None = None) -> str:
        """Ask for a run of `FLOW/NAME`, as the UI does; its id."""
        found = ask(self.api, f"deployments/name/{deployment}", method="GET")
        body = {
            "parameters": parameters or {}, "state": {"type": "SCHEDULED"}, "idempotency_key": str(uuid.uuid4()),
            "enforce_parameter_schema": False,  # nor is the form's choice of recipes: tests name files
        }  # fmt: skip
        return ask(self.api, f"deployments/{found['id']}/create_flow_run", body)["id"]

    def finished(self, flow_run: str, seconds: float = 300) -> dict[str, Any]:
        """The flow run once it is in a final state."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                run = ask(self.api, f"flow_runs/{flow_run}", method="GET")
            except OSError:  # the server may just be restarting
                run = {"state_type": None}
            if run["state_type"] in FINAL:
                return run
            assert time.monotonic() < deadline, (run.get("state"), self.said, self.log())
            time.sleep(0.3)

    def state(self, flow_run: str) -> str:
        return ask(self.api, f"flow_runs/{flow_run}", method="GET")["state_type"]

    def task_states(self, flow_run: str, seconds: float = 30) -> dict[str, str]:
        """Name of each task run → name of its state; they reach the server a moment after their flow run's end."""
        question = {"task_runs": {"flow_run_id": {"any_": [flow_run]}}}
        deadline = time.monotonic() + seconds
        while True:
            runs = ask(self.api, "task_runs/filter", question)
            if time.monotonic() > deadline or all(run["state_type"] in FINAL for run in runs):
                return {run["name"]: run["state_name"] for run in runs}
            time.sleep(0.2)

    def mlflow_ask(self, path: str, body: Any = None) -> Any:
        """A question to MLflow's REST API; GET without a body."""
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self.mlflow}/{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def log(self) -> str:
        """The last lines of the flow runs' log."""
        path = self.home / "logs" / "flow-runs.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def stop(self, number: signal.Signals = signal.SIGINT, seconds: float = 40) -> int:
        """Ctrl-C (or another signal); the exit code."""
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()  # its keeper ends the rest
            self.process.wait()
            raise
        finally:
            for reader in self.readers:
                reader.join(5)
            for pipe in (self.process.stdout, self.process.stderr):
                assert pipe
                pipe.close()
