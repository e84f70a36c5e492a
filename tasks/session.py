"""What the tasks of one run share inside one process: the worker, who listens, where to track."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from pipelines.listener import Listener
from stillhouse.launcher import Launcher


@dataclass
class Session:
    home: Path
    launcher: Launcher
    listener: Listener


SESSION: ContextVar[Session | None] = ContextVar("session", default=None)


def session(home: Path) -> Session:
    """The run's session; a task that was placed in another process starts its own."""
    current = SESSION.get()
    if current is None:
        current = Session(home, Launcher(home), Listener())
        SESSION.set(current)
    return current


@contextlib.contextmanager
def open_session(home: Path, listener: Listener) -> Iterator[Session]:
    """A session for what is called inside; its worker ends with it."""
    made = Session(home, Launcher(home), listener)
    token = SESSION.set(made)
    try:
        yield made
    finally:
        made.launcher.close()
        SESSION.reset(token)
