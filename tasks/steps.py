"""Prefect tasks, one a kind of step: how it is retried and shown. What is fresh is the store's business alone."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefect import State, Task, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext
from prefect.logging import get_logger, get_run_logger
from prefect.states import Completed

from pipelines.execute import back_off, build, failed, find_hit, trying_again
from stillhouse.errors import StillhouseError, WorkerError
from stillhouse.methods import METHODS
from tasks.session import Session, session

KINDS = sorted({name.partition(".")[0] for name in METHODS})
PROGRESS_SECONDS = 2.0


def worth_retrying(task: Task[..., Any], task_run: Any, state: State[Any]) -> bool:
    """Only a lost worker is tried again: bad input and bugs stay what they are."""
    return isinstance(state.data, WorkerError)


def run_step(spec: dict[str, Any]) -> Any:
    """The outcome of one step: a hit (state Cached), or what the worker made."""
    here = session(Path(spec["home"]))
    hit = find_hit(spec)
    if hit is not None:
        here.listener.step_finished(hit)
        return Completed(name="Cached", data=hit)
    here.listener.step_started(spec["step"])
    progress = _Progress(spec["step"], here)
    try:
        result = build(spec, here.launcher, progress)
    except StillhouseError as error:
        wait = _retry_delay(error)
        if wait is None:
            here.listener.step_finished(failed(spec, error))
        else:
            here.listener.note(trying_again(spec["step"], error, wait))
        raise
    progress.finished()
    here.listener.step_finished(result)
    return result


def _retry_delay(error: StillhouseError) -> float | None:
    """Seconds until Prefect tries again; None when it will not."""
    context = TaskRunContext.get()
    if context is None or not isinstance(error, WorkerError) or context.task_run.run_count > context.task.retries:
        return None
    return back_off(context.task_run.run_count - 1)


class _Progress:
    """Passes progress on to the listener always, to Prefect's page every two seconds, and there what it waits for.

    A note without a total is what the worker says before it waits for another run (`stillhouse.worker`).
    """

    def __init__(self, name: str, here: Session) -> None:
        self.name, self.here, self.artifact, self.last = name, here, None, time.monotonic()

    def __call__(self, done: int, total: int, note: str) -> None:
        self.here.listener.progress(self.name, done, total, note)
        now = time.monotonic()
        if not total:
            with best_effort():
                get_run_logger().warning("%s is %s", self.name, note)
                self._show(0.0, f"{self.name}: {note}")
        elif now - self.last >= PROGRESS_SECONDS:
            self.last = now
            with best_effort():
                self._show(min(100.0, 100.0 * done / total), f"{self.name}: {note}")

    def finished(self) -> None:
        """What was shown last is not what stays on the page."""
        if self.artifact is not None:
            with best_effort():
                self._show(100.0, f"{self.name}: done")

    def _show(self, share: float, description: str) -> None:
        if self.artifact is None:
            key = f"progress-{self.name}".lower().replace("_", "-")
            self.artifact = create_progress_artifact(progress=share, key=key, description=description)
        else:
            update_progress_artifact(self.artifact, progress=share, description=description)  # type: ignore[arg-type]


@contextlib.contextmanager
def best_effort() -> Iterator[None]:
    """Around what only decorates a run's page: a server that fails there must not cost a training."""
    try:
        yield
    except Exception as error:
        get_logger("stillhouse").warning("nothing shown on the run's page: %s", error)


def _task_of(kind: str) -> Task[..., Any]:
    # No tags: for each of them a task run asks the server for a place under its concurrency limit.
    return task(
        name=kind, retries=0, retry_condition_fn=worth_retrying,
        cache_policy=NO_CACHE, persist_result=False, log_prints=False,
    )(run_step)  # fmt: skip


TASKS: dict[str, Task[..., Any]] = {kind: _task_of(kind) for kind in KINDS}


def task_for(uses: str, name: str, retries: int) -> Task[..., Any]:
    """The task of a method's kind, named after the step."""
    delays = [back_off(attempt) for attempt in range(retries)]
    return TASKS[uses.partition(".")[0]].with_options(
        task_run_name=name, retries=retries, retry_delay_seconds=delays or 0
    )
