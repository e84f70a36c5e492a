"""Benchmark 8: what a step costs that does nothing, against plain function calls and plain Prefect tasks."""

import os
import runpy
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.flow_session import Run, flow_session
from benchmarks.harness import interleave, ratio, row
from benchmarks.tasks_of_training import fresh_home

WORK = "a recipe of 12 steps that do nothing, on a running Prefect server"
STEPS = 12
NOTHING = Path(__file__).parent / "nothing"
CALLS, PREFECT = "plain function calls", "plain Prefect tasks"
OURS = {"cold, with MLflow": 70.0, "cold": 30.0, "all from the cache": 30.0}
"""Goals in milliseconds a step above plain calls."""
ONE = ", one step"
ANCHOR = "Prefect 2.14: 95 ms a task on two cores (windmill.dev)"


def measure(quick: bool) -> dict[str, Any]:
    """Everything in one process; the worker is up. Each cold run has a setting of its own, so nothing is known."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(NOTHING), os.environ.get("PYTHONPATH")]))
    runpy.run_path(str(NOTHING / "sitecustomize.py"))
    with fresh_home() as home, flow_session(home) as run:
        home = home.resolve()
        salts = count()
        sides = {CALLS: partial(_plain_calls, home), PREFECT: partial(_plain_prefect, home)}
        for steps, shown in ((STEPS, ""), (1, ONE)):
            recipe = _recipe(home, steps)
            kept = f"a.salt={-steps}"
            _checked(run, recipe, kept, "ran")
            cold = partial(_fresh, run, recipe, salts)
            sides[f"cold, with MLflow{shown}"] = cold
            sides[f"cold{shown}"] = partial(_without_mlflow, cold)
            sides[f"all from the cache{shown}"] = partial(_checked, run, recipe, kept, "cached")
        seconds = interleave(sides, 1 if quick else 7)
    rows = []
    for name, goal in OURS.items():
        each = [1000 * (ours - calls) / STEPS for ours, calls in zip(seconds[name], seconds[CALLS], strict=True)]
        further = [(whole - one) / (STEPS - 1) for whole, one in zip(seconds[name], seconds[name + ONE], strict=True)]
        found = f"{statistics.median(each):.1f} ms, {1000 * statistics.median(further):.1f} ms for each further step"
        allowed = ratio({"ours": each, "goal": [goal] * len(each)}, "ours", "goal")
        rows.append(row(f"{goal:.0f} ms a step, {name}: {found}", allowed, 1.0))
        rows.append(row(f"{PREFECT}, {name}", ratio(seconds, name, PREFECT), None))
    rows[0]["anchor"] = ANCHOR
    return {"rows": rows, "seconds": seconds, "steps": STEPS}


def _recipe(home: Path, steps: int) -> str:
    lines = ["name: nothing", "steps:"]
    for number in range(steps):
        name, before = chr(ord("a") + number), chr(ord("a") + number - 1)
        inputs = f", inputs: {{model: {before}}}" if number else ", with: {salt: 0}"
        lines.append(f"  {name}: {{uses: train.nothing{inputs}}}")
    path = home / f"nothing-{steps}.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def _checked(run: Run, recipe: str, override: str, state: str) -> None:
    result = run(recipe, override)
    assert {step["state"] for step in result["steps"]} == {state}, result["steps"]


def _fresh(run: Run, recipe: str, salts: Iterator[int]) -> None:
    _checked(run, recipe, f"a.salt={next(salts)}", "ran")


def _without_mlflow(run: Callable[[], None]) -> None:
    """The product has no such setting: what it would cost is measured with the tracker's two calls left out."""
    with mock.patch.multiple("tasks.run_tracker.RunTracker", step=_untracked, finish=_untracked):
        run()


def _untracked(*arguments: Any) -> None:
    pass


def _plain_calls(home: Path) -> None:
    from stillhouse.nothing import do_nothing

    with tempfile.TemporaryDirectory(dir=home) as out:
        for number in range(STEPS):
            directory = Path(out) / str(number)
            directory.mkdir()
            do_nothing(directory)


def _plain_prefect(home: Path) -> None:
    """A flow as its documentation shows it: tasks that call the same work, each waiting for the one before it."""
    from prefect import flow, task

    from stillhouse.nothing import do_nothing

    @task(name="nothing")
    def step(directory: Path, before: Any) -> Path:
        directory.mkdir()
        do_nothing(directory)
        return directory

    @flow(name="plain")
    def chain(out: Path) -> None:
        future = None
        for number in range(STEPS):
            future = step.submit(out / str(number), future)
        assert future is not None
        future.wait()

    with tempfile.TemporaryDirectory(dir=home) as out:
        chain(Path(out))
