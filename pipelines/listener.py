"""Who is told what a run does: the terminal, a Prefect artifact, or nobody."""

from typing import Any

from pipelines.plan import Plan

Outcome = dict[str, Any]
"""`{"name", "uses", "key", "state": "ran|cached|failed|refused", "seconds", "metrics"}`."""


class Listener:
    """Hears nothing; subclasses show it."""

    def plan_made(self, plan: Plan, estimates: dict[str, float | None], causes: list[str]) -> None: ...

    def step_started(self, name: str) -> None: ...

    def progress(self, name: str, done: int, total: int, note: str) -> None: ...

    def step_finished(self, outcome: Outcome) -> None: ...

    def note(self, text: str) -> None: ...
