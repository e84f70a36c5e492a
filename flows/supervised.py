"""One process that is started again when it dies, with growing pauses, until it dies too often."""

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from flows.servers import Service, now
from stillhouse.errors import WorkerError

PAUSES = (0.5, 2.0, 5.0, 10.0, 20.0)
"""Seconds before it is started again, after its first, second… quick death."""
WINDOW_SECONDS = 120.0
"""Deaths longer ago than this are forgotten."""
LOG_BYTES = 20 << 20
"""A log file that has grown beyond this is put aside (one is kept) when the process starts."""


class Supervised:
    """A service, its process if there is one, and when it died lately."""

    def __init__(self, service: Service, say: Callable[[str], None]) -> None:
        self.service, self.say = service, say
        self.name, self.log = service.name, service.log
        self.process: subprocess.Popen[bytes] | None = None
        self.started = now()
        self.deaths: deque[float] = deque()
        self.due: float | None = None
        self.seen_healthy = False

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it, in a session of its own: Ctrl-C in the terminal is for `up` alone."""
        self.due, self.seen_healthy, self.started = None, False, now()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            os.replace(self.log, self.log.with_suffix(".1.log"))
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.service.command, env=self.service.environment, cwd=self.log.parent.parent,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def is_healthy(self) -> bool:
        """It runs and has answered since it was started; said when that is new."""
        if not self.alive():
            return False
        if not self.seen_healthy and self.service.healthy(self.started):
            self.seen_healthy = True
            self.say(f"the {self.name} is up after {(now() - self.started).total_seconds():.0f} s")
        return self.seen_healthy

    def is_due(self) -> bool:
        """It was started once, is dead, and the pause since its death is over. Raises when it died too often."""
        if self.process is None or self.alive():
            return False
        if self.due is None:
            self._died()
        assert self.due is not None
        return time.monotonic() >= self.due

    def revive(self) -> None:
        """Start it again when that is due."""
        if self.is_due():
            self.start()

    def _died(self) -> None:
        assert self.process
        self._end_group()
        moment = time.monotonic()
        self.deaths.append(moment)
        while self.deaths[0] < moment - WINDOW_SECONDS:
            self.deaths.popleft()
        code = self.process.returncode
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        if len(self.deaths) > len(PAUSES):
            raise WorkerError(
                f"the {self.name} {how}, {len(self.deaths)} times in {WINDOW_SECONDS:.0f} s{self._last_words()}",
                f"See {self.log}",
            )
        self.due = moment + PAUSES[len(self.deaths) - 1]
        self.say(f"the {self.name} {how}; starting it again")

    def _end_group(self) -> None:
        """What its main process started for itself (MLflow's has a child that holds the port)."""
        assert self.process
        if "worker" not in self.name:  # a worker's flow runs can go on without it
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def _last_words(self) -> str:
        with suppress(OSError):
            lines = [line.strip() for line in self.log.read_text(errors="replace")[-4000:].splitlines() if line.strip()]
            return f": {lines[-1][:200]}" if lines else ""
        return ""

    def ended(self) -> None:
        """Take note that it was ended on purpose, with all that it started."""
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
