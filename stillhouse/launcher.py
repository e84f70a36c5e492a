"""Starts the worker process, hands it jobs, and turns its end, whatever it is, into an ordinary exception."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stillhouse.errors import BugError, StillhouseError, UserError, WorkerError

GRACE_SECONDS = 5.0
QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "true",
}
# glibc gives large blocks back to the kernel and asks again, page by page, at every training step; keeping them makes
# a step about 10 % faster (docs/lab-log.md). Other C libraries ignore this.
MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(2 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}
ERRORS: dict[str, type[StillhouseError]] = {"user": UserError, "bug": BugError, "worker": WorkerError}

Progress = Callable[[int, int, str], None]


class Launcher:
    """One warm worker, started at the first job, replaced after any failure. Jobs of several threads queue up."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.process: subprocess.Popen[str] | None = None
        self.answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.turn = threading.Lock()

    def run(self, spec: dict[str, Any], progress: Progress, timeout_seconds: float | None = None) -> dict[str, Any]:
        """Do one job: `{"state": "ran" | "cached", "seconds"}`, or the worker's failure as an exception."""
        with self.turn:
            try:
                return self._talk(self._started(), json.dumps(spec), progress, timeout_seconds)
            except BaseException:
                self.close()  # whatever happened, the next job gets a fresh process
                raise

    def warm_up(self, modules: Sequence[str]) -> None:
        """Start the worker and have it import `modules`, while this process is busy with something else."""
        with self.turn:
            process = self._started()
            assert process.stdin
            try:
                process.stdin.write(json.dumps({"import": list(modules)}) + "\n")
                process.stdin.flush()
            except OSError:
                self.close()  # the first job starts another, and says what is wrong

    def close(self) -> None:
        """End the worker: ask by closing its input, insist after some seconds."""
        process, self.process = self.process, None
        if process is None:
            return
        if process.stdin:
            try:
                process.stdin.close()
            except OSError:
                pass
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            _kill(process)

    def _started(self) -> "subprocess.Popen[str]":
        if self.process and self.process.poll() is None:
            return self.process
        log_path = self.home / "logs" / "worker.log"
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                # -P: a csv.py or random.py beside the user's data is not a module of ours.
                [sys.executable, "-P", "-m", "stillhouse.worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8",
                start_new_session=True, env={**QUIET, **MEMORY, **os.environ, "STILLHOUSE_HOME": str(self.home)},
            )  # fmt: skip
        self.process, self.answers = process, queue.SimpleQueue()
        threading.Thread(target=_read_answers, args=(process, self.answers), daemon=True).start()
        return process

    def _talk(
        self, process: "subprocess.Popen[str]", job: str, progress: Progress, timeout_seconds: float | None
    ) -> dict[str, Any]:
        deadline = None  # waiting for another run's lock is not the job's own time
        assert process.stdin
        try:
            process.stdin.write(job + "\n")
            process.stdin.flush()
        except OSError:
            raise _lost(process) from None
        while True:
            try:
                answer = self.answers.get(timeout=max(0.0, deadline - time.monotonic()) if deadline else None)
            except queue.Empty:
                _kill(process)
                raise WorkerError(
                    f"no result after {timeout_seconds:.0f} s", "Raise resources.timeout_seconds of this step"
                ) from None
            if answer is None:
                raise _lost(process)
            if answer["event"] == "started":
                deadline = time.monotonic() + timeout_seconds if timeout_seconds else None
            elif answer["event"] == "progress":
                progress(answer["done"], answer["total"], answer["note"])
            elif answer["event"] == "failed":
                raise ERRORS[answer["type"]](answer["message"], answer["fix"])
            else:
                return answer


def _read_answers(process: "subprocess.Popen[str]", answers: "queue.SimpleQueue[dict[str, Any] | None]") -> None:
    assert process.stdout
    try:
        for line in process.stdout:
            answers.put(json.loads(line))
    except ValueError:
        pass  # killed in the middle of a line
    finally:
        answers.put(None)


def _lost(process: "subprocess.Popen[str]") -> WorkerError:
    code = process.wait()
    if code < 0:
        name = signal.Signals(-code).name
        if name == "SIGBUS":
            return WorkerError("the worker process was ended by SIGBUS", "A full disk is the usual reason")
        return WorkerError(f"the worker process was ended by {name}", "Out of memory is the usual reason")
    return WorkerError(f"the worker process ended with code {code}", "See logs/worker.log in the home")


def _kill(process: "subprocess.Popen[str]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
