"""Ten runs at once against the servers of `up`, both on SQLite: none fails, none is lost or doubled."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

from tests.operate.up_checks import TRAIN, mlflow_runs, variant
from tests.operate.up_process import Up

pytestmark = pytest.mark.slow

AT_ONCE = 10
ROUNDS = 3
MOST = 8.0
"""Ten all-cached runs take at most so many times what one takes."""
STEPS = {"data", "head", "full"}


@pytest.fixture(scope="module")
def recipe(shared_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first three steps of the tiny recipe."""
    path = tmp_path_factory.mktemp("short") / "tiny.yaml"
    left_out = ", ".join(f"{step}: null" for step in ("student", "onnx", "int8", "scores", "release"))
    path.write_text(f"extends: {shared_recipe}\nname: tiny\nsteps: {{{left_out}}}\n")
    return path


@pytest.fixture(scope="module")
def cached(up: Up, recipe: Path) -> list[str]:
    """Arguments of a command that finds everything in the store."""
    arguments = ["run", str(recipe), "--json"]
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


def ratio(seconds: Callable[[int], float], what: str) -> float:
    """What ten at once take as a multiple of one, the median of `ROUNDS`: who met a busy database waits for seconds."""
    ones, tens = [seconds(1)], []
    for _ in range(ROUNDS):
        tens.append(seconds(AT_ONCE))
        ones.append(seconds(1))
    found = [ten / ((before + after) / 2) for ten, before, after in zip(tens, ones, ones[1:], strict=False)]
    print(
        f"{what}, cached: one {median(ones):.1f} s, ten at once {median(tens):.1f} s: {median(found):.1f}x of {found}"
    )
    return median(found)


def test_ten_cached_runs_of_the_command_line_take_at_most_eight_times_one(up, cached):
    before = len(mlflow_runs(up, "tiny"))
    assert ratio(lambda count: seconds_of(up, cached, count), "command line") <= MOST
    assert len(mlflow_runs(up, "tiny")) == before, "what ran nowhere opens no MLflow run"


def test_ten_cached_runs_of_the_deployment_take_at_most_eight_times_one(up, cached):
    parameters = {"recipe": cached[1]}

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

    assert ratio(seconds, "deployment") <= MOST


def test_ten_runs_that_train_all_complete_and_each_is_recorded_once(up, recipe, tmp_path):
    """Five from the command line and five through the deployment, each of another seed and name."""
    names = [f"at-once-{number}" for number in range(AT_ONCE)]
    recipes = [variant(recipe, tmp_path, name) for name in names]
    started = time.monotonic()
    commands = [
        up.cli.start("run", path, "--set", f"seed={100 + number}", "--json") for number, path in enumerate(recipes[:5])
    ]
    runs = [
        up.deploy_run(TRAIN, {"recipe": path, "overrides": [f"seed={200 + number}"]})
        for number, path in enumerate(recipes[5:])
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
