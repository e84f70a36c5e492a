"""The processes of one home's `up`, however deep: found by a mark in their environment, and ended."""

import os
import signal
import time
from pathlib import Path

MARK = "STILLHOUSE_UP"
"""In the environment of every process below `up`; its value is the home."""
FLOW_RUN = "PREFECT__FLOW_RUN_ID"
"""Prefect's own mark of a process that executes a flow run."""
SEEN = Path("/proc/self/environ").exists()
"""Whether `marked` can see processes; where it cannot, nobody is known to be lost."""


def marked(home: Path) -> dict[int, str]:
    """Processes of an `up` of `home` at any depth, each with the id of its flow run or "" (Linux; elsewhere none)."""
    mark, run = f"{MARK}={home}".encode(), f"{FLOW_RUN}=".encode()
    found = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = path.read_bytes().split(b"\0")
        except OSError:  # another user's, or it has just ended
            continue
        if mark in variables:
            ids = [value.removeprefix(run).decode() for value in variables if value.startswith(run)]
            found[int(path.parent.name)] = ids[0] if ids else ""
    found.pop(os.getpid(), None)
    return found


def end(processes: list[int], grace_seconds: float) -> None:
    """SIGTERM, then SIGKILL for those that are still there after `grace_seconds`."""
    send(processes, signal.SIGTERM)
    wait(processes, grace_seconds)
    send(processes, signal.SIGKILL)


def wait(processes: list[int], seconds: float) -> bool:
    """Whether all of them were gone within `seconds`."""
    deadline = time.monotonic() + seconds
    while any(alive(pid) for pid in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def send(processes: list[int], number: signal.Signals) -> None:
    for pid in processes:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            pass


def alive(pid: int) -> bool:
    """It runs; a zombie, which only waits for its parent to notice, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
