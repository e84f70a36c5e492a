"""What a run's page shows while it runs: one progress bar for the whole run, and a line in its log for each step."""

import threading
import time
from contextvars import copy_context
from typing import Any

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_logger, get_run_logger

from flows.terminal import duration, figure
from pipelines.listener import Listener, Outcome
from tasks.steps import best_effort

PROGRESS_SECONDS = 2.0
LOG_SECONDS = 30.0


class RunPage(Listener):
    """Passes on what it hears to `other`; a thread of its own tells the server, so that no training waits for it."""

    def __init__(self, recipe: str, estimates: dict[str, float | None], other: Listener) -> None:
        self.recipe, self.other = recipe, other
        self.weights = weights(estimates)
        self.done: list[str] = []
        self.running: dict[str, tuple[float, str]] = {}
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.log: Any = get_run_logger()
        self.logged: dict[str, float] = {}
        self.artifact: Any = None
        self.shown: tuple[float, str] = (0.0, "")
        self.thread: threading.Thread | None = None

    def start(self, steps: int) -> None:
        """Begin to show progress; nothing when all `steps` of the plan come from the store."""
        if not self.weights:
            self.log.info("all %d steps are in the store", steps)
            return
        todo = f"{len(self.weights)} of {steps} steps to run: {', '.join(self.weights)}"
        self.log.info(todo)
        with best_effort():
            self.shown = (0.0, f"{self.recipe}: {todo}")
            self.artifact = create_progress_artifact(progress=0.0, key="progress", description=self.shown[1])
            self.thread = threading.Thread(target=copy_context().run, args=(self._keep_showing,), daemon=True)
            self.thread.start()

    def finish(self, what: str, *, complete: bool) -> None:
        """The last word on the bar: `what` became of the run."""
        self.stop.set()
        if self.thread is None:
            return
        self.thread.join(PROGRESS_SECONDS)
        with best_effort():
            self._show(100.0 if complete else self.state()[0], what)

    def state(self) -> tuple[float, str]:
        """Per cent of the whole run, and in words which step of how many, how far, and what it waits for."""
        with self.lock:
            total = sum(self.weights.values()) or 1.0
            done = sum(self.weights.get(name, 0.0) for name in self.done)
            done += sum(share * self.weights.get(name, 0.0) for name, (share, _) in self.running.items())
            words = [_words(name, share, note) for name, (share, note) in self.running.items()]
            finished = sum(name in self.weights for name in self.done)
        which = f"step {min(finished + 1, len(self.weights))} of {len(self.weights)}"
        return min(100.0, 100.0 * done / total), f"{self.recipe}: {which}: {'; '.join(words) or 'between steps'}"

    def _keep_showing(self) -> None:
        warned = False
        while not self.stop.wait(PROGRESS_SECONDS):
            try:
                self._show(*self.state())
            except Exception as error:  # the server is down: the run goes on, and so do we when it is back
                if not warned:
                    get_logger("stillhouse").warning("progress is not shown for now: %s", error)
                warned = True

    def _show(self, share: float, description: str) -> None:
        if (share, description) != self.shown:
            update_progress_artifact(self.artifact, progress=share, description=description)  # pyright: ignore
            self.shown = (share, description)

    def step_started(self, name: str) -> None:
        with self.lock:
            self.running[name] = (0.0, "")
            self.logged[name] = time.monotonic()
        self.log.info("%s …", name)
        self.other.step_started(name)

    def progress(self, name: str, done: int, total: int, note: str) -> None:
        share = min(1.0, done / total) if total else 0.0
        now = time.monotonic()
        with self.lock:
            before = self.running.get(name, (0.0, ""))
            self.running[name] = (share, note)
            due = now - self.logged.get(name, 0.0) >= LOG_SECONDS or (not total and note != before[1])
            if due:
                self.logged[name] = now
        if due:
            self.log.info(_words(name, share, note))
        self.other.progress(name, done, total, note)

    def step_finished(self, outcome: Outcome) -> None:
        with self.lock:
            self.running.pop(outcome["name"], None)
            self.done.append(outcome["name"])
        if outcome["state"] == "failed":
            self.log.error("%s failed: %s", outcome["name"], outcome["error"])
        else:
            took = f" in {duration(outcome['seconds'])}" if outcome["state"] != "cached" else ""
            shown = "".join(f", {key} {figure(value)}" for key, value in list(outcome["metrics"].items())[:4])
            self.log.info("%s %s%s%s", outcome["name"], outcome["state"], took, shown)
        self.other.step_finished(outcome)

    def note(self, text: str) -> None:
        self.log.info(text)
        self.other.note(text)


def weights(estimates: dict[str, float | None]) -> dict[str, float]:
    """Share of the bar for each step to run: its expected seconds, the others' mean where nobody knows."""
    known = [seconds for seconds in estimates.values() if seconds]
    mean = sum(known) / len(known) if known else 1.0
    return {name: seconds or mean for name, seconds in estimates.items()}


def _words(name: str, share: float, note: str) -> str:
    return " ".join(part for part in (name, f"{100 * share:.0f}%" if share else "", note) if part)
