"""Runs recorded on a real Prefect server: named task runs, Cached on the second, artifacts, crashed runs closed."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import httpx
import pytest


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The API address of a Prefect server on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("prefect")
    environment = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    api = f"http://127.0.0.1:{port}/api"
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(f"{api}/health", timeout=2):
                break
        except OSError:
            assert time.monotonic() < deadline and process.poll() is None, (home / "log").read_text()
            time.sleep(0.2)
    yield api
    process.terminate()
    process.wait(30)


def ask(api: str, path: str, **query: object) -> list[dict]:
    return httpx.post(f"{api}/{path}/filter", json=query, timeout=30).raise_for_status().json()


def test_a_run_is_recorded_and_the_second_is_cached(cli, tiny_recipe, server, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", server)
    arguments = ("run", str(tiny_recipe), "--until", "head")
    first = cli.json(*arguments)
    assert [step["state"] for step in first["steps"]] == ["ran", "ran"]
    second = cli.json(*arguments)
    assert [step["state"] for step in second["steps"]] == ["cached", "cached"]
    runs = {}
    for result in (first, second):
        found = ask(server, "task_runs", task_runs={"flow_run_id": {"any_": [result["flow_run"]]}})
        runs[result["flow_run"]] = {run["name"]: run["state"]["name"] for run in found}
    assert runs == {
        first["flow_run"]: {"data": "Completed", "head": "Completed"},
        second["flow_run"]: {"data": "Cached", "head": "Cached"},
    }
    steps = [a for a in ask(server, "artifacts") if a["key"] == "steps" and a["flow_run_id"] == first["flow_run"]]
    assert [row["step"] for row in json.loads(steps[0]["data"])] == ["data", "head"]
    flow_run = httpx.get(f"{server}/flow_runs/{first['flow_run']}").json()
    assert flow_run["parameters"]["recipe"] == str(tiny_recipe)


def test_a_user_error_fails_the_run_at_once_without_a_retry(cli, tiny_recipe, server, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", server)
    data = Path(cli.cwd / "rows.csv")
    data.write_text("text,label\n" + "".join(f"some words {i},yes\n" for i in range(60)))
    done = cli("run", str(tiny_recipe), "--until", "head", code=2)
    assert "too few classes" in done.stderr and "Traceback" not in done.stderr, done.stderr
    failed = [r for r in ask(server, "task_runs") if r["state_type"] == "FAILED"]
    assert [run["run_count"] for run in failed] == [1]


def test_a_killed_worker_is_retried_by_prefect_and_goes_on(cli_with_head, tiny_recipe, server, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", server)
    arguments = ("run", str(tiny_recipe), "--until", "full", "--set", "full.resources.retries=1")
    done = cli_with_head(*arguments, fault="train.checkpoint:2")
    assert "trying again in 1 s" in done.stderr and "failed" not in done.stderr, done.stderr
    assert len(cli_with_head.events("train.resumed")) == 1
    runs = [run for run in ask(server, "task_runs") if run["name"] == "full" and run["state_type"] == "COMPLETED"]
    assert max(run["run_count"] for run in runs) == 2


def test_ctrl_c_ends_a_prefect_run_at_once_and_the_next_run_closes_it(cli, tiny_recipe, server, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", server)
    process = cli.start("run", str(tiny_recipe), "--until", "full")
    deadline = time.monotonic() + 120
    while not cli.events("train.checkpoint") and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(2)
    started = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "Type the same command again" in err, err
    assert time.monotonic() - started < 10
    cli("run", str(tiny_recipe), "--until", "full")
    assert len(cli.events("train.resumed")) == 1
    states = [run["state_type"] for run in ask(server, "flow_runs")]
    assert "RUNNING" not in states and "CRASHED" in states
