"""Ctrl-C and SIGTERM: stop at once, take every child along, say how to go on.

A run is safe to lose at any moment (the store publishes whole or not at all, checkpoints stay), so there is nothing to
wait for. Unwinding through the orchestrator instead would make it report to a server that is just going down.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

CODE = 130
GRACE_SECONDS = 3.0


def stop_on_signals(say: Callable[[], None]) -> None:
    """From now on SIGINT and SIGTERM end this process with code 130, after `say` and after its children."""

    def stop(number: int, frame: FrameType | None) -> None:
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, signal.SIG_IGN)
        say()
        sys.stdout.flush()
        sys.stderr.flush()
        end_children()
        os._exit(CODE)

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop)


def end_children() -> None:
    """SIGTERM to all descendants, SIGKILL to those that are still there after three seconds."""
    children = descendants(os.getpid())
    _signal(children, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and any(_running(pid) for pid in children):
        time.sleep(0.05)
    _signal(children, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """Processes started by `pid`, directly or not (Linux; elsewhere none: children notice that their pipe closed)."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in path.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def _signal(processes: list[int], number: signal.Signals) -> None:
    for pid in processes:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
