"""Prefect runs whose process died without a word: found by the process tag they carry, and closed."""

import os

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.states import Crashed

from tasks.processes import machine, process_start

PREFIX = "process"


def process_tag() -> str:
    """Machine, process and its start time: enough to know later whether it still runs."""
    return _tag(os.getpid())


def _tag(pid: int) -> str:
    return f"{PREFIX}:{machine()}:{pid}:{process_start(pid)}"


def close_dead_flow_runs() -> list[str]:
    """Mark as crashed the running flow runs of this machine whose process is gone; returns their ids."""
    running = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])))
    closed = []
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=running):
            tag = next((tag for tag in run.tags if tag.startswith(f"{PREFIX}:{machine()}:")), None)
            if tag is not None and _tag(int(tag.split(":")[2])) != tag:
                client.set_flow_run_state(run.id, Crashed(message="its process ended without a word"), force=True)
                closed.append(str(run.id))
    return closed
