"""Benchmark 9: the opinions recipe again: unchanged, and after a change near its end and near its beginning."""

import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.flow_session import flow_session
from benchmarks.harness import interleave, row
from benchmarks.tasks_of_training import KEPT

WORK = "the recipe opinions a second time: unchanged; with another setting of int8; with another rate of the last stage"
CHANGES = {"a setting of int8": "int8.max_rows", "the last stage's learning rate": "teacher.learning_rate"}
TIMES = {"a setting of int8": 3, "the last stage's learning rate": 1}
QUICK = ["data.max_train_rows=300"]
ANCHOR = "Helix 19x over iterations of a workflow (arXiv:1812.05762)"
LARGEST_SHARE, SECONDS_UNCHANGED = 1.05, 5.0


def measure(quick: bool) -> dict[str, Any]:
    """Wall seconds; the cold run is one in an empty home, made here."""
    home = KEPT / "rerun"
    shutil.rmtree(home, ignore_errors=True)
    always = QUICK if quick else []
    started = time.perf_counter()
    _command(home, always, "ran")
    cold = time.perf_counter() - started
    again = interleave({"unchanged": partial(_command, home, always, "cached")}, 1 if quick else 5)["unchanged"]
    changed = _changed(home, always, quick)
    slowest = row(f"a cold run ({cold:.0f} s)", _spread([cold / each for each in again]), 100.0, anchor=ANCHOR)
    rows = [slowest, row("5 s", _spread([SECONDS_UNCHANGED / each for each in again]), 1.0)]
    for name, runs in changed.items():
        shares = [LARGEST_SHARE * each["own"] / each["wall"] for each in runs]
        rows.append(row(f"{name}: 1.05 of the changed steps' own time", _spread(shares), 1.0))
        rows.append(row(f"{name}: a cold run", _spread([cold / each["wall"] for each in runs]), None))
    return {"rows": rows, "cold_seconds": cold, "unchanged_seconds": again, "changed": changed}


def _command(home: Path, overrides: list[str], state: str) -> dict[str, Any]:
    """As a user types it; a process of its own."""
    command = [sys.executable, "-m", "flows.cli", "run", "opinions", "--json"]
    command += [part for override in overrides for part in ("--set", override)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "STILLHOUSE_HOME": str(home)})
    result = json.loads(done.stdout)
    assert done.returncode in (0, 3), result
    assert {step["state"] for step in result["steps"]} <= {state, "refused"}, result["steps"]
    return result


def _changed(home: Path, always: list[str], quick: bool) -> dict[str, list[dict[str, Any]]]:
    """Every change is of a value that the home has not seen; the server and the worker are up."""
    from pipelines.load import load_recipe

    values = load_recipe("opinions", always)[0].steps
    found: dict[str, list[dict[str, Any]]] = {}
    with flow_session(home) as run:
        for name, setting in CHANGES.items():
            step, _, key = setting.partition(".")
            for turn in range(1 if quick else TIMES[name]):
                before = values[step].settings[key]
                value = before - turn - 1 if isinstance(before, int) else before * (1 + 0.01 * (turn + 1))
                started = time.perf_counter()
                result = run("opinions", *always, f"{setting}={value}")
                wall = time.perf_counter() - started
                own = sum(each["seconds"] for each in result["steps"] if each["state"] != "cached")
                ran = [each["name"] for each in result["steps"] if each["state"] != "cached"]
                print(f"  {setting}={value}: {wall:.1f} s, its steps {own:.1f} s", flush=True)
                found.setdefault(name, []).append({"wall": round(wall, 2), "own": round(own, 2), "steps": ran})
    return found


def _spread(values: list[float]) -> dict[str, float]:
    from stillhouse.speed import median_interval

    return {name: round(value, 3) for name, value in median_interval(values).items()}
