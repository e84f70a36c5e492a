"""The event log of a home, and the named points at which a fault test may kill the process.

Every event is one JSON line, written whole with one append, so that processes can share the file.
"""

import json
import os
import signal
import time
from pathlib import Path

FAULT_VARIABLE = "STILLHOUSE_FAULT"
"""`point` or `point:n` (the n-th time): the process that reaches it kills itself, once in a home. For tests only."""

_seen: dict[str, int] = {}


def emit(home: Path, event: str, **fields: object) -> None:
    """Append one event to `home/logs/events.jsonl`."""
    line = json.dumps({"time": time.time(), "pid": os.getpid(), "event": event, **fields}) + "\n"
    log = home / "logs" / "events.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def reached(home: Path, point: str, **fields: object) -> None:
    """Record that `point` was reached; die here if a fault test asked for it."""
    emit(home, point, **fields)
    wanted, _, count = os.environ.get(FAULT_VARIABLE, "").partition(":")
    if wanted != point:
        return
    _seen[point] = _seen.get(point, 0) + 1
    if _seen[point] == int(count or 1) and _first_time(home / "logs" / f"fault-{point}"):
        os.kill(os.getpid(), signal.SIGKILL)


def _first_time(marker: Path) -> bool:
    """A fault strikes once in a home: what is tried again must be able to succeed."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
