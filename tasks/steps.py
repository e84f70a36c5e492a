"""Prefect tasks, one a kind of step: how it is retried and shown. What is fresh is the store's business alone."""

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from prefect import State, Task, task
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext
from prefect.logging import get_logger
from prefect.states import Completed

from pipelines.execute import back_off, build, failed, find_hit, trying_again
from stillhouse.errors import StillhouseError, WorkerError
from stillhouse.methods import METHODS
from tasks.session import session

KINDS = sorted({name.partition(".")[0] for name in METHODS})


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
    try:
        result = build(spec, here.launcher, partial(here.listener.progress, spec["step"]))
    except StillhouseError as error:
        wait = _retry_delay(error)
        if wait is None:
            here.listener.step_finished(failed(spec, error))
        else:
            here.listener.note(trying_again(spec["step"], error, wait))
        raise
    here.listener.step_finished(result)
    return result


def _retry_delay(error: StillhouseError) -> float | None:
    """Seconds until Prefect tries again; None when it will not."""
    context = TaskRunContext.get()
    if context is None or not isinstance(error, WorkerError) or context.task_run.run_count > context.task.retries:
        return None
    return back_off(context.task_run.run_count - 1)


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
