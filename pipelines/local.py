"""Run a plan step by step without an orchestrator."""

import time
from collections.abc import Callable
from pathlib import Path

from pipelines.execute import back_off, build, failed, find_hit, job_spec, trying_again
from pipelines.listener import Listener, Outcome
from pipelines.plan import Plan
from stillhouse.errors import StillhouseError, WorkerError
from stillhouse.launcher import Launcher

OnStep = Callable[[Outcome], None]


def run_plan(plan: Plan, home: Path, listener: Listener, rebuild: set[str], on_step: OnStep) -> list[Outcome]:
    """Outcomes in order; the first failure is raised after `on_step` was told of it."""
    outcomes = []
    launcher = Launcher(home)
    try:
        for step in plan.steps:
            spec = job_spec(step, plan, home, rebuild=step.name in rebuild)
            result = find_hit(spec)
            if result is None:
                listener.step_started(step.name)
                try:
                    result = _build_with_retries(spec, launcher, listener, step.resources.retries)
                except StillhouseError as error:
                    result = failed(spec, error)
                    listener.step_finished(result)
                    on_step(result)
                    raise
            listener.step_finished(result)
            on_step(result)
            outcomes.append(result)
    finally:
        launcher.close()
    return outcomes


def _build_with_retries(spec: dict, launcher: Launcher, listener: Listener, retries: int) -> Outcome:
    name = spec["step"]
    for attempt in range(retries + 1):
        try:
            return build(spec, launcher, lambda done, total, note: listener.progress(name, done, total, note))
        except WorkerError as error:
            if attempt == retries:
                raise
            wait = back_off(attempt)
            listener.note(trying_again(name, error, wait))
            time.sleep(wait)
    raise AssertionError("unreachable")
