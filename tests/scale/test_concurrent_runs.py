"""Ten runs at once against the servers of `up`, both on SQLite: none fails, none is lost or doubled."""

import json
import time
from pathlib import Path

import pytest

from tests.operate.up_checks import TRAIN, mlflow_runs, variant
from tests.operate.up_process import Up

pytestmark = pytest.mark.slow

AT_ONCE = 10
MOST = 8.0
"""Ten all-cached runs take at most so many times what one takes."""
UNTIL = "full"
STEPS = {"data", "head", "full"}


@pytest.fixture(scope="module")
def cached(up: Up, shared_recipe: Path) -> list[str]:
    """Arguments of a command that finds everything in the store."""
    arguments = ["run", str(shared_recipe), "--until", UNTIL, "--json"]
    up.cli(*arguments)
    return arguments


def seconds_of(up: Up, arguments: list[str], count: int) -> float:
    """Wall time of `count` commands at once; each must succeed with everything cached."""
    started = time.monotonic()
    processes = [up.cli.start(*arguments) for _ in range(count)]
    outputs = [process.communicate(timeout=580) for process in processes]
    seconds = time.monotonic() - started
    for process, (out, err) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, err
        assert {step["state"] for step in json.loads(out)["steps"]} == {"cached"}
    return seconds


def test_ten_cached_runs_of_the_command_line_take_at_most_eight_times_one(up, cached):
    before = len(mlflow_runs(up, "tiny"))
    ones = [seconds_of(up, cached, 1)]
    ten = seconds_of(up, cached, AT_ONCE)
    ones.append(seconds_of(up, cached, 1))
    one = sum(ones) / len(ones)
    print(f"command line, cached: one {one:.1f} s, ten at once {ten:.1f} s: {ten / one:.1f}x")
    assert len(mlflow_runs(up, "tiny")) == before, "what ran nowhere opens no MLflow run"
    assert ten <= MOST * one


def test_ten_cached_runs_of_the_deployment_take_at_most_eight_times_one(up, cached):
    parameters = {"recipe": cached[1], "until": UNTIL}

    def seconds(count: int) -> float:
        started = time.monotonic()
        runs = [up.deploy_run(TRAIN, parameters) for _ in range(count)]
        for run in runs:
            ended = up.finished(run, 580)
            assert ended["state_name"] == "Completed", (ended["state"], up.log())
        taken = time.monotonic() - started
        for run in runs:
            assert up.task_states(run) == dict.fromkeys(STEPS, "Cached")
        return taken

    one, ten, again = seconds(1), seconds(AT_ONCE), seconds(1)
    mean = (one + again) / 2
    print(f"deployment, cached: one {mean:.1f} s, ten at once {ten:.1f} s: {ten / mean:.1f}x")
    assert ten <= MOST * mean


def test_ten_runs_that_train_all_complete_and_each_is_recorded_once(up, shared_recipe, tmp_path):
    """Five from the command line and five through the deployment, each of another seed and name."""
    names = [f"at-once-{number}" for number in range(AT_ONCE)]
    recipes = [variant(shared_recipe, tmp_path, name) for name in names]
    started = time.monotonic()
    commands = [
        up.cli.start("run", recipe, "--set", f"seed={100 + number}", "--until", UNTIL, "--json")
        for number, recipe in enumerate(recipes[:5])
    ]
    runs = [
        up.deploy_run(TRAIN, {"recipe": recipe, "overrides": [f"seed={200 + number}"], "until": UNTIL})
        for number, recipe in enumerate(recipes[5:])
    ]
    for process in commands:
        _, err = process.communicate(timeout=580)
        assert process.returncode == 0, err
    for run in runs:
        ended = up.finished(run, 580)
        assert ended["state_name"] == "Completed", (ended["state"], up.log())
    print(f"ten runs that train: {time.monotonic() - started:.0f} s")
    for name in names:
        found = mlflow_runs(up, name)
        assert {run["status"] for run in found} == {"FINISHED"}
        parents = [run["id"] for run in found if run["parent"] is None]
        assert len(parents) == 1
        assert sorted(run["name"] for run in found if run["parent"] == parents[0]) == sorted(STEPS)
    log = (up.home / "logs" / "prefect-server.log").read_text(errors="replace")
    busy = log.count("sqlite3.OperationalError: database is locked")
    print(f"times that the Prefect server found its database busy: {busy}")
